"""Cells of a grid, worked off by processes side by side: what benchmarks that train many small networks
share.

A cell is anything with a ``key``, its name among all cells and the name of its file. Each gets a fresh
process, so that its peak of memory is its own, of one thread. What is finished is not done again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any, Protocol

from medseg.errors import MedsegError


class Keyed(Protocol):
    key: str


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """--only, --minutes, --jobs and --list, which work_off follows."""
    verb.add_argument("--only", default="", metavar="TEXT", help="cells whose name contains it")
    verb.add_argument("--minutes", type=float, default=1e9, help="start no cell after this time")
    verb.add_argument("--jobs", type=int, default=1, help="processes side by side, one thread each")
    verb.add_argument("--list", action="store_true", help="print the cells and stop")


def work_off(
    cells: Sequence[Keyed],
    finished: Callable[[Any], bool],
    run: Callable[[Any], str],
    options: argparse.Namespace,
) -> int:
    """Run ``run(cell)`` for every cell that is not ``finished``, in their order; prints the line that each
    returns. ``options``: those of add_arguments.

    Returns 0, or 1 when a cell ended otherwise than by returning; the others go on. ``run`` and the cells
    travel to other processes: pickled, a function of a module or a partial of one.
    """
    chosen = [cell for cell in cells if options.only in cell.key]
    if options.list:
        print("\n".join(cell.key for cell in chosen))
        return 0
    waiting = []
    for cell in chosen:
        if finished(cell):
            print(f"{cell.key}: there already", flush=True)
        else:
            waiting.append(cell)
    context, began, running, failed = multiprocessing.get_context("spawn"), time.monotonic(), {}, 0
    while waiting or running:
        late = time.monotonic() - began >= 60 * options.minutes
        if late and waiting:
            print(f"{len(waiting)} cells not started, {options.minutes:g} minutes are over", flush=True)
            waiting = []
        while waiting and len(running) < max(options.jobs, 1):
            cell = waiting.pop(0)
            process = context.Process(target=_in_process, args=(run, cell))
            process.start()
            running[process.sentinel] = (process, cell)
        for sentinel in wait(list(running)) if running else ():
            process, cell = running.pop(sentinel)
            process.join()
            if process.exitcode:
                print(f"error: {cell.key} ended with {process.exitcode}", file=sys.stderr, flush=True)
                failed = 1
    return failed


def _in_process(run: Callable[[Any], str], cell: Keyed) -> None:
    if torch := sys.modules.get("torch"):  # loaded by the module of the cell, or not needed
        torch.set_num_threads(1)
    try:
        print(f"{cell.key}: {run(cell)}", flush=True)
    except MedsegError as error:
        print(f"error: {cell.key}: {error}", file=sys.stderr)
        sys.exit(2)
