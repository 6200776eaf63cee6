"""Resampling as nnU-Net plans it: splines along one axis after the other, apart along a coarse axis.

nnU-Net resamples with scikit-image's ``resize`` and scipy's ``map_coordinates``, in float64 and over three
axes at once. Splines are products of splines along the axes, so a matrix per axis gives the same values; here
they come from the very scipy routine. tests/inference/test_resampling.py holds both side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from medseg.errors import InputError

COARSE = 3.0
"""A grid whose largest voxel side is more than this many times its smallest is resampled apart along it."""


@dataclass(frozen=True)
class Resampling:
    """How nnU-Net's plans say that something is resampled.

    ``order``: of the spline, 0 to 3. ``order_across``: of that along a coarse axis. ``separate``: whether a
    coarse axis is resampled apart; None: when the grid says so. ``half``: whether the result is rounded to
    float16, as nnU-Net's numpy resampling does of float16 logits.
    """

    order: int = 3
    order_across: int = 0
    separate: bool | None = None
    half: bool = True

    def __post_init__(self):
        if not (0 <= self.order <= 3 and 0 <= self.order_across <= 3):
            raise InputError(f"resampling of order {self.order}, {self.order_across}; expected 0 to 3.")

    def axis_apart(self, from_mm: Sequence[float], to_mm: Sequence[float]) -> int | None:
        """The axis that is resampled apart between two grids of these voxel sizes, None for all together."""
        if self.separate is False:
            return None
        grids = [from_mm] if self.separate else [mm for mm in (from_mm, to_mm) if max(mm) / min(mm) > COARSE]
        if not grids:
            return None
        coarse = np.flatnonzero(max(grids[0]) / np.asarray(grids[0]) == 1)
        return int(coarse[0]) if len(coarse) == 1 else None


def new_shape(shape: Sequence[int], from_mm: Sequence[float], to_mm: Sequence[float]) -> tuple[int, ...]:
    """How many voxels of ``to_mm`` stand for ``shape`` voxels of ``from_mm``."""
    return tuple(int(round(a / b * n)) for n, a, b in zip(shape, from_mm, to_mm, strict=True))


def positions(before: int, after: int) -> np.ndarray:
    """float64 (after,): where the new voxels' centres lie among the old ones; both rows end at one place."""
    return before / after * (np.arange(after) + 0.5) - 0.5


@dataclass(frozen=True, eq=False)
class Taps:
    """Linear or nearest interpolation along an axis: each new voxel's two neighbours and the second's
    share."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, before: int, after: int, order: int) -> Taps:
        """For order 0 or 1. InputError for another one."""
        if order not in (0, 1):
            raise InputError(f"logits resampled with order {order}; expected 0 or 1, as nnU-Net plans.")
        at = np.clip(positions(before, after), 0, before - 1)
        if order == 0:
            nearest = np.floor(at + 0.5).astype(np.int64)
            return cls(nearest, nearest, np.zeros(after, np.float32))
        low = np.minimum(np.floor(at).astype(np.int64), before - 1)
        return cls(low, np.minimum(low + 1, before - 1), (at - low).astype(np.float32))


def resampled(
    volume: np.ndarray, shape: Sequence[int], how: Resampling, apart: int | None = None
) -> np.ndarray:
    """``volume`` (three axes, float32) on ``shape`` voxels. ``apart``: see :meth:`Resampling.axis_apart`.

    Values stay within those of the volume, or, with an axis apart, of each slice across it.
    """
    if volume.shape == tuple(shape):
        return volume
    together = [axis for axis in range(3) if axis != apart]
    limits_over = None if apart is None else tuple(together)
    low, high = (bound(axis=limits_over, keepdims=True) for bound in (volume.min, volume.max))
    for axis in sorted(together, key=lambda axis: shape[axis] / volume.shape[axis]):
        volume = _along(volume, axis, shape[axis], how.order)
    if how.order > 1:
        volume = np.clip(volume, low, high)
    return volume if apart is None else _along(volume, apart, shape[apart], how.order_across)


def resampled_labels(
    labels: np.ndarray, shape: Sequence[int], how: Resampling, apart: int | None = None
) -> np.ndarray:
    """A label map on ``shape`` voxels, as nnU-Net resamples the answer of an earlier stage: each label as a
    mask of its own, of which the largest share wins; along an axis apart the nearest slice. By scipy's
    routine in one piece, because shares are often equal to the last bit. InputError for another order across.
    """
    if labels.shape == tuple(shape):
        return labels
    if apart is None:
        return _zoomed_labels(labels, shape, how.order)
    if how.order_across != 0:
        raise InputError(f"labels resampled with order {how.order_across} across a coarse axis; expected 0.")
    in_plane = [size for axis, size in enumerate(shape) if axis != apart]
    slices = [_zoomed_labels(part, in_plane, how.order) for part in np.moveaxis(labels, apart, 0)]
    nearest = Taps.of(labels.shape[apart], shape[apart], 0).low
    return np.moveaxis(np.stack(slices)[nearest], 0, apart)


def _zoomed_labels(labels: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """Of equal shares the nearest voxel's label wins, or where it is none of those, the lowest
    (batchgenerators 0.25.5)."""
    zooms = [1 / (before / after) for before, after in zip(labels.shape, shape, strict=True)]

    def zoomed(array: np.ndarray, order: int) -> np.ndarray:
        return ndimage.zoom(array.astype(np.float64), zooms, order=order, mode="nearest", grid_mode=True)

    nearest = zoomed(labels, 0).astype(labels.dtype)
    if order == 0:
        return nearest
    best = np.full(tuple(shape), -np.inf)
    winner, nearest_leads = np.zeros_like(nearest), np.zeros(nearest.shape, bool)
    for label in np.unique(labels):
        share, is_nearest = np.clip(zoomed(labels == label, order), 0, 1), nearest == label
        ahead = share > best
        nearest_leads = np.where(ahead, is_nearest, nearest_leads | ((share == best) & is_nearest))
        winner[ahead] = label
        best = np.maximum(best, share)
    return np.where(nearest_leads, nearest, winner)


def _along(volume: np.ndarray, axis: int, after: int, order: int) -> np.ndarray:
    """Resampled along one axis, float32; sums are made in float64."""
    before = volume.shape[axis]
    if before == after:
        return volume
    if order == 0:
        return np.take(volume, Taps.of(before, after, 0).low, axis=axis)
    matrix = spline_matrix(before, after, order)
    shape = [after if n == axis else size for n, size in enumerate(volume.shape)]
    result = np.empty(shape, np.float32)
    if axis == 0:
        for row in range(volume.shape[1]):
            result[:, row] = matrix @ volume[:, row].astype(np.float64)
        return result
    for plane, target in zip(volume, result, strict=True):
        wide = plane.astype(np.float64)
        target[...] = matrix @ wide if axis == 1 else wide @ matrix.T
    return result


@lru_cache(maxsize=12)
def spline_matrix(before: int, after: int, order: int) -> np.ndarray:
    """float64 (after, before): what each old voxel adds to each new one, by scipy's own spline with the edge
    repeated."""
    zoom = after / before
    columns = [
        ndimage.zoom(unit, zoom, order=order, mode="nearest", grid_mode=True) for unit in np.eye(before)
    ]
    return np.stack(columns, axis=1)
