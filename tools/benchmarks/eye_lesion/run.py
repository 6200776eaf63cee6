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
whose name contains TEXT, `--minutes` starts no cell after that time, `--jobs` trains several side by side
(times of cells are then those of a busy machine). Width narrow is a quarter of the
published widths, made for a processor: a cell takes about ten minutes of one core. No epoch is chosen; the
last one is scored. `report` writes a table per device and width; means are over all validation patients of
the folds, with 95 % intervals over patients.

`ship` puts the best architecture that fits 10 MB in half precision into the bundle: weights of --fold with
their digest, recipe, the fold's datalist, and a section of the card. `card` puts what `medseg score
eye_lesion -o SCORES_DIR` wrote into the card, and its figures into README.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from cell import BASELINE, Budget, Cell, read_record, run_cell

from medseg.errors import MedsegError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from side_by_side import add_arguments, work_off  # noqa: E402

ARCHITECTURES = ("unet", "fcn_resnet101", "segnet", "deeplabv3", "deeplabv3plus")
BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "eye_lesion"
WIDTHS = {"narrow": "_narrow", "full": ""}


def cells(width: str, folds: list[int]) -> list[Cell]:
    """The baseline first, then every architecture, fold by fold: an interrupted grid compares like with
    like."""
    names = [BASELINE, *(f"{name}{WIDTHS[width]}" for name in ARCHITECTURES)]
    return [Cell(name, fold) for fold in folds for name in names]


def train(options: argparse.Namespace) -> int:
    budget = Budget(
        epochs=options.epochs,
        patch_pixels=options.patch,
        longest_side=options.longest_side,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )

    def finished(cell: Cell) -> bool:
        path = options.out / "cells" / f"{cell.key}.json"
        return path.exists() and bool(read_record(path, budget))

    run = partial(one_cell, budget=budget, data=options.data, out=options.out)
    return work_off(cells(options.width, options.folds), finished, run, options)


def one_cell(cell: Cell, budget: Budget, data: Path, out: Path) -> str:
    cost = run_cell(cell, budget, data, out)["cost"]
    return f"{cost['training_minutes']:.1f} min, {cost['ms_per_image']:.0f} ms"


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
    add_arguments(verb)
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
