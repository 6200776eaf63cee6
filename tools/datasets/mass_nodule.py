"""Write datalists of chest films with boxes of masses and nodules: which train, validate and test.

    python tools/datasets/mass_nodule.py DATASET_DIR OUT_DIR --folds 5

DATASET_DIR holds boxes.csv (image, label, xmin, ymin, xmax, ymax), cases.csv (image, patient) and images/.
The rule, fixed before any training: patients in the order of their numbers are shuffled with the seed and
dealt out to the folds in turn; of fold_K.json, fold K tests, fold K + 1 validates and the rest trains, each
patient with all films. Masses and nodules are one class, "mass or nodule": the source uses them unevenly.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from datalists import read_table, write_box_folds

from medseg.cases.box_sources import boxes_of
from medseg.cases.box_sources import read_table as read_boxes
from medseg.errors import InputError

ONE_CLASS = {"mass": "mass or nodule", "nodule": "mass or nodule"}


def folds_of(patients: set[str], folds: int, seed: int) -> list[set[str]]:
    """The patients of each fold. InputError for fewer than 3 folds, or fewer patients than folds."""
    if not 3 <= folds <= len(patients):
        raise InputError(f"{folds} folds of {len(patients)} patients; expected 3 or more, and no empty one.")
    ordered = sorted(patients)
    random.Random(seed).shuffle(ordered)
    return [set(ordered[number::folds]) for number in range(folds)]


def cases_of(folder: Path) -> list[dict]:
    """Every film as a case of a datalist. InputError for a box of a film that is not in cases.csv: left out,
    its film would train as a normal one."""
    rows = read_table(folder / "cases.csv", {"image", "patient"})
    boxes = read_boxes(folder / "boxes.csv", names=ONE_CLASS)
    unknown = sorted({box.image for box in boxes} - {row["image"] for row in rows})
    if unknown:
        raise InputError(
            f"{folder}: boxes.csv has {len(unknown)} images that cases.csv does not have, such as "
            f"{unknown[0]}."
        )
    return [
        {
            "image": f"images/{row['image']}",
            "label": boxes_of([box for box in boxes if box.image == row["image"]]),
            "case_id": Path(row["image"]).stem,
            "patient_id": row["patient"],
        }
        for row in rows
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=123)
    options = parser.parse_args()

    try:
        cases = cases_of(options.dataset_dir)
        folds = folds_of({case["patient_id"] for case in cases}, options.folds, options.seed)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return write_box_folds(cases, folds, options.seed, options.out)


if __name__ == "__main__":
    sys.exit(main())
