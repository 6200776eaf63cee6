"""Scores as Markdown tables: a row per structure, or per patient, with 95 % intervals over patients."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from medseg.bundles import score_photographs
from medseg.bundles.score import Scored
from medseg.metrics import SURFACE_DEFINITION
from medseg.metrics.intervals import Interval, interval, mean_interval

TARGETS = ("GTV", "CTV", "PTV")
"""Names that begin so are targets; the mean over organs leaves them out."""


def in_words(scored: Scored) -> str:
    """The tables and what their numbers are. A single structure has a row per patient too."""
    structures = list(next(iter(scored.cases.values())))
    parts = [structure_table(scored, structures)]
    if len(structures) == 1:
        parts.insert(0, case_table(scored, structures[0]))
    if scored.unit == "mm":
        parts.append(f"Surface measures: {SURFACE_DEFINITION}, on the image's own grid.")
    parts += [score_photographs.in_words(name, found) for name, found in scored.pooled.items()]
    return "\n\n".join(parts)


def structure_table(scored: Scored, structures: list[str]) -> str:
    """A row per structure, then the mean DSC over structures (over organs, if there are targets besides)."""
    last = ("worst DSC (case)", "contoured / true", "contoured though absent")
    heads = ("structure", "n", *scored.columns, *last)
    lines = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    lines += [_structure_row(scored, name, len(heads)) for name in structures]
    organs = [name for name in structures if not name.startswith(TARGETS)] or structures
    if len(structures) > 1:
        cases = list(scored.cases)
        dsc = np.array([[scored.cases[case][name]["DSC"] for name in organs] for case in cases])
        mean = interval(lambda rows: _mean_of_means(dsc[rows]), [scored.patients[case] for case in cases])
        what = "organs" if len(organs) < len(structures) else "structures"
        lines.append(
            f"| **mean of {len(organs)} {what}** | | **{_words(mean, 3)}** |" + " |" * (len(heads) - 3)
        )
    return "\n".join(lines)


def _mean_of_means(dsc: np.ndarray) -> float:
    """The mean over structures of each one's mean over images; (images, structures), nan is left out."""
    known = ~np.isnan(dsc)
    counts = known.sum(axis=0)
    sums = np.where(known, dsc, 0.0).sum(axis=0)
    return float((sums[counts > 0] / counts[counts > 0]).mean()) if counts.any() else float("nan")


def _structure_row(scored: Scored, name: str, width: int) -> str:
    rows = {case: scores[name] for case, scores in scored.cases.items()}
    known = {case: row for case, row in rows.items() if not np.isnan(row["DSC"])}
    if not known:
        return f"| {name} | 0 |" + " |" * (width - 2)
    absent = [row for row in rows.values() if np.isnan(row["DSC"])]
    patients = [scored.patients[case] for case in known]
    cells = [
        _cell(column, np.array([row[column] for row in known.values()]), patients)
        for column in scored.columns
    ]
    worst = min(known, key=lambda case: known[case]["DSC"])
    ratio = np.median([row["contoured"] / row["true"] for row in known.values()])
    cells += [f"{known[worst]['DSC']:.3f} ({worst})", f"{ratio:.2f}"]
    cells.append(f"{sum(row['contoured'] > 0 for row in absent)} of {len(absent)}")
    return f"| {name} | {len(known)} | {' | '.join(cells)} |"


def _cell(column: str, values: np.ndarray, patients: list[str]) -> str:
    """Mean and interval of what is finite, and how often nothing was contoured."""
    finite = np.isfinite(values)
    kept = [patient for patient, use in zip(patients, finite, strict=True) if use]
    missed = f"; {np.count_nonzero(~finite)} missed" if not finite.all() else ""
    if not kept:
        return f"all {len(values)} missed"
    return _words(mean_interval(values[finite], kept), _decimals(column), missed)


def _words(found, decimals: int, more: str = "") -> str:
    return f"{found.value:.{decimals}f} ({found.low:.{decimals}f} to {found.high:.{decimals}f}{more})"


def _decimals(column: str) -> int:
    return 1 if column.startswith("HD95") else 3


def case_table(scored: Scored, structure: str) -> str:
    """A row per case of one structure: every score, and the true and the contoured volume in cc."""
    size = "cc" if scored.unit == "mm" else "pixels"
    heads = ("case", *scored.columns, f"true {size}", f"contoured {size}")
    lines = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    for case, scores in scored.cases.items():
        row = scores[structure]
        cells = [f"{row[column]:.{_decimals(column)}f}" for column in scored.columns]
        sizes = [f"{row[name]:.1f}" for name in ("true", "contoured")]
        lines.append(f"| {case} | {' | '.join([*cells, *sizes])} |")
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """What JSON can hold of numbers, intervals and dicts of them: null for nan and infinity."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Interval):
        return plain(value._asdict())
    return value if not isinstance(value, float) or np.isfinite(value) else None


def as_json(scored: Scored) -> str:
    """Every number, for machines; what does not exist or is infinite is null."""
    content = {"unit": scored.unit, "cases": plain(scored.cases), "failed": scored.failed}
    if scored.pooled:
        content["pooled"] = plain(scored.pooled)
    return json.dumps(content, indent=1)
