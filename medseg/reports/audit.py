"""audit.html: the most suspicious labels first, each beside its prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.reports.page import write_page
from medseg.reports.pictures import Picture


@dataclass(frozen=True)
class AuditPage:
    """What the page shows. ``labels``: a row for every label, worst first, of rank (from 1), case, structure,
    group, score, words, dice, dice_after, distance, bias, style_removed, ``place`` ("slice 31 of 66, z -40.0
    mm", or ""), and ``others``, pairs of (words, Dice); nan where there is no number. ``drawn``: {rank:
    pictures} of the labels that are shown. ``names``: of the structures. ``styles``: rows of group,
    structure, cases, bias, low, high, consistent. ``unit``: of all distances. ``about``: words on how the
    predictions were made, by title."""

    labels: Sequence[Mapping[str, Any]]
    drawn: Mapping[int, Sequence[Picture]]
    names: Sequence[str]
    cases: int
    styles: Sequence[Mapping[str, Any]]
    unit: str
    about: Mapping[str, str]
    notices: Sequence[str]
    definitions: Mapping[str, str]


def write_audit_page(page: AuditPage, out: Path) -> None:
    """Write the page as one HTML file, atomically."""
    structures = [_summarise(name, page.labels) for name in page.names]
    write_page("audit.html", out, structures=structures, **vars(page))


def _summarise(name: str, labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is usual for a structure: labels, median Dice and distance, and how many labels reach a score of
    0.5."""
    own = [row for row in labels if row["structure"] == name]
    both = [row for row in own if math.isfinite(row["distance"]) and row["dice"] == row["dice"]]
    return {
        "name": name,
        "labels": len(own),
        "suspected": sum(row["score"] >= 0.5 for row in own),
        "dice": float(np.median([row["dice"] for row in both])) if both else math.nan,
        "distance": float(np.median([row["distance"] for row in both])) if both else math.nan,
    }
