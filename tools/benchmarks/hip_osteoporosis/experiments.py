"""What the hip bundle's recipe can do, question by question, with seeds and intervals over patients.

    python tools/benchmarks/hip_osteoporosis/experiments.py train backbones WORK
    python tools/benchmarks/hip_osteoporosis/experiments.py train chest WORK --films SHARED/cxr/nih1000_64px
    python tools/benchmarks/hip_osteoporosis/experiments.py train backbones leak WORK --device cuda --jobs 16
    python tools/benchmarks/hip_osteoporosis/experiments.py report WORK -o docs/reference/benchmark_hip.md

`train` makes the phantoms below WORK/data when they are not there, trains every cell of the questions and
writes WORK/<question>/cells/<cell>.json; what is there is not done again, and a cell that was killed goes on
from its last epoch, so the same command after any interruption finishes the grid, there or in a copy of WORK.
The questions are those of hip_grids.py: backbones, confounder, leak, covariates, bmd and neck on phantoms,
chest on real films. `--list` prints the cells, `--only TEXT` takes those whose name contains TEXT,
`--minutes` starts no cell after that time, `--jobs` trains several side by side, each on one thread. Pixels
and epochs are those of SCALES, unless they are given; cells of another scale need another WORK. Where
WORK/data/<set>/datalist.json is there already, neither pydicom nor SimpleITK is needed. `report` writes the
tables of every question that has finished cells.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hip_cells import Cell, read_record, run_cell
from hip_grids import GRIDS, Plan

from medseg.errors import MedsegError

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "datasets")]

from side_by_side import add_arguments, work_off  # noqa: E402

SCALES = {
    "backbones": (128, 30),
    "confounder": (64, 8),
    "leak": (64, 40),
    "covariates": (128, 20),
    "bmd": (64, 15),
    "neck": (64, 15),
    "chest": (64, 15),
}
"""{question: pixels and epochs of its cells}; chest films have 64 pixels whatever is asked."""

DATASETS = {"plain": (), "confounded": ("--confounded",), "uncertain": ("--record-error", "1.0")}
"""Below WORK/data, with the options of tools/datasets/hip_phantoms.py that make each."""

NEEDED = {
    "backbones": ("plain",),
    "confounder": ("confounded",),
    "leak": ("uncertain",),
    "covariates": ("uncertain",),
    "bmd": ("plain",),
    "neck": ("plain",),
    "chest": (),
}


def make_data(folder: Path, names: tuple[str, ...]) -> None:
    """What is missing of the phantoms; of a datalist that was brought along, the films."""
    import hip_phantoms

    for name in names:
        datalist = folder / name / "datalist.json"
        if not (folder / name / "images.csv").exists():
            datalist.parent.mkdir(parents=True, exist_ok=True)
            films_only = ["--films-only"] if datalist.exists() else []
            if hip_phantoms.main([str(datalist.parent), str(datalist), *DATASETS[name], *films_only]):
                raise SystemExit(2)


@dataclass(frozen=True)
class Task:
    """A cell, and the folder of its question."""

    out: Path
    cell: Cell

    @property
    def key(self) -> str:
        return f"{self.out.name}/{self.cell.key}"


def train(options: argparse.Namespace) -> int:
    tasks: list[Task] = []
    for question in options.questions:
        make_data(options.work / "data", NEEDED[question])
        if question == "neck" and not (options.work / "data" / "plain" / "found").exists():
            import neck_detector

            if neck_detector.main([str(options.work / "data" / "plain")]):
                return 2
        pixels, epochs = options.pixels or SCALES[question][0], options.epochs or SCALES[question][1]
        plan = Plan(options.work / "data", options.films, pixels, epochs)
        tasks += [Task(options.work / question, cell) for cell in GRIDS[question](plan)]
    return work_off(tasks, finished, partial(one_task, device=options.device), options)


def finished(task: Task) -> bool:
    """InputError where the cell is there with other settings."""
    path = task.out / "cells" / f"{task.cell.key}.json"
    return path.exists() and bool(read_record(path, task.cell))


def one_task(task: Task, device: str) -> str:
    return f"{run_cell(task.cell, task.out, device)['minutes']:.1f} min"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train")
    verb.add_argument("questions", nargs="+", choices=tuple(GRIDS), metavar="QUESTION", help=", ".join(GRIDS))
    verb.add_argument("work", type=Path, metavar="WORK")
    verb.add_argument("--films", type=Path, default=Path("../shared/data/cxr/nih1000_64px"), metavar="DIR")
    verb.add_argument("--pixels", type=int, help="of a phantom, instead of the question's")
    verb.add_argument("--epochs", type=int, help="instead of the question's")
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_arguments(verb)
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
