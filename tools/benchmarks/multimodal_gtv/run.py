"""GTV in a box from CT, PET and MR: 5-fold cross-validation over patients, beside simple rules.

    python tools/benchmarks/multimodal_gtv/run.py train DATASET_DIR OUT
    python tools/benchmarks/multimodal_gtv/run.py baselines DATASET_DIR OUT
    python tools/benchmarks/multimodal_gtv/run.py report OUT
    python tools/benchmarks/multimodal_gtv/run.py datalist DATASET_DIR OUT
    python tools/benchmarks/multimodal_gtv/run.py test DATASET_DIR TEST_DIR OUT
    python tools/benchmarks/multimodal_gtv/run.py clicks DATASET_DIR OUT
    python tools/benchmarks/multimodal_gtv/run.py outlines DATASET_DIR TEST_DIR
    python tools/benchmarks/multimodal_gtv/run.py pack DATASET_DIR OUT PATIENTS.npz
    python tools/benchmarks/multimodal_gtv/run.py train-packed PATIENTS.npz OUT [--set NAME=VALUE …]

DATASET_DIR holds sts_gtv, sts_pet and sts_mr, each with a folder per patient. `train` trains the bundle
mm_gtv once for every fold, on the patients of the other four, and writes OUT/fold_K/scores.csv; `baselines`
writes OUT/fold_K/baselines.csv. Both skip what is done, and a training that was stopped goes on from its last
epoch. `report` puts everything into OUT/scores.csv and prints the tables of
docs/reference/benchmark_multimodal_gtv.md. `test` contours the patients of TEST_DIR (a DICOM folder each,
their PET and MR in DATASET_DIR) with the weights that the bundle ships, which are those of fold 0; `datalist`
prints the bundle's datalist. `clicks` begins with a point instead of a box, with the weights of each fold,
and prints its table; `pack` puts the prepared patients into one small file, in 8 bits, and `train-packed`
trains from it, on a graphics card where there is one (`train` then goes on with what it left in OUT);
`outlines` prints how far PET and MR lie from the CT by the patient's outline.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path

import cases
import contour_scores
import numpy as np

from medseg.files import write_csv


def folds(found: list[cases.Patient]) -> dict[str, int]:
    """Fold of each patient, by the volume of the GTV."""
    return cases.folds_of({p.name: float(p.truth.sum() * np.prod(p.grid.spacing_mm) / 1000) for p in found})


def train(args: argparse.Namespace) -> None:
    """One training and its answers for every fold."""
    import network

    found = cases.patients(args.dataset_dir, args.out)
    fold_of = folds(found)
    for fold in args.folds:
        cell = args.out / f"fold_{fold}"
        if (cell / "scores.csv").exists():
            continue
        held_out = [p for p in found if fold_of[p.name] == fold]
        if not (cell / "model.pt").exists():
            network.train(
                [p.item for p in found if fold_of[p.name] != fold],
                [p.item for p in held_out],
                cell,
                amp=False,  # as the published folds were trained, on whatever processor
                **({} if args.epochs is None else {"epochs": args.epochs}),
            )
        net, size = network.network(cell / "model.pt")
        size = size if args.grid is None else (args.grid,) * 3
        rows, kept = [], {}
        for patient in held_out:
            for name, probability in network.answers(net, size, patient).items():
                rows.append(contour_scores.row(patient, fold, name, probability >= 0.5))
                kept[f"{patient.name} {name}"] = probability.astype(np.float16)
        np.savez_compressed(cell / "answers.npz", **kept)
        contour_scores.write(rows, cell / "scores.csv")
        print(f"fold {fold}: done", flush=True)


def baselines(args: argparse.Namespace) -> None:
    """The answers of every rule and of the voxel classifier, fold by fold."""
    import baselines as rules

    found = cases.patients(args.dataset_dir, args.out)
    fold_of = folds(found)
    for fold in args.folds:
        path = args.out / f"fold_{fold}" / "baselines.csv"
        if path.exists():
            continue
        training = [p for p in found if fold_of[p.name] != fold]
        held_out = [p for p in found if fold_of[p.name] == fold]
        path.parent.mkdir(parents=True, exist_ok=True)
        answers = rules.masks(training, held_out)
        contour_scores.write(
            [contour_scores.row(patient, fold, name, mask) for patient, name, mask in answers], path
        )
        print(f"fold {fold}: done", flush=True)


def report(args: argparse.Namespace) -> None:
    """Everything in one CSV, and the tables."""
    import tables

    rows = [row for path in sorted(args.out.glob("fold_*/*.csv")) for row in contour_scores.read(path)]
    contour_scores.write(rows, args.out / "scores.csv")
    print(tables.text(rows))


def test(args: argparse.Namespace) -> None:
    """The bundle's own weights on the test set; writes OUT/test.csv and prints its tables."""
    import tables
    import test_set

    rows = list(test_set.rows(args.dataset_dir, args.test_dir, args.out))
    contour_scores.write(rows, args.out / "test.csv")
    print(tables.text(rows))


