"""The smallest box that holds a mask, and boxes around what is bright on a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.shapes.pieces import label_pieces


def box_of(mask: np.ndarray, margin: int | Sequence[int] = 0) -> tuple[slice, ...]:
    """The smallest box around the set voxels of a bool array of any dimension, as a slice for each axis.

    ``margin``: so many voxels more on every side, or so many along each axis, where the array has them. A
    mask without a set voxel gives a box of no size, whatever the margin.
    """
    margins = [margin] * mask.ndim if isinstance(margin, int) else list(margin)
    box = []
    for axis, extra in zip(range(mask.ndim), margins, strict=True):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not used.size:
            return (slice(0, 0),) * mask.ndim
        box.append(slice(max(int(used[0]) - extra, 0), min(int(used[-1]) + 1 + extra, mask.shape[axis])))
    return tuple(box)


def boxes_of_map(heat: np.ndarray, share: float = 0.5, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Where a map of 0 to 1 is bright: (corners float64 (N, 2, D), scores float64 (N,)), the best first.

    A box for each connected piece, diagonals included, of at least ``least`` voxels, of what reaches
    ``share`` of the map's greatest value; corners count from the outer corner of the first voxel, and the
    score is the greatest value inside. A map of zeros has none. ValueError for a ``share`` not in 0 to 1 or
    of 0.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share}; expected more than 0, at most 1.")
    peak = float(heat.max(initial=0.0))
    pieces, count = label_pieces((heat >= share * peak) & (heat > 0), diagonal=True)
    found = []
    for number in range(1, count + 1):
        piece = pieces == number
        if piece.sum() >= least:
            box = box_of(piece)
            found.append((float(heat[piece].max()), [[s.start for s in box], [s.stop for s in box]]))
    found.sort(key=lambda one: -one[0])
    corners = np.array([box for _, box in found], dtype=np.float64).reshape(-1, 2, heat.ndim)
    return corners, np.array([score for score, _ in found], dtype=np.float64)
