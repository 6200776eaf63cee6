"""Write the datalist of the bundle cxr_anatomy: which radiographs train, validate and test.

    python tools/datasets/cxr.py DATASET_DIR monai_bundles/cxr_anatomy/configs/datalist.json --seed 123

DATASET_DIR holds cases.csv, images/*.png and masks/*.png (bit fields). The rule, fixed before any training:
patients in the order of their numbers are shuffled with the seed; the first 8 test, the next 5 validate, the
rest train, each with all of their images. Every case lists under ``present`` the structures that have a mask;
the others may be in the picture all the same, and give no loss and no score.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from datalists import read_table, write_datalist

from medseg.errors import InputError

NAMES = {
    "Right Lung": "Lung_R",
    "Left Lung": "Lung_L",
    "Cardiomediastinum": "Mediastinum",
    "Airways": "AirWay_Prox",
}
"""Column of cases.csv to structure; bit n of a mask is the n-th of them."""


def entry(row: dict[str, str]) -> dict:
    """The datalist's case of one row of cases.csv."""
    name = row["case"]
    return {
        "image": f"images/{name}.png",
        "label": f"masks/{name}.png",
        "case_id": name,
        "patient_id": row["patientid"],
        "present": [structure for column, structure in NAMES.items() if row[column] == "1"],
    }


def split(rows: list[dict[str, str]], seed: int, test: int, validate: int) -> dict[str, list[dict]]:
    """{section: cases} by the rule above; ``test`` and ``validate`` count patients."""
    patients = sorted({row["patientid"] for row in rows}, key=lambda name: (len(name), name))
    if test < 0 or validate < 0 or test + validate >= len(patients):
        raise InputError(
            f"{test} patients to test and {validate} to validate of {len(patients)}: none is left to train."
        )
    random.Random(seed).shuffle(patients)
    chosen = {
        "training": set(patients[test + validate :]),
        "validation": set(patients[test : test + validate]),
        "test": set(patients[:test]),
    }
    return {
        section: [entry(row) for row in rows if row["patientid"] in ids] for section, ids in chosen.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--test", type=int, default=8, help="patients; default 8")
    parser.add_argument("--validate", type=int, default=5, help="patients; default 5")
    options = parser.parse_args()

    def make() -> tuple[str, dict[str, list[dict]]]:
        rows = read_table(options.dataset_dir / "cases.csv", {"case", "patientid", *NAMES})
        words = f"{options.test} test, {options.validate} validate, the rest train"
        return (
            f"Patients shuffled with the seed, {words}, each with all images.",
            split(rows, options.seed, options.test, options.validate),
        )

    return write_datalist(make, options.seed, options.out, "images")


if __name__ == "__main__":
    sys.exit(main())
