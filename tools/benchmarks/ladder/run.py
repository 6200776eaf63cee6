"""The ladder from U-Net to Res-U-Net + SE + Cycle + Dice, and three kept networks beside it.

    python tools/benchmarks/head_neck/run.py prepare DATASET_DIR HEAD_NECK.npz
    python tools/benchmarks/multimodal_gtv/run.py pack DATASET_DIR OUT SARCOMA.npz
    python tools/benchmarks/ladder/run.py train head_neck HEAD_NECK.npz CELLS --device cuda --jobs 12
    python tools/benchmarks/ladder/run.py train head_neck_coarse HEAD_NECK.npz CELLS --jobs 2 --seeds 1 2
    python tools/benchmarks/ladder/run.py train sarcoma SARCOMA.npz CELLS --device cuda --jobs 12
    python tools/benchmarks/ladder/run.py cost head_neck HEAD_NECK.npz CELLS --device cuda
    python tools/benchmarks/ladder/run.py report CELLS -o docs/reference/ladder

Every network gets the same patients, windows, steps and optimiser. `train` writes one JSON per cell (network,
fold, seed) and skips what is there; `cost` writes what each network costs; `report` writes one tidy CSV, one
figure and the tables of docs/reference/benchmark_ladder.md, which it prints.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import torch
from cell import BUDGETS, Budget, cost, run
from data import FOLDS, TASKS, Task
from steps import STEPS

from medseg.errors import MedsegError
from medseg.files import atomic_path

SEEDS = (1, 2, 3)


def name_of(task: str, network: str, fold: int, seed: int) -> str:
    plain = "".join(letter if letter.isalnum() else "_" for letter in network)
    return f"{task}_{plain}_fold{fold}_seed{seed}"


@functools.cache
def read_once(task: str, cases: Path, device: str) -> Task:
    """The patients, kept by each process for its next cell."""
    return TASKS[task](cases, torch.device(device))


def finish(task: str, cases: Path, out: Path, what: tuple[int, int, str], budget: Budget, device: str) -> str:
    """One cell and its file, unless that is there; its name."""
    seed, fold, network = what
    path = out / f"{name_of(task, network, fold, seed)}.json"
    if not path.exists():
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True  # every step has the same sizes
        place = torch.device(device)
        result = run(read_once(task, cases, device), network, fold, seed, budget, place)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(result))
    return path.stem


def train(options: argparse.Namespace) -> None:
    """Every cell of a task, seeds outermost, so that a run that ends early has whole seeds."""
    options.out.mkdir(parents=True, exist_ok=True)
    budget = BUDGETS[options.task]
    if options.steps:
        budget = replace(budget, steps=options.steps)
    networks = [name for name in STEPS if options.only in name and name not in options.without]
    todo = list(itertools.product(options.seeds, range(FOLDS), networks))
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(finish, options.task, options.cases, options.out, what, budget, options.device)
            for what in todo
        ]
        for number, job in enumerate(as_completed(jobs), 1):
            print(f"{number} of {len(jobs)}: {job.result()}", flush=True)


def costs(options: argparse.Namespace) -> None:
    """One JSON with a row per network."""
    device = torch.device(options.device)
    task = TASKS[options.task](options.cases, device)
    rows = [cost(task, name, device) for name in STEPS if name not in options.without]
    with atomic_path(options.out / f"cost_{options.task}_{device.type}.json") as temporary:
        temporary.write_text(json.dumps(rows))


def report(options: argparse.Namespace) -> None:
    """CSV, figure and tables."""
    import tables

    tables.write(options.cells, options.output_dir)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("train", train), ("cost", costs)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("task", choices=list(TASKS))
        command.add_argument("cases", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("--device", default="cpu")
        command.add_argument("--without", nargs="*", default=[], help="networks to leave out")
        if name == "train":
            command.add_argument("--jobs", type=int, default=1)
            command.add_argument("--steps", type=int)
            command.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
            command.add_argument("--only", default="", help="networks whose name holds this")
    command = commands.add_parser("report")
    command.set_defaults(function=report)
    command.add_argument("cells", type=Path)
    command.add_argument("-o", "--output-dir", type=Path, required=True)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    try:
        options.function(options)
    except MedsegError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
