"""What an imported model's labels are called in the clinic: a map of the user, checked for swapped sides."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundles.importers.plain import require_plain
from medseg.cases.find import folder_name
from medseg.errors import InputError, StructureError
from medseg.structures.structure import (
    INTERPRETED_TYPES,
    check_names_are_unique,
    stored_name,
    structure_from_name,
)

COLUMNS = ("label", "name", "type", "colour")
"""Of a map: the model's own label, the structure's name (empty: leave it out of the result), its RT ROI
Interpreted Type and its colour as #RRGGBB, both may be empty or missing."""

SIDES = {"l": "L", "lt": "L", "left": "L", "r": "R", "rt": "R", "right": "R"}


GLUED = re.compile("^[LR](?=[A-Z][a-z])|(?<=[a-z])[LR]$|^(?:left|right)|(?:left|right)$")
"""Sides without a gap: RLung, LungR, rightlung, lungright."""


def side_of(name: str) -> str:
    """ "L" or "R" when a part of the name says so (left, Left, lt, _L, LungL), "" when none or both do;
    the L of a lumbar vertebra, VB_L2, is none."""
    parts = re.split(r"[^A-Za-z0-9]+", name)
    words = [word for part in parts for word in re.findall("[A-Z]?[a-z]+", part) if len(word) > 1]
    glued = [side for part in parts for side in GLUED.findall(part)]
    sides = {SIDES[word.lower()] for word in (*parts, *words, *glued) if word.lower() in SIDES}
    return sides.pop() if len(sides) == 1 else ""


def read_names(path: Path) -> dict[str, dict[str, str]]:
    """{label: {"name", "type", "colour"}} of a CSV file with the columns of COLUMNS. InputError for a file
    that is none, an unknown column, and a label that stands in it twice."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}).") from error
    if not {"label", "name"} <= set(columns) or not set(columns) <= set(COLUMNS):
        raise InputError(
            f"{path}: columns {', '.join(map(str, columns)) or '(none)'}; expected label,name and maybe "
            "type,colour."
        )
    named: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        if row["name"] is None or None in row:
            raise InputError(f"{path}: line {number} has not a value for each of {','.join(columns)}.")
        label = (row["label"] or "").strip()
        if label in named:
            raise InputError(f"{path}: label {label!r} stands there twice.")
        named[label] = {column: (row.get(column) or "").strip() for column in COLUMNS[1:]}
    return named


def structures_of(
    labels: Mapping[str, Sequence[int]], names: Mapping[str, Mapping[str, str]], where: str = "names"
) -> list[dict[str, Any]]:
    """The structures of a result: {"name", "interpreted_type", "colour_rgb", "labels"} of each label.

    ``names``: as :func:`read_names` has it; a label that it has not keeps its own name. InputError for a name
    of a label that the model has not, for a side that is not the label's own, for a type or colour that is
    none, and when nothing is left; StructureError for two structures of one name.
    """
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise InputError(f"{where}: label {unknown[0]!r} is none of the model's: {', '.join(labels)}.")
    structures = []
    for label, numbers in labels.items():
        row = names.get(label, {"name": stored_name(label), "type": "", "colour": ""})
        if not row["name"]:
            continue
        own, given = side_of(label), side_of(row["name"])
        if own and given and own != given:
            raise InputError(
                f"{where}: label {label!r} would be called {row['name']!r}: left and right are swapped."
            )
        require_plain(row["name"], where)
        known = structure_from_name(row["name"])
        structures.append(
            {
                "name": known.name,
                "interpreted_type": _type(row.get("type", ""), where) or known.interpreted_type or "ORGAN",
                "colour_rgb": _colour(row.get("colour", ""), where) or list(known.colour_rgb or ()),
                "labels": [int(number) for number in numbers],
            }
        )
    if not structures:
        raise InputError(f"{where}: every label is left out; nothing would be contoured.")
    try:
        check_names_are_unique(str(structure["name"]) for structure in structures)
        check_names_are_unique(folder_name(str(structure["name"])) for structure in structures)  # of files
    except StructureError as error:
        raise StructureError(f"{where}: {error}") from error
    return structures


def _type(text: str, where: str) -> str:
    if text and text not in INTERPRETED_TYPES:
        raise InputError(f"{where}: type {text!r}; expected one of {', '.join(INTERPRETED_TYPES)}.")
    return text


def _colour(text: str, where: str) -> list[int]:
    if text and not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise InputError(f"{where}: colour {text!r}; expected #RRGGBB, as in #ff8000.")
    return [int(text[at : at + 2], 16) for at in (1, 3, 5)] if text else []
