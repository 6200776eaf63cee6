"""What the labels of a structure are usually like, whatever any network predicts: their size, thickness and
height, gaps, and how much the grey levels inside them differ.

A label that was cut short, grown or put somewhere else is unusual among its own kind, also where the
prediction is too poor to say so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import distance_transform_edt

from medseg.shapes.boxes import box_of

LEAST_SPREAD = {
    "log volume": 0.1,
    "log thickness": 0.08,
    "log height": 0.1,
    "gap": 0.03,
    "grey spread": 3.0,
}
"""The measures of a label, and the least that is taken for their robust standard deviation: thickness is the
mean depth below the outline, height the extent along axis 0, gap the share of it that is empty, grey spread
the standard deviation of the image's 0 to 255."""

LEAST_LEVEL = 4.0
"""The least that is taken for the robust standard deviation of how far one structure lies above another."""

LEAST_LABELS = 5
HIGHEST_Z = 10.0


def measures(label: np.ndarray, image: np.ndarray | None, spacing: Sequence[float]) -> np.ndarray:
    """(5,) in the order of LEAST_SPREAD of a bool label; nan for an empty one, and for grey spread without an
    image."""
    if not label.any():
        return np.full(len(LEAST_SPREAD), math.nan)
    box = box_of(label)
    own = label[box]
    depth = distance_transform_edt(np.pad(own, 1), sampling=spacing)
    occupied = own.any(axis=tuple(range(1, own.ndim)))
    return np.array(
        [
            math.log(float(own.sum()) * math.prod(spacing)),
            math.log(float(depth[depth > 0].mean())),
            math.log(len(occupied) * spacing[0]),
            1 - float(occupied.mean()),
            math.nan if image is None else float(image[box][own].std()),
        ]
    )


def level(label: np.ndarray, spacing: Sequence[float]) -> float:
    """Where the centre of a bool label lies along axis 0, nan for an empty one."""
    sizes = label.sum(axis=tuple(range(1, label.ndim)))
    return float(np.average(np.arange(len(sizes)), weights=sizes)) * spacing[0] if sizes.any() else math.nan


@dataclass(frozen=True)
class Usual:
    """Medians and robust standard deviations: ``known`` of the measures of each structure's labels,
    ``above`` of how far one structure's centre lies above another's along axis 0."""

    known: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    above: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def z(self, structure: str, values: np.ndarray) -> np.ndarray | None:
        """Robust z-values of a label's measures, each at most HIGHEST_Z; None for an empty label and for a
        structure of fewer than LEAST_LABELS."""
        if structure not in self.known or not np.isfinite(values[0]):
            return None
        middle, spread = self.known[structure]
        return np.clip((values - middle) / spread, -HIGHEST_Z, HIGHEST_Z)

    def unusual(self, structure: str, values: np.ndarray) -> float:
        """The root mean square of these z-values; 1, which is what to expect, where there are none."""
        z = self.z(structure, values)
        return 1.0 if z is None else float(np.sqrt(np.nanmean(z**2)))

    def level_z(self, structure: str, levels: Mapping[str, float]) -> float:
        """How much too high, in robust standard deviations, a structure lies among the others of its case:
        the median over them; nan where none can say."""
        own = levels[structure]
        found = [
            (own - other - self.above[structure, name][0]) / self.above[structure, name][1]
            for name, other in levels.items()
            if (structure, name) in self.above
        ]
        found = [z for z in found if z == z]
        return float(np.median(found)) if found else math.nan


def usual_of(rows: Iterable[tuple[str, np.ndarray]], levels: Iterable[Mapping[str, float]] = ()) -> Usual:
    """What is usual of (structure, measures) rows and of the {structure: level} of cases; empty labels do not
    count."""
    kept: dict[str, list[np.ndarray]] = {}
    for structure, values in rows:
        if np.isfinite(values[0]):
            kept.setdefault(structure, []).append(values)
    pairs: dict[tuple[str, str], list[float]] = {}
    for one in levels:
        for (name, own), (other, theirs) in itertools.permutations(one.items(), 2):
            if math.isfinite(own - theirs):
                pairs.setdefault((name, other), []).append(own - theirs)
    least = np.array(list(LEAST_SPREAD.values()))
    return Usual(
        {name: _middle(rows, least) for name, rows in kept.items() if len(rows) >= LEAST_LABELS},
        {pair: _middle(rows, LEAST_LEVEL) for pair, rows in pairs.items() if len(rows) >= LEAST_LABELS},
    )


def _middle(rows: Sequence, least: np.ndarray | float) -> tuple:
    """Median, and robust standard deviation but no less than ``least``, of each column."""
    table = np.array(rows)
    middle = np.median(table, axis=0)
    return middle, np.maximum(1.4826 * np.median(np.abs(table - middle), axis=0), least)
