"""What the scripts of this folder share: a table of cases in, a bundle's datalist out."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Mapping
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
