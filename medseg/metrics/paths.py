"""The added path length: what a person still has to draw."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from medseg.errors import GeometryError
from medseg.geometry import Geometry
from medseg.metrics.marching import is_surface, length_by_code, outline_codes
from medseg.metrics.overlap import require_masks
from medseg.metrics.surfaces import OFFSET_REACH, look_up
from medseg.shapes.boxes import box_of

PATH_DEFINITION = (
    "marching-square length of the reference outline, slice by slice, where the other outline is farther away"
)


def added_path_length_mm(
    reference: np.ndarray, other: np.ndarray, geometry: Geometry, tolerance_mm: float = 0.0
) -> tuple[float, float]:
    """(length in mm of the reference outline that ``other`` lacks, length in mm of the whole reference
    outline).

    Vaassen et al., Phys Imaging Radiat Oncol 13:1-6, 2020: what a person still has to draw, slice by slice.
    Outline elements sit at the corners between pixels and have the length that marching squares gives their
    2x2 neighbourhood. One is lacking when no element of the other outline lies within ``tolerance_mm`` of it
    in the same slice (0: at the same place). What ``other`` has too much costs no drawing, so the measure is
    not symmetric. Heights of slices do not count, so any stack will do. Without a reference the answer is (0,
    0); without the other, the whole outline is lacking. GeometryError for masks of another shape than the
    geometry.
    """
    require_masks(reference, other)
    if geometry.shape != reference.shape:
        raise GeometryError(
            f"masks of shape {reference.shape} on an image of {geometry.shape} (slices, rows, columns)."
        )
    box = box_of(reference | other)
    codes, other_codes = outline_codes(reference[box]), outline_codes(other[box])
    row_mm, column_mm = geometry.pixel_spacing_mm
    elements = np.flatnonzero(is_surface(codes, 15))
    length_mm = length_by_code(row_mm, column_mm)[codes.ravel()[elements]]
    is_other = is_surface(other_codes, 15)
    rows, columns = (min(int(tolerance_mm / mm), OFFSET_REACH) for mm in (row_mm, column_mm))
    offsets = np.mgrid[0:1, -rows : rows + 1, -columns : columns + 1].reshape(3, -1).T
    distances_mm = np.linalg.norm(offsets * (0, row_mm, column_mm), axis=1)
    order = np.argsort(distances_mm, kind="stable")
    order = order[distances_mm[order] <= tolerance_mm]
    lacking = np.isinf(look_up(elements, is_other, offsets[order], distances_mm[order]))
    if lacking.any() and tolerance_mm > OFFSET_REACH * min(
        row_mm, column_mm
    ):  # the offsets did not reach so far
        apart_mm = np.array([2 * tolerance_mm, row_mm, column_mm])  # so that no other slice is near enough
        here, there = (
            np.stack(np.unravel_index(flat, codes.shape), axis=1) * apart_mm
            for flat in (elements[lacking], np.flatnonzero(is_other))
        )
        found_mm, _ = (
            KDTree(there).query(here, distance_upper_bound=tolerance_mm + 1e-9) if len(there) else (np.inf, 0)
        )
        lacking[lacking] = np.isinf(found_mm)
    return float(length_mm[lacking].sum()), float(length_mm.sum())
