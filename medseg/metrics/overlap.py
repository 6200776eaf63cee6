"""Overlap and volume of masks: voxels counted, each by the height of its slice where that is known."""

from __future__ import annotations

import numpy as np

from medseg.errors import GeometryError
from medseg.geometry import Geometry


def dice(a: np.ndarray, b: np.ndarray, geometry: Geometry | None = None) -> float:
    """Twice the common volume over the volume of both bool masks. nan when both are empty, 0 when one is.

    Voxels are counted; with a ``geometry``, each counts by the height of its slice, which matters on uneven
    stacks alone. GeometryError for masks of different shapes, or of another shape than the geometry.
    """
    require_same_shape(a, b)
    heights = np.ones(len(a))
    if geometry is not None:
        if geometry.shape != a.shape:
            raise GeometryError(
                f"masks of shape {a.shape} on an image of {geometry.shape} (slices, rows, columns)."
            )
        heights = geometry.slice_thickness_mm if geometry.shape[0] > 1 else heights
    voxels_a, voxels_b, common = (
        np.count_nonzero(m.reshape(len(m), -1), axis=1) @ heights for m in (a, b, a & b)
    )
    return float(2 * common / (voxels_a + voxels_b)) if voxels_a + voxels_b else float("nan")


def volume_cc(mask: np.ndarray, geometry: Geometry) -> float:
    """Set voxels of a bool mask [slice, row, column] times their volume, slice by slice, in cubic
    centimetres.

    An end slice counts as thick as its inner neighbour's gap. An empty mask has 0. A mask on a single slice
    stack has nan: its height is not known. GeometryError for a mask of another shape.
    """
    if mask.shape != geometry.shape:
        raise GeometryError(
            f"mask of shape {mask.shape} on an image of {geometry.shape} (slices, rows, columns)."
        )
    return float(np.count_nonzero(mask, axis=(1, 2)) @ geometry.voxel_volumes_cc)


def require_same_shape(a: np.ndarray, b: np.ndarray) -> None:
    """GeometryError unless both masks have the same shape."""
    if a.shape != b.shape:
        raise GeometryError(f"masks of shape {a.shape} and {b.shape}: expected the same voxel grid.")
