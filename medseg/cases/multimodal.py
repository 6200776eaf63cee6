"""Several images of one patient on one grid.

A tumour is drawn on CT, PET and MR together. The grid is that of the planning CT; the other images keep their
own voxels until :func:`sampled_on` looks them up there.
"""

from __future__ import annotations

import numpy as np

from medseg.errors import GeometryError
from medseg.geometry import Geometry

EDGE = 1e-6
"""Voxels by which a rounded position may lie outside an image and still count as inside."""


def sampled_on(
    volume: np.ndarray,
    moving: Geometry,
    reference: Geometry,
    reference_to_moving: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``volume`` [slice, row, column] of the stack ``moving`` at every voxel centre of ``reference``.

    Returns (values float32, covered bool), both of ``reference.shape``. Interpolation is linear between the
    slices where they really lie, so uneven and sheared stacks are not displaced. ``covered``: the point lies
    within the moving stack, up to half a voxel (half an end gap) beyond its outermost centres, where the
    nearest value holds; elsewhere the value is 0 and ``covered`` is False.

    ``reference_to_moving``: 4x4, takes a point (LPS mm) of the reference's frame to the moving image's frame;
    None: both share one frame. GeometryError for a volume of another shape, for a single slice, whose height
    is not known, for a matrix that is not 4x4, finite, affine and invertible, and, without a matrix, for two
    different Frames of Reference.
    """
    volume = np.asarray(volume, dtype=np.float32)
    if volume.shape != moving.shape:
        raise GeometryError(
            f"array {volume.shape} for an image of {moving.shape}; expected (slices, rows, columns)."
        )
    if moving.shape[0] < 2:
        raise GeometryError("the image to sample is one slice, whose height is not known; expected a stack.")
    matrix = _checked(reference_to_moving, moving, reference)
    sample = _even if moving.is_uniform else _slice_by_slice
    values, covered = np.zeros(reference.shape, np.float32), np.zeros(reference.shape, bool)
    for index in range(reference.shape[0]):
        sample(volume, moving, _Plane.of(reference, index, matrix), values[index], covered[index])
    return values, covered


def _checked(matrix: np.ndarray | None, moving: Geometry, reference: Geometry) -> np.ndarray:
    if matrix is None:
        frames = moving.frame_of_reference_uid, reference.frame_of_reference_uid
        if None not in frames and frames[0] != frames[1]:
            raise GeometryError(
                f"Frame of Reference {frames[0]} against {frames[1]}: nothing says how they lie to each "
                "other; a DICOM Spatial Registration object would."
            )
        return np.eye(4)
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise GeometryError("a transformation must be a 4x4 matrix of finite numbers that ends in 0 0 0 1.")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
        raise GeometryError("a transformation squeezes space flat (its determinant is 0); check its matrix.")
    return matrix


class _Plane:
    """The pixel centres of one reference slice as points (mm) of the moving image's frame: ``origin`` plus
    ``row`` and ``column`` steps."""

    def __init__(self, origin: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]):
        self.origin, self.row, self.column, self.shape = origin, row, column, shape

    @classmethod
    def of(cls, reference: Geometry, index: int, matrix: np.ndarray) -> _Plane:
        turn = matrix[:3, :3]
        return cls(
            turn @ reference.origins_lps_mm[index] + matrix[:3, 3],
            turn @ reference.row_step_lps_mm,
            turn @ reference.column_step_lps_mm,
            reference.shape[1:],
        )

    def along(self, direction: np.ndarray, start: np.ndarray | float = 0.0) -> np.ndarray:
        """float64 (rows, columns): the points less ``start``, measured along ``direction``."""
        rows, columns = (np.arange(n, dtype=np.float64) for n in self.shape)
        return (
            (self.origin - start) @ direction
            + (rows * (self.row @ direction))[:, None]
            + (columns * (self.column @ direction))[None, :]
        )


def _even(volume: np.ndarray, moving: Geometry, plane: _Plane, values: np.ndarray, covered: np.ndarray):
    """One reference slice of a stack that one affine describes (it may be sheared)."""
    from scipy.ndimage import map_coordinates

    affine = moving.affine_lps
    inverse = np.linalg.inv(affine[:3, :3])
    indices = [plane.along(inverse[axis], affine[:3, 3]) for axis in range(3)]
    inside = np.ones(plane.shape, bool)
    for index, n in zip(indices, moving.shape, strict=True):
        inside &= (index >= -0.5 - EDGE) & (index <= n - 0.5 + EDGE)
    if inside.any():
        at = np.stack([index[inside] for index in indices])
        values[inside] = map_coordinates(volume, at, output=np.float32, order=1, mode="nearest")
        covered[inside] = True


def _slice_by_slice(
    volume: np.ndarray, moving: Geometry, plane: _Plane, values: np.ndarray, covered: np.ndarray
):
    """One reference slice of an uneven stack: mixed from the two slices around each point, each looked up by
    its own position."""
    from scipy.ndimage import map_coordinates

    order = np.argsort(moving.slice_positions_mm)  # slices of a left-handed NIfTI file descend
    positions_mm, thickness_mm = moving.slice_positions_mm[order], moving.slice_thickness_mm[order]
    height_mm = plane.along(moving.normal_lps)
    above = np.clip(np.searchsorted(positions_mm, height_mm), 1, len(order) - 1)
    low, high = positions_mm[above - 1], positions_mm[above]
    share = np.clip((height_mm - low) / (high - low), 0.0, 1.0)
    ends = positions_mm[0] - thickness_mm[0] / 2 - EDGE, positions_mm[-1] + thickness_mm[-1] / 2 + EDGE
    inside = (height_mm >= ends[0]) & (height_mm <= ends[1])
    steps = moving.row_step_lps_mm, moving.column_step_lps_mm
    in_plane = [plane.along(step / (step @ step)) for step in steps]
    sums = np.zeros(plane.shape)
    for neighbour, weight in ((order[above - 1], 1.0 - share), (order[above], share)):
        at = [
            index - (moving.origins_lps_mm @ step / (step @ step))[neighbour]
            for index, step in zip(in_plane, steps, strict=True)
        ]
        for index, n in zip(at, moving.shape[1:], strict=True):
            inside &= (weight == 0) | ((index >= -0.5 - EDGE) & (index <= n - 0.5 + EDGE))
        planes = neighbour.astype(np.float64)  # whole numbers: nothing is mixed across slices here
        sums += weight * map_coordinates(volume, np.stack([planes, *at]), order=1, mode="nearest")
    values[inside], covered[inside] = sums[inside], True
