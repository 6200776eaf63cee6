"""Lesion by lesion: how many are found at how many false finds per image (FROC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.metrics.pixels import LEVELS, as_levels
from medseg.shapes.pieces import label_pieces

FALSE_FINDS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
"""Per image; the mean sensitivity at these is the competition metric (CPM) of LUNA16."""

STEPS = 49
"""Thresholds at which pieces are cut; between two of them a curve is a step."""


@dataclass(frozen=True)
class LesionCounts:
    """Of one image, at each of the thresholds: lesions ``found`` and ``false_finds`` (int arrays (T,)), and
    how many ``lesions`` there are."""

    found: np.ndarray
    false_finds: np.ndarray
    lesions: int


def thresholds() -> np.ndarray:
    """float (STEPS,), falling from nearly 1 to 1/65535, evenly on the logit scale."""
    logits = np.linspace(11, -11, STEPS)
    return 1 / (1 + np.exp(-logits))


def count_lesions(
    probability: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None, most_pieces: int = 2000
) -> LesionCounts:
    """Lesions (8-connected pieces of ``truth``, bool) and finds (pieces of what reaches a threshold) of an
    image.

    A lesion is found when a pixel of it reaches the threshold; a find that touches no lesion is false, unless
    it touches ``ignore`` (bool). Thresholds that shatter the image into more than ``most_pieces`` finds are
    counted as so many false ones and nothing new found.
    """
    levels = as_levels(probability)
    lesion_pieces, lesions = label_pieces(truth, diagonal=True)
    best = np.zeros(lesions + 1, dtype=np.int64)
    np.maximum.at(best, lesion_pieces.ravel(), levels.ravel())
    found, false_finds = [], []
    for threshold in thresholds():
        cut = max(int(np.ceil(threshold * (LEVELS - 1))), 1)
        pieces, count = label_pieces(levels >= cut, diagonal=True)
        spared = truth if ignore is None else truth | ignore
        touching = np.unique(pieces[spared & (pieces > 0)])
        shattered = count > most_pieces
        hits = int((best[1:] >= cut).sum())
        found.append(found[-1] if shattered and found else 0 if shattered else hits)
        false_finds.append(most_pieces if shattered else count - len(touching))
    return LesionCounts(np.array(found), np.array(false_finds), lesions)


def froc(images: Sequence[LesionCounts]) -> tuple[np.ndarray, np.ndarray]:
    """(false finds per image, sensitivity), one point per threshold; sensitivities are nan without a
    lesion."""
    lesions = sum(counts.lesions for counts in images)
    found = np.sum([counts.found for counts in images], axis=0)
    false_finds = np.sum([counts.false_finds for counts in images], axis=0)
    share = found / lesions if lesions else np.full(STEPS, np.nan)
    return false_finds / max(len(images), 1), share


def sensitivity_at_false_finds(images: Sequence[LesionCounts], per_image: float) -> float:
    """The greatest sensitivity of a threshold with at most so many false finds per image; 0 where none has
    so few, nan without a lesion."""
    finds, share = froc(images)
    if np.isnan(share).all():
        return float("nan")
    reached = share[finds <= per_image]
    return float(reached.max()) if reached.size else 0.0


def mean_sensitivity(images: Sequence[LesionCounts]) -> float:
    """The mean of the sensitivities at :data:`FALSE_FINDS`; nan without a lesion."""
    return float(np.mean([sensitivity_at_false_finds(images, finds) for finds in FALSE_FINDS]))
