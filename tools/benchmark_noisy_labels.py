"""Benchmark of training on wrong labels: a grid of noise and methods, scored on clean labels.

    python tools/benchmark_noisy_labels.py run OUT --data phantom --jobs 2
    python tools/benchmark_noisy_labels.py run OUT --data cxr --cxr FOLDER --jobs 2
    python tools/benchmark_noisy_labels.py report OUT -o docs/reference

`run` trains every cell of the grid of that data set (`--list` prints them) and writes OUT/cells/<cell>.json,
one file per finished cell; what is there is not trained again, so a killed run goes on where it stopped.
Cells run in --jobs processes of one thread each, all with the same budget
(medseg.training.noisy.benchmark.Budget). `--only TEXT` takes the cells whose name contains TEXT. Noise is put
on training labels only; there is no choice of epochs: every run ends with its last step; the clean test set
is scored once. `report` writes noisy_labels.csv (a row per cell and structure), noisy_labels_comparison.csv
(every method against plain cross-entropy: paired bootstrap over test images) and the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from medseg.errors import InputError, MedsegError
from medseg.files import atomic_path
from medseg.training.noisy.benchmark import Budget, Cell, run_cell, without_fixing

DATA = ("phantom", "cxr", "cxr_fold1", "cxr_fold2")
"""The last two: the films of tools/datasets/jsrt.py, tested on one fold of SCR and trained on the other."""

METHODS = ("ce", "weighted_ce", "dice_ce", "t_loss", "trimming", "qam", "qam_ocm", "loss_history")
OTHER_METHODS = ("qam_ocm_dice_ce", "gce", "nr_dice", "co_teaching", "adele", "confident_learning")
ONE_SIDED = ("ce", "dice_ce", "t_loss", "qam_ocm", "loss_history")
FRESH = ("ce", "weighted_ce", "dice_ce", "qam_ocm")
"""Methods for noise drawn at every fetch, where no case has a history."""

SEEDS = (1, 2, 3)
"""Seed 0 is the one that settings were chosen on."""

HARD = ("fixed", 0.5, "5-13")
"""Where the review curve is drawn and the further peers are compared."""


def grid(data: str) -> list[Cell]:
    """All cells of one data set, what matters most first; cells that follow another's ranking come last."""

    def cells(
        generator: str, share: float, sizes: str, methods: tuple[str, ...], **more: object
    ) -> list[Cell]:
        return [
            Cell(data, generator, share, sizes, method, seed, **more) for method in methods for seed in SEEDS
        ]

    noisy = [(0.75, "5-13"), (0.5, "5-13")]
    if data == "phantom":
        noisy += [(0.75, "1-8"), (0.5, "1-8"), (0.25, "5-13"), (0.25, "1-8")]
    found = cells("fixed", 0.75, "5-13", METHODS) + cells("fixed", 0.0, "5-13", METHODS)
    found += cells("fixed", 0.5, "5-13", METHODS)
    if data != "phantom":
        return found
    found += cells("biased", 0.75, "5-13", ONE_SIDED, direction="dilate")
    for share, sizes in noisy:
        found += cells("fixed", share, sizes, ("dice_ce",), subset="clean")
    for share, sizes in noisy[2:]:
        found += cells("fixed", share, sizes, METHODS)
    for share, sizes in noisy:
        found += cells("paper", share, sizes, FRESH)
    found += cells(*HARD, OTHER_METHODS) + cells("fixed", 0.75, "5-13", OTHER_METHODS)
    found += cells("biased", 0.75, "1-8", ONE_SIDED, direction="dilate")
    for share in (0.5, 0.75):
        found += cells("styles", share, "5-13", ONE_SIDED)
    for share, by in itertools.product((0.1, 0.2, 0.3, 0.5), ("random", "final_loss")):
        found += cells(*HARD, ("dice_ce",), fixed_share=share, fixed_by=by)
    return found


def path_of(out: Path, cell: Cell) -> Path:
    return out / "cells" / f"{cell.key}.json"


def read_result(path: Path, budget: Budget) -> dict:
    """A finished cell. InputError when it was trained with another budget: such cells must not be
    compared."""
    result = json.loads(path.read_text())
    if result["budget"] != json.loads(json.dumps(asdict(budget))):
        raise InputError(f"{path} was trained with another budget; use another folder or delete it.")
    return result


def finish_cell(cell: Cell, budget: Budget, out: Path, cxr: Path | None) -> float:
    """Train one cell and write its file; the minutes it took."""
    import torch

    torch.set_num_threads(1)
    begin = time.perf_counter()
    base = None
    if cell.fixed_share and cell.fixed_by != "random":
        base_path = path_of(out, without_fixing(cell))
        if not base_path.exists():
            raise InputError(
                f"{cell.key} needs {base_path.name}, which is not there; run the whole grid first."
            )
        base = read_result(base_path, budget)
    result = run_cell(cell, budget, cxr, base)
    minutes = (time.perf_counter() - begin) / 60
    with atomic_path(path_of(out, cell)) as temporary:
        temporary.write_text(json.dumps({**result, "minutes": minutes}))
    return minutes


def run(options: argparse.Namespace) -> None:
    budget = Budget(steps=options.steps) if options.steps else Budget()
    if options.jobs < 1 or (options.steps is not None and options.steps < 1):
        raise InputError("--jobs and --steps are 1 or more.")
    cells = [cell for cell in grid(options.data) if options.only in cell.key]
    if not cells:
        raise InputError(f"no cell's name contains '{options.only}'; --list prints them.")
    if options.list:
        print("\n".join(cell.key for cell in cells))
        return
    (options.out / "cells").mkdir(parents=True, exist_ok=True)
    todo = []
    for cell in cells:
        if path_of(options.out, cell).exists():
            read_result(path_of(options.out, cell), budget)
        else:
            todo.append(cell)
    print(f"{len(cells)} cells, {len(cells) - len(todo)} finished before")
    context = multiprocessing.get_context("spawn")
    # Two rounds: a cell that follows a ranking needs the file of the cell that made it.
    for followers in (False, True):
        now = [cell for cell in todo if (cell.fixed_by not in ("", "random")) == followers]
        with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
            jobs = {pool.submit(finish_cell, cell, budget, options.out, options.cxr): cell for cell in now}
            for done, job in enumerate(as_completed(jobs), 1):
                print(f"{done}/{len(now)} {jobs[job].key}: {job.result():.2f} minutes", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train the cells that are not finished")
    one.add_argument("out", type=Path)
    one.add_argument("--data", choices=DATA, default="phantom")
    one.add_argument("--cxr", type=Path, help="folder with cases.csv, images/ and masks/")
    one.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    one.add_argument("--only", default="", help="only cells whose name contains this")
    one.add_argument("--steps", type=int, help="training steps instead of the budget's")
    one.add_argument("--list", action="store_true", help="print the cells and stop")
    two = commands.add_parser("report", help="tables and figures of what is finished")
    two.add_argument("out", type=Path)
    two.add_argument("-o", "--output", type=Path, required=True)
    two.add_argument("--markdown", type=Path, help="page whose section 'results' is replaced")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # One thread per process: cells are many and small. Set before torch is loaded in the children.
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        if options.command == "run":
            run(options)
        else:
            from noisy_report import write_report

            write_report(options.out, options.output, options.markdown)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
