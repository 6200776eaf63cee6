"""Style or error: what all labels of an annotator or centre share is a habit, not a mistake of one case.

A habit is a mean signed distance between label and prediction, structure by structure. The group's value is
the median over its cases, so that single errors do not make a style; its 95 % interval comes from a bootstrap
over cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.audit.disagreement import signed_distance

LEAST_CASES = 5
LEAST_STYLE = 0.25
"""A style is at least this share of a typical voxel; less cannot be told from how the grid falls."""

DRAWS = 2000


@dataclass(frozen=True)
class Style:
    """One group and structure. ``bias``: median over its ``cases`` of the mean signed distance, in mm or px,
    positive where its labels lie outside the prediction; ``low`` and ``high``: its 95 % interval, nan below
    LEAST_CASES cases. ``consistent``: the interval excludes 0 and the bias is no smaller than LEAST_STYLE
    voxels."""

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
    rows: Sequence[tuple[str, str, float]], reach: float, seed: int = 0
) -> dict[tuple[str, str], Style]:
    """{(group, structure): Style} of (group, structure, bias) rows; rows without a group or a bias do not
    count.

    ``reach``: a typical voxel size in the unit of the biases.
    """
    biases: dict[tuple[str, str], list[float]] = {}
    for group, structure, bias in rows:
        if group and math.isfinite(bias):
            biases.setdefault((group, structure), []).append(bias)
    rng = np.random.default_rng([seed, 15485863])
    found = {}
    for (group, structure), values in biases.items():
        low = high = math.nan
        if len(values) >= LEAST_CASES:
            draws = np.median(rng.choice(values, (DRAWS, len(values))), axis=1)
            low, high = (float(value) for value in np.percentile(draws, [2.5, 97.5]))
        bias = float(np.median(values))
        consistent = (low > 0 or high < 0) and abs(bias) >= LEAST_STYLE * reach
        found[group, structure] = Style(group, structure, len(values), bias, low, high, consistent)
    return found


def remove_style(label: np.ndarray, bias: float, spacing: Sequence[float]) -> np.ndarray:
    """The bool label with its outline moved back by ``bias``, to the nearest voxel; an outline that would
    vanish stays."""
    moved = signed_distance(label, spacing) < -bias
    return moved if moved.any() else label