def datalist(args: argparse.Namespace) -> None:
    """The bundle's datalist: the patients of fold 0 validate."""
    found = cases.patients(args.dataset_dir, args.out)
    fold_of = folds(found)
    validating = [cases.entry(p.name) for p in found if fold_of[p.name] == 0]
    training = [cases.entry(p.name) for p in found if fold_of[p.name] != 0]
    content = {
        "description": "One case per patient; fold 0 of tools/benchmarks/multimodal_gtv validates.",
        "training": training,
        "validation": validating,
    }
    print(json.dumps(content, indent=4))


def clicks(args: argparse.Namespace) -> None:
    """Points instead of boxes, fold by fold; writes OUT/clicks/fold_K.csv and prints the table."""
    import clicks as points

    found = cases.patients(args.dataset_dir, args.out)
    fold_of = folds(found)
    for fold in args.folds:
        path = args.out / "clicks" / f"fold_{fold}.csv"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            held_out = [p for p in found if fold_of[p.name] == fold]
            write_csv(points.rows(held_out, args.out / f"fold_{fold}" / "model.pt"), points.FIELDS, path)
    paths = sorted(args.out.glob("clicks/fold_*.csv"))
    boxes = [row for path in sorted(args.out.glob("fold_*/scores.csv")) for row in contour_scores.read(path)]
    print(points.table([row for path in paths for row in csv.DictReader(path.open(newline=""))], boxes))


def pack(args: argparse.Namespace) -> None:
    """All prepared patients and their folds in one file."""
    import packed

    found = cases.patients(args.dataset_dir, args.out)
    packed.write([p.item for p in found], folds(found), args.packed)


def train_packed(args: argparse.Namespace) -> None:
    """One training for every fold, its answers left to `train`."""
    import network
    import packed
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    items, fold_of = packed.read(args.packed, device)
    settings = {name: json.loads(value) for name, value in (item.split("=", 1) for item in args.set)}
    for fold in args.folds:
        network.train(
            [item for item in items if fold_of[item["case_id"]] != fold],
            [item for item in items if fold_of[item["case_id"]] == fold],
            args.out / f"fold_{fold}",
            **settings,
        )
        print(f"fold {fold}: done", flush=True)


def outlines(args: argparse.Namespace) -> None:
    """How far the outlines on PET and MR lie from that on the CT, as they are and moved by 10 mm."""
    import outlines as lines

    print(lines.table(list(lines.rows(args.dataset_dir, args.test_dir))))


COMMANDS = {
    "train": train,
    "baselines": baselines,
    "report": report,
    "datalist": datalist,
    "test": test,
    "clicks": clicks,
    "outlines": outlines,
    "pack": pack,
    "train-packed": train_packed,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "baselines", "datalist", "clicks"):
        command = commands.add_parser(name)
        command.add_argument("dataset_dir", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("--folds", type=int, nargs="+", default=list(range(cases.FOLDS)))
        if name == "train":
            command.add_argument("--epochs", type=int, help="default: what train.json says")
            command.add_argument("--grid", type=int, help="voxels a side of the boxes that are answered")
    commands.add_parser("report").add_argument("out", type=Path)
    command = commands.add_parser("test")
    command.add_argument("dataset_dir", type=Path)
    command.add_argument("test_dir", type=Path)
    command.add_argument("out", type=Path)
    command = commands.add_parser("outlines")
    command.add_argument("dataset_dir", type=Path)
    command.add_argument("test_dir", type=Path)
    command = commands.add_parser("pack")
    command.add_argument("dataset_dir", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("packed", type=Path)
    command = commands.add_parser("train-packed")
    command.add_argument("packed", type=Path)
    command.add_argument("out", type=Path)
    command.add_argument("--folds", type=int, nargs="+", default=list(range(cases.FOLDS)))
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    COMMANDS[args.command](args)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
