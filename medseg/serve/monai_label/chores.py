"""What takes long and is no contouring: training, scoring, many images at once. A process of its own:
``python -m medseg.serve.monai_label.chores``."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundles.queue import QueuedJob
from medseg.bundles.worker import settled, until_stopped, worker_name
from medseg.serve.monai_label import scoring, training
from medseg.serve.monai_label.service import Service
from medseg.serve.monai_label.tasks import CHORE_TASK, LEASE_S, Report

LOG = logging.getLogger("medseg.label")


def run_chore(service: Service, job: QueuedJob, report: Report) -> Mapping[str, Any]:
    """Do one chore; returns its result."""
    chores: dict[str, Callable[..., Mapping[str, Any]]] = {
        "train": training.train,
        "score": scoring.score,
        "batch": scoring.batch,
    }
    return chores[job.payload["chore"]](service, job, report)


def work(service: Service, stop: threading.Event, poll_s: float = 0.5) -> None:
    """Do chores one at a time until ``stop`` is set."""
    name, queue = worker_name(), service.chores
    while not stop.is_set():
        job = queue.claim(name, LEASE_S, tasks=[CHORE_TASK])
        if job is None:
            stop.wait(poll_s)
            continue
        do(service, job)


def do(service: Service, job: QueuedJob) -> None:
    """Do a claimed chore and record how it ended."""
    report, began = Report(service.chores, job), time.monotonic()
    with settled(service.chores, job, lambda: report.lost):
        with report.beating():
            result = run_chore(service, job, report)
        took_s = round(time.monotonic() - began, 1)
        service.chores.finish(job.id, str(job.worker), {**result, "total_time": took_s})
    LOG.info("chore %s (%s): ended", job.id, job.payload.get("chore"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or Ctrl-C, which give the chore in hand back."""
    parser = argparse.ArgumentParser(prog="python -m medseg.serve.monai_label.chores", description=__doc__)
    for name in ("studies", "bundles", "state"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)

    def run() -> None:
        service = Service(options.studies, options.bundles.split(","), Path(options.state))
        work(service, threading.Event())

    return until_stopped(run, lambda error: LOG.error("%s", error))


if __name__ == "__main__":
    raise SystemExit(main())
