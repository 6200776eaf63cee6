"""What the hip bundle's recipe can do on phantoms, question by question, with seeds and intervals.

    python tools/benchmarks/hip_osteoporosis/experiments.py train backbones WORK
    python tools/benchmarks/hip_osteoporosis/experiments.py report WORK -o docs/reference/benchmark_hip.md

`train` makes the phantoms below WORK/data when they are not there, trains every cell of a question and
writes WORK/<question>/cells/<cell>.json; what is there is not done again, and a cell that was killed goes on
from its last epoch, so the same command after any interruption finishes the grid. The questions are those of
hip_grids.py. `--list` prints the cells, `--only TEXT` takes those whose name contains TEXT, `--minutes` starts
no cell after that time. `report` writes the tables of every question that has finished cells. Everything runs
on one thread of a processor; a cell takes about a minute of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

from hip_cells import Cell, read_record, run_cell
from hip_grids import GRIDS

from medseg.errors import MedsegError

TOOLS = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOOLS / "datasets"))

DATASETS = {"plain": (), "confounded": ("--confounded",)}
"""Below WORK/data, with the options of tools/datasets/hip_phantoms.py that make each."""


def make_data(folder: Path) -> None:
    import hip_phantoms

    for name, options in DATASETS.items():
        if not (folder / name / "datalist.json").exists():
            (folder / name).mkdir(parents=True, exist_ok=True)
            if hip_phantoms.main([str(folder / name), str(folder / name / "datalist.json"), *options]):
                raise SystemExit(2)


def train(options: argparse.Namespace) -> int:
    make_data(options.work / "data")
    out = options.work / options.question
    chosen = [cell for cell in GRIDS[options.question](options.work / "data") if options.only in cell.key]
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    for cell in chosen:
        path = out / "cells" / f"{cell.key}.json"
        if options.list:
            print(cell.key)
            continue
        if path.exists():
            read_record(path, cell)
            print(f"{cell.key}: there already", flush=True)
            continue
        if time.monotonic() - began > 60 * options.minutes:
            print(f"{cell.key}: not started, {options.minutes:g} minutes are over")
            return 0
        process = context.Process(
            target=_in_process, args=(cell, out)
        )  # a killed one leaves no memory behind
        process.start()
        process.join()
        if process.exitcode:
            print(f"error: {cell.key} ended with {process.exitcode}", file=sys.stderr)
            return 1
        print(f"{cell.key}: {read_record(path)['training_minutes']:.1f} min", flush=True)
    return 0


def _in_process(cell: Cell, out: Path) -> None:
    import torch

    torch.set_num_threads(1)
    run_cell(cell, out)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train")
    verb.add_argument("question", choices=tuple(GRIDS))
    verb.add_argument("work", type=Path, metavar="WORK")
    verb.add_argument("--only", default="", metavar="TEXT")
    verb.add_argument("--minutes", type=float, default=1e9)
    verb.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    try:
        return train(options)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
