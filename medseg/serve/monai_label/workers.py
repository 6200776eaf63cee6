"""The processes behind the protocol: one contours, one does chores. They are kept by a process of their own,
beside the server that stands alone and beside a site: ``python -m medseg.serve.monai_label.workers``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from medseg.errors import MedsegError
from medseg.serve.monai_label.service import Service
from medseg.serve.processes import Group, Kept, module_command

NICENESS = 2
"""Contouring takes every core; whoever asks the server something meanwhile comes first."""


def commands(
    service: Service, bundles: Sequence[str], done_elsewhere: Collection[str], memory_gb: float | None
) -> dict[str, list[str]]:
    """{what: command} of the processes that there should be now: other ones when training made a new version.

    ``bundles``: as the operator named them. ``done_elsewhere``: tasks that other workers of the queue do.
    ``memory_gb``: the most that the contouring process may take.
    """
    chores = ["--studies", service.studies, "--state", str(service.places.state), "--bundles"]
    found = {"chores": module_command("medseg.serve.monai_label.chores", *chores, ",".join(bundles))}
    tasks = [task for task in service.models.tasks() if task not in done_elsewhere]
    if tasks:
        memory = [] if memory_gb is None else ["--memory-gb", str(memory_gb)]
        # The address of a queue may hold a password, which a command line would show: it is in MEDSEG_QUEUE.
        contour = ["medseg.bundles.worker", "-", "--poll-s", "0.1", *memory, "--bundles", ",".join(tasks)]
        found["contouring"] = module_command(*contour)
    return found


def _nicer(event: str, level: str = "info", **values: object) -> None:
    if event == "started":
        with suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, int(str(values["pid"])), NICENESS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the processes running until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m medseg.serve.monai_label.workers", description=__doc__)
    for name in ("studies", "bundles", "state"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--done-elsewhere", default="")
    parser.add_argument("--memory-gb", type=float)
    options = parser.parse_args(arguments)
    bundles, group = options.bundles.split(","), Group([], _nicer)
    group.stop_at_signals()
    try:
        service = Service(options.studies, bundles, Path(options.state), queue_url=os.environ["MEDSEG_QUEUE"])
    except MedsegError as error:
        print(f"label: {error}", file=sys.stderr)
        return 2
    kept: dict[str, Kept] = {}
    while not group.stopped.is_set():
        for what, command in commands(
            service, bundles, options.done_elsewhere.split(","), options.memory_gb
        ).items():
            kept.setdefault(what, Kept(what, command)).change(command)
        group.members = list(kept.values())
        group.keep()
        group.stopped.wait(1.0)
    group.end()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
