"""comparison.html: two sets of contours, worst structures first, with pictures and the definition of every
number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.reports.page import write_page


@dataclass(frozen=True)
class ComparisonPage:
    """What the page shows. ``rows``: of each structure in both sets its numbers by name, nan where there is
    none, and its ``pictures`` (medseg.reports.pictures.Picture), in the order of the page.
    ``unpaired``: rows of name, where ("reference" or "other"), state and cc of what was compared with
    nothing."""

    reference_set: str
    other_set: str
    grid: str
    rows: Sequence[Mapping[str, Any]]
    unpaired: Sequence[Mapping[str, Any]]
    notices: Sequence[str]
    definitions: Mapping[str, str]


def write_comparison_page(page: ComparisonPage, out: Path) -> None:
    """Write the page as one HTML file, atomically."""
    write_page("comparison.html", out, **vars(page))
