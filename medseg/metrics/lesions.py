"""Lesion by lesion: how many are found at how many false finds per image (FROC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.metrics.pixels import LEVELS, as_levels
from medseg.shapes.pieces import label_pieces

FALSE_FINDS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
"""Per image; the mean sensitivity at these is the competition metric (CPM) of LUNA16."""

STEPS = 25
"""Thresholds at which pieces are cut; between two of them a curve is a step."""

LEAST_OVERLAP = 0.2
"""A find that is less of a lesion than this share of its pixels is false, or one find over the whole image
would find every lesion."""


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

    A find is true when LEAST_OVERLAP of its pixels or more are lesion; a lesion is found when a true find
    touches it. Other finds are false, unless they touch ``ignore`` (bool). A threshold that shatters the
    image into more than ``most_pieces`` finds has so many false ones and finds nothing.
    """
    levels = as_levels(probability)
    lesion_pieces, lesions = label_pieces(truth, diagonal=True)
    found, false_finds = [], []
    for threshold in thresholds():
        pieces, count = label_pieces(levels >= max(np.ceil(threshold * (LEVELS - 1)), 1), diagonal=True)
        if count > most_pieces:
            found.append(0)
            false_finds.append(most_pieces)
            continue
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        common = np.bincount(pieces[truth], minlength=count + 1)
        is_true = common >= LEAST_OVERLAP * sizes
        is_true[0] = False
        spared = np.zeros(count + 1, dtype=bool)
        if ignore is not None:
            spared[pieces[ignore]] = True
        hit = lesion_pieces[truth][is_true[pieces[truth]]]
        found.append(len(np.unique(hit)))
        false_finds.append(count - int((is_true | spared)[1:].sum()))
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
