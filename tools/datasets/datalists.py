"""What the scripts of this folder share: a table of cases in, a bundle's datalist out."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from medseg.errors import InputError
from medseg.files import write_json

Sections = Mapping[str, list[dict]]


def read_table(table: Path, columns: set[str]) -> list[dict[str, str]]:
    """The rows of cases.csv. InputError when it is missing or lacks a column."""
    if not table.is_file():
        raise InputError(f"{table}: no such file; give the folder of the images with their masks.")
    with open(table, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    lacking = columns - set(rows[0] if rows else ())
    if lacking:
        raise InputError(
            f"{table}: no row with the columns {', '.join(sorted(lacking))}, separated by commas."
        )
    return rows


def write_datalist(make: Callable[[], tuple[str, Sections]], seed: int, out: Path, images: str) -> int:
    """Write {description, seed, each section's cases} and say how many ``images`` of how many patients each
    has. ``make`` gives description and sections; what it refuses is one line on standard error. The exit
    status."""
    try:
        description, sections = make()
        write_json({"description": description, "seed": seed, **sections}, out)
    except (InputError, UnicodeDecodeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for section, cases in sections.items():
        print(f"{section}: {len(cases)} {images} of {len({case['patient_id'] for case in cases})} patients")
    return 0


def write_box_folds(cases: list[dict], folds: Sequence[Collection[str]], seed: int, out: Path) -> int:
    """``out``/fold_K.json: fold K of the patients tests, the next one validates, the rest trains. The exit
    status, as of :func:`write_datalist`; 2 as well for a case that stands there twice."""
    names = [case["case_id"] for case in cases]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        print(f"error: {twice} stands there twice; give each image once.", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    for test, told in enumerate(folds):
        validating = folds[(test + 1) % len(folds)]
        sections: dict[str, list[dict]] = {"training": [], "validation": [], "test": []}
        for case in cases:
            own = case["patient_id"]
            name = "test" if own in told else "validation" if own in validating else "training"
            sections[name].append(case)
        words = f"Fold {test} of {len(folds)} tests, the next validates, the rest trains; by patient."
        path = out / f"fold_{test}.json"
        print(path.name)
        if write_datalist(lambda words=words, parts=sections: (words, parts), seed, path, "images"):
            return 2
    return 0
