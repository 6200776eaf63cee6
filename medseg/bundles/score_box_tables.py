"""Scores of boxes as Markdown tables, and as JSON."""

from __future__ import annotations

import json

import numpy as np

from medseg.bundles.score_boxes import FLAT_OVERLAP, ScoredBoxes
from medseg.bundles.score_tables import plain
from medseg.metrics.intervals import Interval

RULES = {
    "mm": "A candidate hits where its middle lies within the radius of a finding.",
    "pixels": f"A candidate hits where its box overlaps a finding by {FLAT_OVERLAP:g} (IoU).",
}


def in_words(scored: ScoredBoxes) -> str:
    """The tables: figures with 95 % intervals over patients, per class where there are several, and the
    images in which something was missed."""
    head = f"{scored.images} images of {scored.patients} patients, {scored.findings} findings."
    parts = [f"{head} {RULES[scored.unit]}", _figures(scored)]
    if len(scored.classes) > 1:
        lines = [f"| class | n | AP at IoU {FLAT_OVERLAP:g} | AR |", "|---|--:|--:|--:|"]
        for name, row in scored.per_class.items():
            lines.append(f"| {name} | {row['n']} | {_number(row['AP'])} | {_number(row['AR'])} |")
        parts.append("\n".join(lines))
    missed = {name: row for name, row in scored.cases.items() if row["found"] < row["findings"]}
    if missed:
        lines = [f"| missed in {len(missed)} of {scored.images} images | findings | found |", "|---|--:|--:|"]
        lines += [f"| {name} | {row['findings']} | {row['found']} |" for name, row in missed.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _figures(scored: ScoredBoxes) -> str:
    lines = ["| | value (95 % interval over patients) |", "|---|--:|"]
    lines += [f"| {name} | {_words(value)} |" for name, value in scored.figures.items()]
    return "\n".join(lines)


def _words(value: Interval) -> str:
    if not np.isfinite(value.value):
        return "none"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "none"


def as_json(scored: ScoredBoxes) -> str:
    """Every number, for machines; what does not exist is null."""
    return json.dumps({key: plain(value) for key, value in vars(scored).items()}, indent=1)
