"""A comparison for people and machines: JSON, CSV, an HTML page and lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg import files
from medseg.cases.mask_sources import is_dicom, is_nifti
from medseg.errors import InputError
from medseg.metrics import PATH_DEFINITION, SURFACE_DEFINITION
from medseg.reports.comparison import ComparisonPage, write_comparison_page
from medseg.workbench.compare import DEFINITIONS, Comparison, ComparisonRequest, compare

COLUMNS = (
    "name",
    "other_name",
    "state",
    "tolerance_mm",
    "dsc",
    "surface_dsc",
    "hd95_mm",
    "mean_surface_distance_mm",
    "added_path_length_mm",
    "added_path_length_0_mm",
    "reference_path_length_mm",
    "reference_cc",
    "other_cc",
    "difference_cc",
)


@dataclass(frozen=True)
class ComparisonFiles:
    """Where a comparison goes; None for what is not wanted."""

    json: Path | None = None
    csv: Path | None = None
    html: Path | None = None

    @property
    def wanted(self) -> list[Path]:
        return [out for out in (self.json, self.csv, self.html) if out is not None]


def compare_to_files(request: ComparisonRequest, outs: ComparisonFiles) -> Comparison:
    """Compare, and write what is wanted. An HTML page shows the pictures that the request asks for.

    Raises InputError, before anything is read, for files that check_outputs refuses; and as compare does.
    """
    check_outputs(outs.wanted)
    comparison = compare(request)
    if outs.json:
        write_json(comparison, outs.json)
    if outs.csv:
        write_csv(comparison, outs.csv)
    if outs.html:
        write_html(comparison, outs.html)
    return comparison


def record(comparison: Comparison) -> dict[str, Any]:
    """Plain values for JSON; a number that does not exist or is infinite is None, and ``state`` says why."""
    rows = [
        {column: files.plain(getattr(row, column)) for column in COLUMNS} for row in comparison.agreements
    ]
    unpaired = comparison.unpaired()
    volumes_cc = {
        state: {one.name: files.plain(one.cc) for one in unpaired if one.state == state}
        for state in ("only in reference", "only in other")
    }
    not_compared = [
        {"name": one.name, "set": one.where, "cc": files.plain(one.cc)}
        for one in unpaired
        if one.state == "not compared"
    ]
    return {
        "reference": comparison.reference_set,
        "other": comparison.other_set,
        "grid": comparison.grid,
        "definitions": DEFINITIONS,
        "structures": rows,
        "only_in_reference_cc": volumes_cc["only in reference"],
        "only_in_other_cc": volumes_cc["only in other"],
        "not_compared": not_compared,
        "notices": list(comparison.notices),
        "disclaimer": "Research use only, not a medical device.",
    }


def check_outputs(outs: Sequence[Path]) -> None:
    """InputError for outputs that cannot be written, that are one file, or that would replace masks or a
    DICOM file."""
    for number, out in enumerate(outs):
        if not out.parent.is_dir():
            raise InputError(f"{out}: the folder {out.parent} does not exist; make it first.")
        if out in outs[:number]:
            raise InputError(f"{out}: is named for two outputs; give each its own file.")
        if out.is_dir() or out.is_file() and (is_nifti(out) or is_dicom(out)):
            raise InputError(
                f"{out}: is a folder, a mask or a DICOM file, which a comparison never replaces; name "
                f"another."
            )


def write_json(comparison: Comparison, out: Path) -> None:
    """Write :func:`record` atomically."""
    files.write_json(record(comparison), out)


def write_html(comparison: Comparison, out: Path) -> None:
    """Write a page with table, pictures and definitions, atomically; worst structures come first."""
    rows = [
        {column: getattr(row, column) for column in (*COLUMNS, "pictures")}
        for row in comparison.worst_first()
    ]
    page = ComparisonPage(
        comparison.reference_set,
        comparison.other_set,
        comparison.grid,
        rows,
        [one._asdict() for one in comparison.unpaired()],
        comparison.notices,
        DEFINITIONS,
    )
    write_comparison_page(page, out)


def write_csv(comparison: Comparison, out: Path) -> None:
    """Write a row for every structure of either set, atomically; nan and inf stand as such, what is missing
    is empty.

    A name that a spreadsheet would take for a formula has an apostrophe before it.
    """
    fixed = {
        "grid": comparison.grid,
        "implementation": f"{DEFINITIONS['implementation']}: {SURFACE_DEFINITION}",
    }
    rows: list[dict[str, Any]] = [
        {column: getattr(row, column) for column in COLUMNS} for row in comparison.agreements
    ]
    for one in comparison.unpaired():
        name, cc = ("name", "reference_cc") if one.where == "reference" else ("other_name", "other_cc")
        rows.append({name: one.name, "state": one.state, cc: one.cc})
    files.write_csv([{**row, **fixed} for row in rows], [*COLUMNS, *fixed], out)


def table_lines(comparison: Comparison) -> list[str]:
    """The comparison as lines for a terminal, worst structure first, with its definitions."""
    labels = {
        row: row.name if row.name == row.other_name else f"{row.name} / {row.other_name}"
        for row in comparison.agreements
    }
    width = max(16, *map(len, labels.values()))
    heads = ("DSC", "sDSC", "tol mm", "HD95 mm", "mean mm", "APL mm", "cc", "other cc")
    lines = [f"{'structure':{width}}" + "".join(f"{head:>10}" for head in heads)]
    for row in comparison.worst_first():
        cells = (
            f"{row.dsc:.3f}",
            f"{row.surface_dsc:.3f}",
            f"{row.tolerance_mm:g}",
            f"{row.hd95_mm:.2f}",
            f"{row.mean_surface_distance_mm:.2f}",
            f"{row.added_path_length_mm:.0f}",
            f"{row.reference_cc:.1f}",
            f"{row.other_cc:.1f}",
        )
        lines.append(f"{labels[row]:{width}}" + "".join(f"{cell:>10}" for cell in cells))
        if row.state != "both":
            lines.append(f"{'':{width}}  {row.state}")
    for one in comparison.unpaired():
        found = "not compared: of the" if one.state == "not compared" else "only in the"
        lines.append(f"{one.name:{width}}  {found} {one.where}, {one.cc:.1f} cc")
    lines.append(f"Grid: {comparison.grid}.")
    lines.append(f"Surfaces: {SURFACE_DEFINITION}.")
    lines += textwrap.wrap(f"APL: {PATH_DEFINITION} than the tolerance.", 100)
    return lines
