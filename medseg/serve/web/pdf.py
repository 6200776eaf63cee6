"""A result on paper: what was found, the preview, what made it, and who reviewed it."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.serve.web.models import Job
from medseg.serve.web.pages import RESEARCH_USE
from medseg.serve.web.result_pages import record_rows

A4_INCHES = (8.27, 11.69)
LINES_OF_A_PAGE = 46
SIZES = {"volume_cc": "cc", "area_cm2": "cm2", "area_mm2": "mm2", "area_pixels": "pixels"}


def pdf_of(job: Job, folder: Path, record: Mapping[str, Any]) -> bytes:
    """The report as PDF. It names the case's id and no patient."""
    from matplotlib.backends.backend_pdf import PdfPages

    file = io.BytesIO()
    with PdfPages(file, metadata={"Title": f"medseg {job.id}", "Creator": "medseg"}) as pages:
        lines = lines_of(job, folder, record)
        for start in range(0, len(lines), LINES_OF_A_PAGE):
            pages.savefig(_text_page(lines[start : start + LINES_OF_A_PAGE]))
        if (folder / "preview.png").is_file():
            pages.savefig(_picture_page(folder / "preview.png"))
    return file.getvalue()


def lines_of(job: Job, folder: Path, record: Mapping[str, Any]) -> list[str]:
    """What the report says, line by line."""
    return [*_head(job, folder), "", *_found(record), "", *_made(record)]


def _head(job: Job, folder: Path) -> list[str]:
    review = "not reviewed"
    if job.reviewed_by is not None and job.reviewed_at is not None:
        review = f"reviewed by {job.reviewed_by.username}, {job.reviewed_at:%Y-%m-%d %H:%M} UTC"
    return [
        f"Report of job {job.id[:8]}, case {folder.name}",
        f"Study: {job.study.id[:8]}",
        f"Review: {review}",
        *textwrap.wrap(RESEARCH_USE + " Every contour must be reviewed by a qualified person.", 90),
    ]


def _found(record: Mapping[str, Any]) -> list[str]:
    lines = ["Result"]
    for row in record.get("structures", ()):
        size = "empty" if row.get("empty") else size_in_words(row)
        lines.append(f"  {row['name']:<30} {row.get('interpreted_type') or '':<10} {size}")
    for row in record.get("boxes", {}).get("found", ()):
        lines.append(f"  {row['class']:<30} {row['score']:.2f}   {row['low']} to {row['high']}")
    labels = record.get("labels", {})
    for name, value in labels.get("probabilities", {}).items():
        interval = "".join(f" ({low:.4f} to {high:.4f})" for low, high in _interval(labels, name))
        lines.append(f"  {name:<30} {value:.4f}{interval}")
    for name, value in labels.get("values", {}).items():
        interval = "".join(f" ({low:g} to {high:g})" for low, high in _interval(labels, name))
        unit = "" if value["unit"] == "1" else f" {value['unit']}"
        lines.append(f"  {name:<30} {value['value']:g}{interval}{unit}")
    remarks = [*filter(None, [labels.get("remark")]), *record.get("warnings", ())]
    return lines + [f"  ! {line}" for text in remarks for line in textwrap.wrap(text, 86)]


def _interval(labels: Mapping[str, Any], name: str) -> list[list[float]]:
    """The calibrated interval of a class or number, or none."""
    found = labels.get("intervals", {}).get(name)
    return [found] if found else []


def size_in_words(row: Mapping[str, Any]) -> str:
    """Volume or area of a structure's record."""
    for key, unit in SIZES.items():
        if row.get(key) is not None:
            return f"{row[key]:g} {unit}"
    return "size not known"


def _made(record: Mapping[str, Any]) -> list[str]:
    lines = ["How it was made"]
    for name, text in record_rows(record):
        first, *others = textwrap.wrap(text, 66) or [""]
        lines += [f"  {name:<20} {first}", *(f"  {'':<20} {line}" for line in others)]
    return lines


def _text_page(lines: list[str]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=A4_INCHES)
    for number, line in enumerate(lines):
        # parse_math: a structure's name with dollar signs is no formula.
        figure.text(
            0.08, 0.94 - number * 0.0192, line, fontsize=9, family="DejaVu Sans Mono", parse_math=False
        )
    figure.text(0.08, 0.03, RESEARCH_USE, fontsize=9, color="#b3261e")
    return figure


def _picture_page(path: Path):
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    figure = Figure(figsize=A4_INCHES[::-1])
    ax = figure.add_axes((0.03, 0.08, 0.94, 0.86))
    ax.imshow(imread(path), interpolation="antialiased")
    ax.set_axis_off()
    figure.text(0.03, 0.03, RESEARCH_USE, fontsize=9, color="#b3261e")
    return figure
