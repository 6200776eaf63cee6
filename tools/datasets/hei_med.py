"""Write the datalist of the bundle eye_lesion: which photographs of HEI-MED train, validate and test.

    python tools/datasets/hei_med.py DATASET_DIR monai_bundles/eye_lesion/configs/datalist.json
    python tools/datasets/hei_med.py DATASET_DIR FOLD.json --folds 10 --fold 3

DATASET_DIR holds cases.csv, images/*.jpg and masks/*.png, bit fields: bit 1 (value 1) exudate, the target;
bit 2 (value 2) other bright lesion, the look-alike; bit 4 (value 4) dark lesion, marked in 9 images only.
Where bit 4 is not set, dark lesions may be there all the same, so it never makes a negative and no channel is
made of it.

The rule, fixed before any training: patients (one photograph each) are put into three groups, those with
exudates, those with other bright lesions only, and those without; each group is shuffled with the seed. The
last fifth of each group is the test set, the same in every file and opened once, at the end. The rest is
dealt out to ``--folds`` folds in turn (5 is 4 : 1, 10 is 9 : 1); ``--fold`` validates and the others train.
``test`` comes last in the file.

``--leave-time-point-out N`` splits by time point instead, which puts every patient on both sides. It exists
to show how much that flatters (docs/explanation/split_by_patient.md); the file says so, and medseg train
refuses it.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from datalists import read_table, write_datalist

from medseg.errors import InputError

STRUCTURE = "Exudate"
COLUMNS = {"id", "exudate_lesions", "other_bright_lesions"}
TEST_PART = 5
"""A fifth of each group is the test set."""


def entry(row: dict[str, str]) -> dict:
    """The datalist's case of one row of cases.csv; HEI-MED has one photograph of each patient."""
    name = row["id"]
    return {
        "image": f"images/{name}.jpg",
        "label": f"masks/{name}.png",
        "case_id": name,
        "patient_id": row.get("patient_id") or name,
        "time_point": int(row.get("time_point") or 1),
        "present": [STRUCTURE],
    }


def groups(rows: list[dict[str, str]], seed: int) -> list[list[str]]:
    """Patients with exudates, with other bright lesions only, and without, each list shuffled."""
    worst: dict[str, int] = {}
    for row in rows:
        patient = entry(row)["patient_id"]
        kind = 0 if int(row["exudate_lesions"]) else 1 if int(row["other_bright_lesions"]) else 2
        worst[patient] = min(kind, worst.get(patient, 2))
    found: list[list[str]] = [[], [], []]
    for patient in sorted(worst):
        found[worst[patient]].append(patient)
    rng = random.Random(seed)
    for patients in found:
        rng.shuffle(patients)
    return found


def split(rows: list[dict[str, str]], seed: int, folds: int, fold: int) -> dict[str, list[dict]]:
    """{section: cases} by the rule above. InputError for a fold that there is not, or one without
    patients."""
    if folds < 2 or not 0 <= fold < folds:
        raise InputError(f"fold {fold} of {folds}: expected 2 folds or more, and one of them from 0.")
    parts: dict[str, set[str]] = {"training": set(), "validation": set(), "test": set()}
    dealt = 0
    for patients in groups(rows, seed):
        kept = len(patients) - len(patients) // TEST_PART
        parts["test"].update(patients[kept:])
        for patient in patients[:kept]:
            parts["validation" if dealt % folds == fold else "training"].add(patient)
            dealt += 1
    if not all(parts.values()):
        raise InputError(f"{len(rows)} photographs: too few for {folds} folds beside a test set.")
    cases = [entry(row) for row in rows]
    return {
        section: [case for case in cases if case["patient_id"] in patients]
        for section, patients in parts.items()
    }


def words_of(fold: int, folds: int) -> str:
    """What the datalist of a fold says of itself."""
    return (
        f"Fold {fold} of {folds} by patient; a fifth of the patients, the same in every fold, is the locked "
        "test."
    )


def split_by_time_point(rows: list[dict[str, str]], time_point: int) -> dict[str, list[dict]]:
    """The split that leaks: one time point of every patient validates, the others train."""
    cases = [entry(row) for row in rows]
    found = {
        "training": [case for case in cases if case["time_point"] != time_point],
        "validation": [case for case in cases if case["time_point"] == time_point],
    }
    if not all(found.values()):
        points = sorted({case["time_point"] for case in cases})
        raise InputError(f"time point {time_point} of {points}: expected one of several.")
    return found


def read_rows(table: Path) -> list[dict[str, str]]:
    """The rows of cases.csv; refuses as :func:`datalists.read_table` does."""
    return read_table(table, COLUMNS)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--folds", type=int, default=5, help="5 is 4 : 1, 10 is 9 : 1; default 5")
    parser.add_argument("--fold", type=int, default=0, help="which one validates, from 0; default 0")
    parser.add_argument("--leave-time-point-out", type=int, metavar="N", help="the split that leaks")
    options = parser.parse_args()

    def make() -> tuple[str, dict[str, list[dict]]]:
        rows = read_rows(options.dataset_dir / "cases.csv")
        if options.leave_time_point_out is None:
            return words_of(options.fold, options.folds), split(
                rows, options.seed, options.folds, options.fold
            )
        words = "LEAKS: every patient is on both sides. Only to show what a split by time point does."
        return words, split_by_time_point(rows, options.leave_time_point_out)

    return write_datalist(make, options.seed, options.out, "photographs")


if __name__ == "__main__":
    sys.exit(main())
