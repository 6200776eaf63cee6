"""Benchmark of training on wrong labels: grids of noise and methods, scored on clean labels.

    python tools/benchmarks/noisy_labels/run.py train OUT --grid decisive --jobs 2
    python tools/benchmarks/noisy_labels/run.py train OUT_LONG --grid long --steps 1200
    python tools/benchmarks/noisy_labels/run.py train OUT_FILMS --grid radiographs --cxr FOLDER \\
        --side 256 --steps 2000
    python tools/benchmarks/noisy_labels/run.py report OUT -o docs/reference/noisy_labels

`train` trains every cell of a grid (`--list` prints them) and writes OUT/cells/<cell>.json, one file per
finished cell; what is there is not trained again, so a killed run goes on where it stopped. Cells run in
--jobs processes of one thread each, all with the same budget (cell.Budget). `--only TEXT` takes the cells
whose name contains TEXT, `--seconds` starts no cell after that time. Noise is put on training labels only;
there is no choice of epochs: every run ends with its last step; the clean test set is scored once. `report`
writes tables (a row per cell and structure, per comparison, per ranking) and figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path

from cell import Budget, Cell, Place, images_of, run_cell, without_fixing
from grids import GRIDS

from medseg.errors import InputError, MedsegError
from medseg.files import atomic_path


def path_of(out: Path, cell: Cell) -> Path:
    return out / "cells" / f"{cell.key}.json"


def read_result(path: Path, budget: Budget) -> dict:
    """A finished cell. InputError when it was trained with another budget: such cells must not be
    compared."""
    result = json.loads(path.read_text())
    if result["budget"] != json.loads(json.dumps(asdict(budget))):
        raise InputError(f"{path} was trained with another budget; use another folder or delete it.")
    return result


def finish_cell(cell: Cell, budget: Budget, out: Path, place: Place) -> float:
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
    result = run_cell(cell, budget, place, base)
    minutes = (time.perf_counter() - begin) / 60
    with atomic_path(path_of(out, cell)) as temporary:
        temporary.write_text(json.dumps({**result, "minutes": minutes}))
    return minutes


def draw_images(cell: Cell, budget: Budget, place: Place) -> None:
    """Keep the cell's images where there is a folder for them."""
    images_of(cell, budget, place)


def budget_of(options: argparse.Namespace) -> Budget:
    asked = {"steps": options.steps, "side": options.side, "batch": options.batch}
    if options.jobs < 1 or any(value is not None and value < 1 for value in asked.values()):
        raise InputError("--jobs, --steps, --side and --batch are 1 or more.")
    return replace(Budget(), **{name: value for name, value in asked.items() if value is not None})


def train(options: argparse.Namespace) -> None:
    budget, begin = budget_of(options), time.monotonic()
    found = [cell for cell in GRIDS[options.grid]() if options.only in cell.key]
    if not found:
        raise InputError(f"no cell's name contains '{options.only}'; --list prints them.")
    if options.list:
        print("\n".join(cell.key for cell in found))
        return
    (options.out / "cells").mkdir(parents=True, exist_ok=True)
    place = Place(options.device, options.cxr, options.out / "drawn")
    todo = []
    for cell in found:
        if path_of(options.out, cell).exists():
            read_result(path_of(options.out, cell), budget)
        else:
            todo.append(cell)
    print(f"{len(found)} cells, {len(found) - len(todo)} finished before", flush=True)
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        # Once for each seed, before many processes ask for the same images.
        firsts = {(cell.data, cell.seed): cell for cell in todo}.values()
        list(pool.map(draw_images, firsts, *([value] * len(firsts) for value in (budget, place))))
        print(f"images drawn after {time.monotonic() - begin:.0f} s", flush=True)
        # Two rounds: a cell that follows a ranking needs the file of the cell that made it.
        for followers in (False, True):
            now = [cell for cell in todo if (cell.fixed_by not in ("", "random")) == followers]
            _work_off(pool, now, options, (budget, place), begin)


def _work_off(
    pool: ProcessPoolExecutor,
    cells: list[Cell],
    options: argparse.Namespace,
    what: tuple[Budget, Place],
    begin: float,
) -> None:
    """Cells in their order, as many at once as there are processes, none begun after --seconds."""
    waiting, running, done = list(cells), {}, 0
    while waiting or running:
        late = options.seconds is not None and time.monotonic() - begin > options.seconds
        while waiting and not late and len(running) < options.jobs:
            cell = waiting.pop(0)
            running[pool.submit(finish_cell, cell, what[0], options.out, what[1])] = cell
        if not running:
            print(f"time is up: {len(waiting)} cells were not begun", flush=True)
            return
        for job in wait(running, return_when=FIRST_COMPLETED).done:
            done += 1
            passed = time.monotonic() - begin
            key, minutes = running.pop(job).key, job.result()
            print(f"{passed:.0f} s {done}/{len(cells)} {key}: {minutes:.2f} minutes", flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="train the cells that are not finished")
    one.add_argument("out", type=Path)
    one.add_argument("--grid", choices=GRIDS, default="decisive")
    one.add_argument("--cxr", type=Path, help="folder with cases.csv, images/ and masks/")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    one.add_argument("--only", default="", help="only cells whose name contains this")
    one.add_argument("--steps", type=int, help="training steps instead of the budget's")
    one.add_argument("--side", type=int, help="pixels along an image's side instead of the budget's")
    one.add_argument("--batch", type=int, help="images of a step instead of the budget's")
    one.add_argument("--seconds", type=float, help="begin no cell after this time")
    one.add_argument("--list", action="store_true", help="print the cells and stop")
    two = commands.add_parser("report", help="tables and figures of what is finished")
    two.add_argument("out", type=Path)
    two.add_argument("-o", "--output", type=Path, required=True)
    two.add_argument("--name", default="noisy_labels", help="how the files begin")
    two.add_argument("--markdown", type=Path, help="page whose section of that name is replaced")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # One thread per process: cells are many and small. Set before torch is loaded in the children.
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        if options.command == "train":
            train(options)
        else:
            from report import write_report

            write_report(options.out, options.output, options.name, options.markdown)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
