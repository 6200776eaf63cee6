"""The tables of the page: every method with its interval, and what one gains over another on the same
patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.metrics.intervals import Interval, mean_interval

METHODS = (
    "ellipsoid in the box",
    "ellipsoid in the exact box",
    "SUV 2.5",
    "SUV threshold of the fold",
    "40 % of SUVmax",
    "gradient boosting",
    "CT",
    "CT+PET",
    "CT+MR",
    "CT+PET+MR",
)
PAIRS = (
    ("CT", "ellipsoid in the box"),
    ("CT", "ellipsoid in the exact box"),
    ("CT+PET", "ellipsoid in the box"),
    ("CT+MR", "ellipsoid in the box"),
    ("CT+PET+MR", "ellipsoid in the box"),
    ("CT+PET+MR", "ellipsoid in the exact box"),
    ("CT+PET+MR", "gradient boosting"),
    ("CT+PET", "CT"),
    ("CT+MR", "CT"),
    ("CT+PET+MR", "CT"),
    ("CT+PET+MR", "CT+PET"),
)

SHOWN = ("ellipsoid in the box", "CT", "CT+PET", "CT+MR", "CT+PET+MR")
"""The columns of the table of patients, which is sorted by the last one that there is."""


def text(rows: Sequence[dict]) -> str:
    """All tables in Markdown, of rows of :mod:`contour_scores`; methods that no row names are left out."""
    by_method = {name: {r["patient"]: r for r in rows if r["method"] == name} for name in METHODS}
    by_method = {name: found for name, found in by_method.items() if found}
    return "\n\n".join([_methods(by_method), _differences(by_method), _patients(by_method)])


def _methods(by_method: dict[str, dict[str, dict]]) -> str:
    lines = ["| method | n | DSC | sDSC 3 mm | HD95 mm, median | worst DSC |", "|---|--:|--:|--:|--:|--:|"]
    for name, found in by_method.items():
        values = {key: np.array([r[key] for r in found.values()]) for key in ("dsc", "sdsc_3mm", "hd95_mm")}
        worst = min(found.values(), key=lambda r: r["dsc"])
        lines.append(
            f"| {name} | {len(found)} | {_said(mean_interval(values['dsc']))} | "
            f"{_said(mean_interval(values['sdsc_3mm']))} | {np.median(values['hd95_mm']):.1f} | "
            f"{worst['dsc']:.3f} ({worst['patient']}) |"
        )
    return "\n".join(lines)


def _differences(by_method: dict[str, dict[str, dict]]) -> str:
    lines = ["| difference | DSC | sDSC 3 mm | patients better |", "|---|--:|--:|--:|"]
    for one, other in PAIRS:
        if one not in by_method or other not in by_method:
            continue
        both = sorted(by_method[one].keys() & by_method[other].keys())
        gains = {
            key: np.array([by_method[one][p][key] - by_method[other][p][key] for p in both])
            for key in ("dsc", "sdsc_3mm")
        }
        better = f"{int((gains['dsc'] > 0).sum())} of {len(both)}"
        figures = " | ".join(_said(mean_interval(values), "+") for values in gains.values())
        lines.append(f"| {one} less {other} | {figures} | {better} |")
    return "\n".join(lines)


def _patients(by_method: dict[str, dict[str, dict]]) -> str:
    shown = [name for name in SHOWN if name in by_method]
    last = by_method[shown[-1]]
    lines = [
        f"| patient | GTV, cc | {' | '.join(shown)} | contoured, cc |",
        "|---|--:|" + "--:|" * (len(shown) + 1),
    ]
    for patient in sorted(last, key=lambda name: last[name]["dsc"]):
        figures = " | ".join(
            f"{by_method[name][patient]['dsc']:.3f}" if patient in by_method[name] else "" for name in shown
        )
        lines.append(
            f"| {patient} | {last[patient]['gtv_cc']:.0f} | {figures} | {last[patient]['answer_cc']:.0f} |"
        )
    return "\n".join(lines)


def _said(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"
