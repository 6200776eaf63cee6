"""Style or error: what all labels of an annotator or centre share is a habit, not a mistake of one case.

A habit is a mean signed distance between label and prediction, structure by structure. The group's value is
the median over its cases, so that single errors do not make a style; its 95 % interval is that of
:mod:`medseg.metrics.intervals`, over patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.audit.disagreement import signed_distance
from medseg.metrics.intervals import interval

LEAST_CASES = 5
LEAST_STYLE = 0.25
"""A style is at least this share of a typical voxel; less cannot be told from how the grid falls."""

DRAWS = 2000


@dataclass(frozen=True)
class Style:
    """One group and structure. ``bias``: median over its ``cases`` of the mean signed distance, in mm or px,
    positive where its labels lie outside the prediction; ``low`` and ``high``: its 95 % interval, nan below
    LEAST_CASES cases and for one patient. ``consistent``: the interval excludes 0 and the bias is no smaller
    than LEAST_STYLE voxels."""

    group: str
    structure: str
    cases: int
    bias: float
    low: float
    high: float
    consistent: bool

    def words(self, unit: str) -> str:
        side = "outside" if self.bias > 0 else "inside"
        return (
            f"{abs(self.bias):.1f} {unit} {side} the prediction ({self.low:+.1f} to {self.high:+.1f}, "
            f"{self.cases} cases)"
        )


def styles(
    rows: Sequence[tuple[str, str, float, str]], reach: float, seed: int = 0
) -> dict[tuple[str, str], Style]:
    """{(group, structure): Style} of (group, structure, bias, patient) rows; rows without a group or a bias
    do not count.

    ``reach``: a typical voxel size in the unit of the biases.
    """
    biases: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for group, structure, bias, patient in rows:
        if group and math.isfinite(bias):
            biases.setdefault((group, structure), []).append((bias, patient))
    found = {}
    for (group, structure), own in biases.items():
        values, patients = np.array([bias for bias, _ in own]), [patient for _, patient in own]
        bias, low, high = float(np.median(values)), math.nan, math.nan
        if len(values) >= LEAST_CASES:
            bias, low, high = interval(
                lambda drawn, values=values: float(np.median(values[drawn])), patients, draws=DRAWS, seed=seed
            )
        consistent = (low > 0 or high < 0) and abs(bias) >= LEAST_STYLE * reach
        found[group, structure] = Style(group, structure, len(values), bias, low, high, consistent)
    return found


def remove_style(label: np.ndarray, bias: float, spacing: Sequence[float]) -> np.ndarray:
    """The bool label with its outline moved back by ``bias``, to the nearest voxel; an outline that would
    vanish stays."""
    moved = signed_distance(label, spacing) < -bias
    return moved if moved.any() else label
