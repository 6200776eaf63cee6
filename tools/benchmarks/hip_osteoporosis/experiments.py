"""What the hip bundle's recipe can do, question by question, with seeds and intervals over patients.

    python tools/benchmarks/hip_osteoporosis/experiments.py train backbones WORK
    python tools/benchmarks/hip_osteoporosis/experiments.py train chest WORK --films SHARED/cxr/nih1000_64px
    python tools/benchmarks/hip_osteoporosis/experiments.py report WORK -o docs/reference/benchmark_hip.md

`train` makes the phantoms below WORK/data when they are not there, trains every cell of a question and
writes WORK/<question>/cells/<cell>.json; what is there is not done again, and a cell that was killed goes on
from its last epoch, so the same command after any interruption finishes the grid. The questions are those of
hip_grids.py: backbones, confounder, leak, covariates on phantoms, chest on real films. `--list` prints the
cells, `--only TEXT` takes those whose name contains TEXT, `--minutes` starts no cell after that time.
`report` writes the tables of every question that has finished cells. Everything runs on one thread of a
processor; no cell takes longer than four minutes of it at 128 pixels and 6 epochs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from hip_cells import read_record, run_cell
from hip_grids import GRIDS, Plan

from medseg.errors import MedsegError

TOOLS = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOOLS / "datasets"))

DATASETS = {"plain": (), "confounded": ("--confounded",), "uncertain": ("--record-error", "1.0")}
"""Below WORK/data, with the options of tools/datasets/hip_phantoms.py that make each."""

NEEDED = {
    "backbones": ("plain",),
    "confounder": ("confounded",),
    "leak": ("uncertain",),
    "covariates": ("uncertain",),
    "chest": (),
}


def make_data(folder: Path, names: tuple[str, ...]) -> None:
    import hip_phantoms

    for name in names:
        if not (folder / name / "datalist.json").exists():
            (folder / name).mkdir(parents=True, exist_ok=True)
            arguments = [str(folder / name), str(folder / name / "datalist.json"), *DATASETS[name]]
            if hip_phantoms.main(arguments):
                raise SystemExit(2)


def train(options: argparse.Namespace) -> int:
    import torch

    torch.set_num_threads(1)
    make_data(options.work / "data", NEEDED[options.question])
    out = options.work / options.question
    plan = Plan(options.work / "data", options.films, options.pixels, options.epochs)
    began = time.monotonic()
    for cell in GRIDS[options.question](plan):
        if options.only not in cell.key:
            continue
        if options.list:
            print(cell.key)
            continue
        path = out / "cells" / f"{cell.key}.json"
        if path.exists():
            read_record(path, cell)
            print(f"{cell.key}: there already", flush=True)
            continue
        if time.monotonic() - began > 60 * options.minutes:
            print(f"{cell.key}: not started, {options.minutes:g} minutes are over")
            return 0
        print(f"{cell.key}: {run_cell(cell, out)['training_minutes']:.1f} min", flush=True)
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train")
    verb.add_argument("question", choices=tuple(GRIDS))
    verb.add_argument("work", type=Path, metavar="WORK")
    verb.add_argument("--films", type=Path, default=Path("../shared/data/cxr/nih1000_64px"), metavar="DIR")
    verb.add_argument("--pixels", type=int, default=128, help="of a phantom; default 128")
    verb.add_argument("--epochs", type=int, default=6)
    verb.add_argument("--only", default="", metavar="TEXT")
    verb.add_argument("--minutes", type=float, default=1e9)
    verb.add_argument("--list", action="store_true")
    verb = verbs.add_parser("report")
    verb.add_argument("work", type=Path, metavar="WORK")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="PAGE")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "train":
            return train(options)
        from hip_tables import report

        return report(options.work, options.output)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
