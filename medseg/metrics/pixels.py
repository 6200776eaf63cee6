"""How well probabilities of pixels rank, and mean what they say: exact curves over millions of pixels in
little memory.

Probabilities are taken at the 65,536 levels that a PNG of 16 bits holds. Per image, the pixels of each level
are counted, of lesions and of the rest; everything below follows from those counts exactly, and counts of
images add up. So nothing is sampled, no pixel is kept, and images can be drawn again and again for an
interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medseg.errors import InputError
from medseg.metrics.intervals import Interval, interval

LEVELS = 2**16
BINS = 15
FEW = 4096
DRAWS = 500
"""Of patients, for the interval of a pooled figure; ten times as many move its ends in the third decimal."""


@dataclass(frozen=True)
class LevelCounts:
    """Of one image, or of several pooled: ``levels`` that occur, rising, and how many lesion pixels
    (``positive``) and other pixels (``negative``) have each; int64, all of one length."""

    levels: np.ndarray
    positive: np.ndarray
    negative: np.ndarray

    @property
    def positives(self) -> int:
        return int(self.positive.sum())

    @property
    def negatives(self) -> int:
        return int(self.negative.sum())


def as_levels(probability: np.ndarray) -> np.ndarray:
    """uint16 of the same shape; InputError for what is not finite or not in 0 to 1."""
    if probability.dtype == np.uint16:
        return probability
    if probability.size and not (
        np.isfinite(probability).all() and 0 <= probability.min() <= probability.max() <= 1
    ):
        raise InputError("probabilities that are not all from 0 to 1; give the sigmoid of the logits.")
    return np.rint(probability * (LEVELS - 1)).astype(np.uint16)


def count_levels(probability: np.ndarray, truth: np.ndarray, field: np.ndarray | None = None) -> LevelCounts:
    """The counts of one image. ``probability``: float 0..1 or uint16 levels, ``truth``: bool of the same
    shape; pixels outside ``field`` (bool) are left out. InputError for shapes that differ."""
    if probability.shape != truth.shape or field is not None and field.shape != truth.shape:
        raise InputError(
            f"probabilities {probability.shape} and truth {truth.shape}: expected the same pixels."
        )
    levels = as_levels(probability)
    if field is None and truth.size < FEW:  # one bin per level would take longer than sorting a few
        found, place = np.unique(levels, return_inverse=True)
        place = place.reshape(truth.shape)
        return LevelCounts(
            found, *(np.bincount(place[part], minlength=len(found)) for part in (truth, ~truth))
        )
    where = np.ones(truth.shape, dtype=bool) if field is None else field
    counts = [np.bincount(levels[where & part], minlength=LEVELS) for part in (truth, ~truth)]
    return _compact(*counts)


def pooled(images: Iterable[LevelCounts]) -> LevelCounts:
    """The counts of all pixels of several images; of none, no level."""
    totals = np.zeros((2, LEVELS), dtype=np.int64)
    for counts in images:
        totals[0, counts.levels] += counts.positive
        totals[1, counts.levels] += counts.negative
    return _compact(*totals)


def pooled_interval(
    statistic: Callable[[LevelCounts], float],
    images: Sequence[LevelCounts],
    patients: Sequence[str],
    draws: int = DRAWS,
) -> Interval:
    """A figure of the pooled pixels of several images, and its 95 % interval over patients, each drawn with
    all pixels of all of their images; see :func:`medseg.metrics.intervals.interval`."""
    stack = np.zeros((len(images), 2, LEVELS), dtype=np.float32)
    for row, counts in enumerate(images):
        stack[row, 0, counts.levels], stack[row, 1, counts.levels] = counts.positive, counts.negative

    def of_rows(rows: np.ndarray) -> float:
        times = np.bincount(rows, minlength=len(images)).astype(np.float32)
        totals = np.rint(np.tensordot(times, stack, axes=1)).astype(np.int64)
        return statistic(_compact(*totals))

    return interval(of_rows, patients, draws=draws)


def _compact(positive: np.ndarray, negative: np.ndarray) -> LevelCounts:
    levels = np.flatnonzero(positive + negative)
    return LevelCounts(levels, positive[levels].astype(np.int64), negative[levels].astype(np.int64))


def roc_auc(counts: LevelCounts) -> float:
    """The chance that a lesion pixel has a higher probability than another pixel, ties counting half; nan
    without pixels of either kind."""
    if not counts.positives or not counts.negatives:
        return float("nan")
    below = np.cumsum(counts.negative) - counts.negative
    wins = (counts.positive.astype(float) * (below + counts.negative / 2)).sum()
    return float(wins / counts.positives / counts.negatives)


def average_precision(counts: LevelCounts) -> float:
    """Area under the precision-recall curve as steps (AUPR): the sum over thresholds of the gain in recall
    times the precision there; nan without lesion pixels. A constant answer has the share of lesion pixels."""
    if not counts.positives:
        return float("nan")
    gained = counts.positive[::-1] / counts.positives
    return float((gained * precision_recall(counts)[0]).sum())


def precision_recall(counts: LevelCounts) -> tuple[np.ndarray, np.ndarray]:
    """(precision, recall) of what reaches each level that occurs, from the highest down; recall is nan
    without lesion pixels, both are empty without pixels."""
    found, raised = _above(counts)
    recall = found / counts.positives if counts.positives else np.full(len(found), np.nan)
    return found / (found + raised), recall


def sensitivity_at(counts: LevelCounts, specificity: float) -> float:
    """The greatest share of lesion pixels found at a threshold that keeps ``specificity`` (0..1) of the other
    pixels out; nan without pixels of either kind."""
    if not counts.positives or not counts.negatives:
        return float("nan")
    found, raised = _above(counts)
    kept_out = 1 - raised / counts.negatives
    enough = found[kept_out >= specificity - 1e-12]
    return float(enough.max() / counts.positives) if enough.size else 0.0


def dice_at(counts: LevelCounts, threshold: float = 0.5) -> float:
    """Dice of what reaches ``threshold``; nan where neither truth nor answer has a pixel."""
    inside = counts.levels >= threshold * (LEVELS - 1)
    found, raised = int(counts.positive[inside].sum()), int(counts.negative[inside].sum())
    total = found + raised + counts.positives
    return 2 * found / total if total else float("nan")


def specificity_at(counts: LevelCounts, threshold: float = 0.5) -> float:
    """Share of the other pixels below ``threshold``; nan without any."""
    if not counts.negatives:
        return float("nan")
    return 1 - int(counts.negative[counts.levels >= threshold * (LEVELS - 1)].sum()) / counts.negatives


def _above(counts: LevelCounts) -> tuple[np.ndarray, np.ndarray]:
    """Lesion and other pixels at or above each level, from the highest level down."""
    return np.cumsum(counts.positive[::-1]), np.cumsum(counts.negative[::-1])


class Reliability(NamedTuple):
    """Per bin of equal width: ``said``, the mean probability; ``seen``, the share of lesion pixels; how many
    ``pixels``. Bins without pixels are left out."""

    said: np.ndarray
    seen: np.ndarray
    pixels: np.ndarray


def reliability(counts: LevelCounts, bins: int = BINS) -> Reliability:
    """What pixels of a probability turned out to be, for a plot; empty without pixels."""
    chances = counts.levels / (LEVELS - 1)
    place = np.minimum((chances * bins).astype(int), bins - 1)
    total = counts.positive + counts.negative
    pixels = np.bincount(place, weights=total, minlength=bins)
    said = np.bincount(place, weights=total * chances, minlength=bins)
    seen = np.bincount(place, weights=counts.positive, minlength=bins)
    used = pixels > 0
    return Reliability(said[used] / pixels[used], seen[used] / pixels[used], pixels[used].astype(np.int64))


def calibration_error(counts: LevelCounts, bins: int = BINS) -> float:
    """Expected calibration error (ECE): |said - seen|, averaged over pixels; nan without pixels. Among much
    background it is small whatever the lesions get, so look at the plot too. Source: Guo et al., ICML
    2017."""
    found = reliability(counts, bins)
    if not found.pixels.size:
        return float("nan")
    return float((np.abs(found.said - found.seen) * found.pixels).sum() / found.pixels.sum())
