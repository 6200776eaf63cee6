"""The five architectures on real photographs under one budget, by patient folds, with what each costs.

    python tools/benchmarks/eye_lesion/run.py train DATASET_DIR OUT
    python tools/benchmarks/eye_lesion/run.py train DATASET_DIR OUT_GPU --width full --epochs 60
    python tools/benchmarks/eye_lesion/run.py report OUT -o docs/reference/benchmark_eye_lesion.md
    python tools/benchmarks/eye_lesion/run.py ship OUT DATASET_DIR
    python tools/benchmarks/eye_lesion/run.py card SCORES_DIR --readme README.md

DATASET_DIR is the layout of tools/datasets/hei_med.py, whose split it uses: --folds names validation folds of
five; the locked test patients are not touched. `train` writes OUT/cells/<cell>.json and .npz for every
finished cell; what is there is not done again, and a cell that was killed goes on from its last epoch, so the
same command after any interruption finishes the grid. `--list` prints the cells, `--only TEXT` takes those
whose name contains TEXT, `--minutes` starts no cell after that time. Width narrow is a quarter of the
published widths, made for a processor: a cell takes about ten minutes of one core. No epoch is chosen; the
last one is scored. `report` writes a table per device and width; means are over all validation patients of
the folds, with 95 % intervals over patients.

`ship` puts the best architecture that fits 10 MB in half precision into the bundle: weights of --fold with
their digest, recipe, the fold's datalist, and a section of the card. `card` puts what `medseg score
eye_lesion -o SCORES_DIR` wrote into the card, and its figures into README.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

from cell import BASELINE, Budget, Cell, read_record, run_cell

from medseg.errors import MedsegError

ARCHITECTURES = ("unet", "fcn_resnet101", "segnet", "deeplabv3", "deeplabv3plus")
BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "eye_lesion"
WIDTHS = {"narrow": "_narrow", "full": ""}


def cells(width: str, folds: list[int]) -> list[Cell]:
    """The baseline first, then every architecture, fold by fold: an interrupted grid compares like with
    like."""
    names = [BASELINE, *(f"{name}{WIDTHS[width]}" for name in ARCHITECTURES)]
    return [Cell(name, fold) for fold in folds for name in names]


def train(options: argparse.Namespace) -> int:
    chosen = [cell for cell in cells(options.width, options.folds) if options.only in cell.key]
    if options.list:
        print("\n".join(cell.key for cell in chosen))
        return 0
    budget = Budget(
        epochs=options.epochs,
        patch_pixels=options.patch,
        longest_side=options.longest_side,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    for cell in chosen:
        path = options.out / "cells" / f"{cell.key}.json"
        if path.exists():
            read_record(path, budget)
            print(f"{cell.key}: there already", flush=True)
            continue
        if time.monotonic() - began > 60 * options.minutes:
            print(f"{cell.key}: not started, {options.minutes:g} minutes are over")
            return 0
        # A process of its own, so that its peak of memory is its own.
        process = context.Process(target=_in_process, args=(cell, budget, options.data, options.out))
        process.start()
        process.join()
        if process.exitcode:
            print(f"error: {cell.key} ended with {process.exitcode}", file=sys.stderr)
            return 1
        cost = read_record(path)["cost"]
        print(f"{cell.key}: {cost['training_minutes']:.1f} min, {cost['ms_per_image']:.0f} ms", flush=True)
    return 0


def _in_process(cell: Cell, budget: Budget, data: Path, out: Path) -> None:
    import torch

    torch.set_num_threads(1)
    run_cell(cell, budget, data, out)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train")
    verb.add_argument("data", type=Path, metavar="DATASET_DIR")
    verb.add_argument("out", type=Path, metavar="OUT")
    verb.add_argument("--width", choices=tuple(WIDTHS), default="narrow")
    verb.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2], metavar="FOLD")
    verb.add_argument("--epochs", type=int, default=Budget.epochs)
    verb.add_argument("--patch", type=int, default=Budget.patch_pixels, help="pixels; default 256")
    verb.add_argument("--longest-side", type=int, default=Budget.longest_side, help="default 1024")
    verb.add_argument("--learning-rate", type=float, default=Budget.learning_rate)
    verb.add_argument("--seed", type=int, default=Budget.seed)
    verb.add_argument("--only", default="", metavar="TEXT")
    verb.add_argument("--minutes", type=float, default=1e9)
    verb.add_argument("--list", action="store_true")
    verb = verbs.add_parser("report")
    verb.add_argument("out", type=Path, metavar="OUT")
    verb.add_argument("-o", "--output", type=Path, required=True, metavar="PAGE")
    verb.add_argument("--folds", type=int, nargs="+", metavar="FOLD", help="default: all that are finished")
    verb = verbs.add_parser("ship")
    verb.add_argument("out", type=Path, metavar="OUT")
    verb.add_argument("data", type=Path, metavar="DATASET_DIR")
    verb.add_argument("--bundle", type=Path, default=BUNDLE, help="default: the bundle of this checkout")
    verb.add_argument("--fold", type=int, default=0, help="whose weights; default 0, which the gate knows")
    verb.add_argument("--folds", type=int, nargs="+", metavar="FOLD", help="to choose on; default: all")
    verb.add_argument("--architecture", metavar="NAME", help="instead of the best")
    verb = verbs.add_parser("card")
    verb.add_argument("scores", type=Path, metavar="SCORES_DIR")
    verb.add_argument("--bundle", type=Path, default=BUNDLE)
    verb.add_argument("--readme", type=Path, metavar="README.md")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "train":
            return train(options)
        if options.verb == "report":
            from report import report

            return report(options.out, options.output, options.folds)
        from ship import Shipment, card, ship

        if options.verb == "ship":
            places = (options.out, options.data, options.bundle)
            return ship(Shipment(*places, options.fold, options.folds, options.architecture))
        return card(options.scores, options.bundle, options.readme)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
