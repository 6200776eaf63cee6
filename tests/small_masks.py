"""Masks and stacks of slices small enough to work out by hand."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medseg.geometry import Geometry


def box_mask(shape, *ranges) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*pair) for pair in ranges)] = True
    return mask


A = box_mask((12, 12, 12), (2, 8), (2, 8), (2, 8))
SHIFTED = box_mask((12, 12, 12), (4, 10), (2, 8), (2, 8))
EMPTY = np.zeros((12, 12, 12), dtype=bool)


def stack(heights_mm, rows=12, columns=12, tilt=0.0, spacing_mm=(1.0, 1.0)) -> Geometry:
    origins = [[height * tilt, 0, height] for height in heights_mm]
    return Geometry((len(heights_mm), rows, columns), origins, [0, spacing_mm[0], 0], [spacing_mm[1], 0, 0])


def blobs(shape, seed=3, sigma=2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    field, change = (ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(2))
    return field > 0.02, field + 0.4 * change > 0.02
