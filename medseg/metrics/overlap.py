"""Overlap and volume: areas on slices, each by the height of its slice where that is known."""

from __future__ import annotations

import numpy as np

from medseg.errors import GeometryError, StructureError
from medseg.geometry import Geometry
from medseg.shapes.outlines import mask_if_binary, probability_polygons


def dice(a: np.ndarray, b: np.ndarray, geometry: Geometry | None = None) -> float:
    """Twice the common volume over the volume of both bool masks. nan when both are empty, 0 when one is.

    Voxels are counted; with a ``geometry``, each counts by the height of its slice, which matters on uneven
    stacks alone. GeometryError for masks of different shapes, or of another shape than the geometry,
    StructureError for arrays that are no masks.
    """
    require_masks(a, b)
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


def volume_cc(volume: np.ndarray, geometry: Geometry) -> float:
    """Cubic centimetres of a structure [slice, row, column]: its area on each slice times the slice's height.

    A bool mask has the area of its set voxels, and so has a float map of nothing but 0 and 1; any other map
    that within its outlines at 0.5: in all cases what is written as contours. An end slice counts as thick as
    its inner neighbour's gap. An empty structure has 0. On a stack of a single slice it is nan: its height is
    not known. GeometryError for another shape.
    """
    if volume.shape != geometry.shape:
        raise GeometryError(
            f"mask of shape {volume.shape} on an image of {geometry.shape} (slices, rows, columns)."
        )
    volume = mask_if_binary(volume)
    if volume.dtype.kind != "f":
        return float(np.count_nonzero(volume, axis=(1, 2)) @ geometry.voxel_volumes_cc)
    return float(np.array([_outlined_area(plane) for plane in volume]) @ geometry.voxel_volumes_cc)


def centre_lps_mm(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """float64 (3,), LPS mm: the centre of mass of a bool mask, or of a map from 0.5 on; nan when it is empty.

    Each voxel counts by the height of its slice. GeometryError for another shape than the geometry's.
    """
    if mask.shape != geometry.shape:
        raise GeometryError(
            f"mask of shape {mask.shape} on an image of {geometry.shape} (slices, rows, columns)."
        )
    inside = mask if mask.dtype == bool else mask >= 0.5
    by_row, by_column = inside.sum(axis=2, dtype=np.float64), inside.sum(axis=1, dtype=np.float64)
    heights = geometry.slice_thickness_mm if geometry.shape[0] > 1 else np.ones(1)
    counts = by_row.sum(axis=1)
    if not counts.any():
        return np.full(3, np.nan)
    rows, columns = np.arange(geometry.shape[1]), np.arange(geometry.shape[2])
    moments = (
        counts[:, None] * geometry.origins_lps_mm
        + (by_row @ rows)[:, None] * geometry.row_step_lps_mm
        + (by_column @ columns)[:, None] * geometry.column_step_lps_mm
    )
    return heights @ moments / (heights @ counts)


def _outlined_area(plane: np.ndarray) -> float:
    """Pixels within the outlines of a map's slice; holes run the other way, so they count off."""
    rings = [ring for polygon in probability_polygons(plane) for ring in (polygon.exterior, *polygon.holes)]
    return abs(
        sum(
            float(ring[:, 1] @ np.roll(ring[:, 0], -1) - ring[:, 0] @ np.roll(ring[:, 1], -1)) / 2
            for ring in rings
        )
    )


def require_masks(a: np.ndarray, b: np.ndarray) -> None:
    """StructureError unless both arrays are bool masks, GeometryError unless they have the same shape."""
    for array in (a, b):
        if array.dtype != bool:
            raise StructureError(
                f"array of type {array.dtype}: expected bool masks; cut a map at its level (map >= 0.5) "
                f"and split a label map into one mask per structure."
            )
    if a.shape != b.shape:
        raise GeometryError(f"masks of shape {a.shape} and {b.shape}: expected the same voxel grid.")
