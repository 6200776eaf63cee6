"""What takes long and is no contouring: training, scoring, many images at once. A process of its own:
``python -m medseg.serve.monai_label.chores``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.bundles.queue import Queue, QueuedJob
from medseg.bundles.worker import worker_name
from medseg.errors import MedsegError, system_error_line

if TYPE_CHECKING:
    from medseg.serve.monai_label.service import Service

CHORE_TASK = "medseg label chores"
"""What workers that contour never claim."""

SCORINGS = {
    "uncertain": "Mean entropy of the model's probabilities, of every image",
    "diverse": "Features of every image: grey levels, coarsely",
}
LEASE_S = 60.0
LOG = logging.getLogger("medseg.label")


class Stopped(Exception):
    """The chore was cancelled, or belongs to another process now."""


class Report:
    """How a chore says how far it is, and learns that it was cancelled."""

    def __init__(self, queue: Queue, job: QueuedJob):
        self.queue, self.job = queue, job
        self.progress, self.words, self.lost = 0.0, "", False

    def __call__(self, progress: float, words: str = "") -> None:
        """Raises Stopped when nobody wants the chore any more."""
        self.progress, self.words = progress, words or self.words
        self.beat()
        if self.lost:
            raise Stopped

    def beat(self) -> None:
        worker = str(self.job.worker)
        self.lost = not self.queue.heartbeat(self.job.id, worker, LEASE_S, self.progress, self.words[:500])

    def pause(self) -> None:
        """Between two looks at what another process does."""
        time.sleep(0.2)

    @contextmanager
    def beating(self):
        """Within the block the chore stays this process's, however long a step takes; what medseg logs becomes
        its note. A chore that was cancelled interrupts the main thread, as Ctrl-C does."""
        import _thread

        ended, handler = threading.Event(), _Note(self)

        def beat() -> None:
            while not ended.wait(2.0):
                self.beat()
                if self.lost:
                    _thread.interrupt_main()
                    return

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        logging.getLogger("medseg").addHandler(handler)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            logging.getLogger("medseg").removeHandler(handler)


class _Note(logging.Handler):
    def __init__(self, report: Report):
        super().__init__(logging.INFO)
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        self.report.words = record.getMessage()


def run_chore(service: Service, job: QueuedJob, report: Report) -> Mapping[str, Any]:
    """Do one chore; returns its result."""
    from medseg.serve.monai_label import scoring, training

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
    queue, worker, report = service.chores, str(job.worker), Report(service.chores, job)
    began = time.monotonic()
    try:
        with report.beating():
            result = run_chore(service, job, report)
    except (Stopped, KeyboardInterrupt) as error:
        if not report.lost:  # this process itself is to end; the chore goes on in another one
            queue.give_back(job.id, worker)
            raise KeyboardInterrupt from error
        queue.let_go(job.id, worker)
    except (MedsegError, OSError) as error:
        queue.fail(job.id, worker, system_error_line(error) if isinstance(error, OSError) else str(error))
    except Exception as error:
        LOG.exception("chore %s: a fault of medseg", job.id)
        queue.fail(job.id, worker, f"{type(error).__name__}: {error}", retry=True)
    else:
        queue.finish(job.id, worker, {**result, "total_time": round(time.monotonic() - began, 1)})
    LOG.info("chore %s (%s): ended", job.id, job.payload.get("chore"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or Ctrl-C, which give the chore in hand back."""
    parser = argparse.ArgumentParser(prog="python -m medseg.serve.monai_label.chores", description=__doc__)
    for name in ("studies", "bundles", "state"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from medseg.serve.monai_label.service import Service

    try:
        service = Service(options.studies, options.bundles.split(","), Path(options.state))
        work(service, threading.Event())
    except KeyboardInterrupt:
        return 0
    except MedsegError as error:
        LOG.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
