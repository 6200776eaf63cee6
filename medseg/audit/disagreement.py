"""How far a label lies from what a network that never saw it predicts, and how unusual that is for its
structure.

The score of a case and structure, from 0 to 1, is 1 / (1 + exp(3 - z)). z is the robust z-value, at most 10,
of the Dice that the label lacks; plus 2 times what the label itself is more unusual than expected (usual.py);
plus 2.5 times the Dice that the correction would gain which the reason names: what one simple blunder
explains is seldom the network's doing. A robust z is (value - median) / (1.4826 * median absolute deviation)
over all labels of that structure, so 0 is the structure's usual agreement, z = 3 gives 0.5, and neither the
size of an organ nor how hard it is counts against its labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure

from medseg.shapes.boxes import box_of
from medseg.shapes.pieces import label_pieces

THRESHOLDS = (0.05, 0.95)
LEAST_PIECE = 0.1
"""Pieces of a prediction below this share of its largest are taken for specks."""

HIGHEST_Z, HALF_SCORE_Z, GAIN_WEIGHT, UNUSUAL_WEIGHT = 10.0, 3.0, 2.5, 2.0
LEAST_SPREAD = 0.02
LEAST_LABELS = 5
"""With fewer labels a structure has no usual agreement of its own; that of all structures stands in for
it."""


@dataclass(frozen=True)
class Disagreement:
    """Label against prediction. Sizes in cc or px, distances in mm or px.

    ``soft_dice``: with the probabilities; ``dice``: with the prediction cut at its structure's threshold.
    ``distance``: mean absolute distance between the outlines; ``bias``: mean signed distance, positive where
    the label lies outside. With both empty Dice is nan and the distances are 0; with one empty Dice is 0,
    distance infinite, bias nan.
    """

    soft_dice: float
    dice: float
    distance: float
    bias: float
    label_size: float
    predicted_size: float


def level_of(label: np.ndarray, probability: np.ndarray) -> float:
    """The probability at which the prediction is exactly as large as the label; nan for an empty label.

    A network that is trained briefly is too careful or too bold for a structure in all cases alike, and what
    all labels share is no error of one of them: the median of these levels is where the predictions of a
    structure are cut.
    """
    count = int(label.sum())
    return float(np.partition(probability.ravel(), -count)[-count]) if count else math.nan


def threshold_of(levels: Sequence[float]) -> float:
    """The median level, kept between THRESHOLDS; 0.5 without any. For predictions that are masks every value
    will do."""
    known = [level for level in levels if level == level]
    return float(np.clip(np.median(known), *THRESHOLDS)) if known else 0.5


def predicted_mask(probability: np.ndarray, threshold: float) -> np.ndarray:
    """bool: what reaches the threshold, without specks (pieces below a tenth of the largest)."""
    mask = probability >= threshold
    pieces, count = label_pieces(mask, diagonal=True)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (sizes >= LEAST_PIECE * sizes.max())[pieces]


def signed_distance(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance of each voxel centre to the outline, which runs half a voxel from the centres beside it:
    inside negative.

    Infinite everywhere for an empty mask, minus infinite for a full one.
    """
    half = min(spacing) / 2
    if not mask.any() or mask.all():
        return np.full(mask.shape, -np.inf if mask.any() else np.inf)
    outside = distance_transform_edt(~mask, sampling=spacing) - half
    return np.where(mask, half - distance_transform_edt(mask, sampling=spacing), outside)


def outline_distances(a: np.ndarray, b: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """(mean absolute, mean signed) distance between the outlines of bool masks; signed: positive where a lies
    outside b.

    Each direction is a mean over the outermost voxels of one mask, and both directions count the same. Both
    empty: (0, 0); one empty: (inf, nan).
    """
    if not a.any() or not b.any():
        return (0.0, 0.0) if not a.any() and not b.any() else (math.inf, math.nan)
    box = box_of(a | b, margin=2)
    a, b = (np.pad(mask[box], 1) for mask in (a, b))
    cross = generate_binary_structure(a.ndim, 1)
    edges = [mask & ~binary_erosion(mask, cross) for mask in (a, b)]
    depth_a, depth_b = signed_distance(a, spacing), signed_distance(b, spacing)
    # A voxel of the edge has its centre some way inside its own outline, which is no distance between the
    # two.
    a_from_b, b_from_a = (depth_b - depth_a)[edges[0]], (depth_a - depth_b)[edges[1]]
    absolute = (np.abs(a_from_b).mean() + np.abs(b_from_a).mean()) / 2
    return float(absolute), float((a_from_b.mean() - b_from_a.mean()) / 2)


def dice_of(a: np.ndarray, b: np.ndarray) -> float:
    """2 |a and b| / (|a| + |b|) of bool masks or probabilities; nan when both are empty."""
    both = float(a.sum(dtype=np.float64)) + float(b.sum(dtype=np.float64))
    return 2 * float((a * b).sum(dtype=np.float64)) / both if both else math.nan


def disagreement(
    label: np.ndarray, probability: np.ndarray, mask: np.ndarray, spacing: Sequence[float], unit: str
):
    """The Disagreement of a bool label with a prediction: its probabilities and, cut at the threshold, its
    mask."""
    voxel = math.prod(spacing) / 1000.0 if unit == "mm" and len(spacing) == 3 else math.prod(spacing)
    distance, bias = outline_distances(label, mask, spacing)
    soft = dice_of(label.astype(np.float32), probability)
    return Disagreement(
        soft, dice_of(label, mask), distance, bias, int(label.sum()) * voxel, int(mask.sum()) * voxel
    )


# ---- how unusual -------------------------------------------------------------------------------------------


def scores(rows: Sequence[tuple[str, Disagreement, float, float]]) -> list[tuple[float, float]]:
    """(score, z) of each (structure, disagreement, Dice that its reason gains, how unusual its label is), as
    the module says.

    Where label and prediction are both empty the score is 0 and z nan.
    """
    lacking = np.array([1 - row.dice for _, row, *_ in rows], dtype=np.float64)
    names = np.array([name for name, *_ in rows])
    z = np.full(len(rows), np.nan)
    for name in dict.fromkeys(names.tolist()):
        own = names == name
        usual = own if np.isfinite(lacking[own]).sum() >= LEAST_LABELS else np.full(len(rows), True)
        z[own] = robust_z(lacking[own], lacking[usual], LEAST_SPREAD)
    gains, unusual = np.array([row[2:] for row in rows]).T
    z = np.clip(z, -HIGHEST_Z, HIGHEST_Z) + GAIN_WEIGHT * gains + UNUSUAL_WEIGHT * (unusual - 1)
    return [
        (1 / (1 + math.exp(HALF_SCORE_Z - value)), value) if value == value else (0.0, math.nan)
        for value in z.tolist()
    ]


def robust_z(values: np.ndarray, usual: np.ndarray, least_spread: float) -> np.ndarray:
    """How many robust standard deviations each value lies above the median of ``usual``, whose nan do not
    count."""
    known = usual[np.isfinite(usual)]
    if not known.size:
        return np.full(len(values), np.nan)
    middle = np.median(known)
    return (values - middle) / max(1.4826 * float(np.median(np.abs(known - middle))), least_spread)
