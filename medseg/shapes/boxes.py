"""The smallest box that holds a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
