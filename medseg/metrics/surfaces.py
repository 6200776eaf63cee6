"""How far the surfaces of two masks lie apart.

The measures follow DeepMind's surface-distance: surface elements sit at the corners between voxels and
have the area that marching cubes gives their 2x2x2 neighbourhood. On uneven or tilted slices each element
lies where its own slices put it and has the area of the triangles between their voxel centres, so nothing is
resampled. Other implementations differ by up to 11 points of surface Dice on the same masks, so print
SURFACE_DEFINITION, the tolerance and the voxel grid beside every number.

Own code, because it gives the numbers of DeepMind's package 7 to 19 times faster, and takes uneven and tilted
slices (tools/benchmarks/compare/run.py; docs/reference/metrics.md).

Empty masks: with both empty there is nothing to compare and every measure is nan (leave it out of means);
with one empty, overlaps are 0 and distances are infinite.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import KDTree

from medseg.errors import GeometryError
from medseg.geometry import Geometry
from medseg.metrics.marching import area_by_code, is_surface, neighbourhood_codes, triangles_by_code
from medseg.metrics.overlap import require_masks
from medseg.shapes.boxes import box_of

SURFACE_DEFINITION = "surface elements of DeepMind surface-distance (marching-cube areas), area-weighted"

NEAR_OFFSETS, OFFSET_REACH = 1500, 12
"""So many offsets, the nearest ones, are looked up one by one before a tree is asked, and so many voxels they
may reach. They cover about 10 mm at 1 x 1 x 3 mm; looking an element up takes at most a third of the time of
asking the tree."""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Each surface element's distance in mm to the other surface, ascending, and its area in mm2, for both
    masks."""

    from_a_mm: np.ndarray
    area_a_mm2: np.ndarray
    from_b_mm: np.ndarray
    area_b_mm2: np.ndarray

    def dice(self, tolerance_mm: float) -> float:
        """Area of both surfaces within ``tolerance_mm`` of the other, over their whole area."""
        whole_mm2 = self.area_a_mm2.sum() + self.area_b_mm2.sum()
        near_a, near_b = self.from_a_mm <= tolerance_mm, self.from_b_mm <= tolerance_mm
        near_mm2 = self.area_a_mm2[near_a].sum() + self.area_b_mm2[near_b].sum()
        return float(near_mm2 / whole_mm2) if whole_mm2 else float("nan")

    def hausdorff_mm(self, percent: float = 95.0) -> float:
        """The larger of the two directed percentiles by area; percent 100 is the Hausdorff distance."""
        if not (self.from_a_mm.size and self.from_b_mm.size):
            return self._empty_answer()
        return max(
            _percentile(self.from_a_mm, self.area_a_mm2, percent),
            _percentile(self.from_b_mm, self.area_b_mm2, percent),
        )

    def mean_mm(self) -> float:
        """Mean distance over both surfaces together, by area."""
        if not (self.from_a_mm.size and self.from_b_mm.size):
            return self._empty_answer()
        whole_mm2 = self.area_a_mm2.sum() + self.area_b_mm2.sum()
        return float((self.from_a_mm @ self.area_a_mm2 + self.from_b_mm @ self.area_b_mm2) / whole_mm2)

    def _empty_answer(self) -> float:
        return float("inf") if self.from_a_mm.size or self.from_b_mm.size else float("nan")


def surface_distances(
    a: np.ndarray, b: np.ndarray, grid: Geometry | tuple[float, float, float]
) -> SurfaceDistances:
    """Both directions of surface distance between bool masks [slice, row, column] of one shape.

    ``grid``: a Geometry, also an uneven or tilted one, or the spacing in mm along each array axis. A
    structure that touches the image border has a surface there. GeometryError for unequal shapes, for a
    spacing that is not three positive numbers, and for a single slice, whose height is not known;
    StructureError for arrays that are no masks.
    """
    require_masks(a, b)
    if isinstance(grid, Geometry) and grid.shape != a.shape:
        raise GeometryError(f"masks of shape {a.shape} on an image of {grid.shape} (slices, rows, columns).")
    box = box_of(a | b)
    codes_a, codes_b = neighbourhood_codes(a[box]), neighbourhood_codes(b[box])
    if isinstance(grid, Geometry) and not grid.is_regular:
        layers = _Layers.of(grid, box[0])
    else:
        spacing_mm = tuple(
            float(value) for value in (grid.spacing_mm if isinstance(grid, Geometry) else grid)
        )
        if a.ndim != 3 or len(spacing_mm) != 3 or not all(0 < value < np.inf for value in spacing_mm):
            raise GeometryError(
                f"masks of shape {a.shape} with spacing {spacing_mm} mm: expected three axes and spacings."
            )
        layers = _Layers.even(spacing_mm, len(codes_a))
    triangles_by_code()  # once, before two threads ask for it
    # NumPy and the tree leave Python's lock, so two cores share the work.
    with ThreadPoolExecutor(2) as threads:
        there, back = threads.map(_one_way, (codes_a, codes_b), (codes_b, codes_a), (layers, layers))
    return SurfaceDistances(*there, *back)


def surface_dice(
    a: np.ndarray, b: np.ndarray, grid: Geometry | tuple[float, float, float], tolerance_mm: float
) -> float:
    """SurfaceDistances.dice of two masks: nan when both are empty, 0 when one is."""
    return surface_distances(a, b, grid).dice(tolerance_mm)


def hd95_mm(a: np.ndarray, b: np.ndarray, grid: Geometry | tuple[float, float, float]) -> float:
    """95th percentile Hausdorff distance: nan when both masks are empty, infinite when one is."""
    return surface_distances(a, b, grid).hausdorff_mm(95.0)


def mean_surface_distance_mm(
    a: np.ndarray, b: np.ndarray, grid: Geometry | tuple[float, float, float]
) -> float:
    """Mean distance over both surfaces: nan when both masks are empty, infinite when one is."""
    return surface_distances(a, b, grid).mean_mm()


def _percentile(distances_mm: np.ndarray, area_mm2: np.ndarray, percent: float) -> float:
    """Smallest distance within which ``percent`` of the area lies."""
    share = np.cumsum(area_mm2) / area_mm2.sum()
    first = int(np.searchsorted(share, percent / 100.0))
    return float(distances_mm[min(first, len(distances_mm) - 1)])


@dataclass(frozen=True, eq=False)
class _Layers:
    """Where the layers of corners between slices lie: ``origins_mm`` (n, 3) of each layer's first corner;
    ``steps_mm`` (n, 3, 3) from slice to slice, row to row and column to column there; ``spacing_mm`` where
    one affine says it all."""

    origins_mm: np.ndarray
    steps_mm: np.ndarray
    spacing_mm: tuple[float, float, float] | None = None

    @classmethod
    def even(cls, spacing_mm: tuple[float, float, float], count: int) -> _Layers:
        steps = np.diag(spacing_mm)
        return cls(np.arange(count)[:, None] * steps[0], np.broadcast_to(steps, (count, 3, 3)), spacing_mm)

    @classmethod
    def of(cls, geometry: Geometry, slices: slice) -> _Layers:
        """The layers below, between and above ``slices``; beyond an end slice its only gap is repeated."""
        if geometry.shape[0] < 2:
            raise GeometryError("one slice has no slice spacing; at least two slices are needed here.")
        origins = geometry.origins_lps_mm
        origins = np.concatenate([[2 * origins[0] - origins[1]], origins, [2 * origins[-1] - origins[-2]]])
        origins = origins[slices.start : slices.stop + 2]
        steps = np.empty((len(origins) - 1, 3, 3))
        steps[:, 0] = np.diff(origins, axis=0)
        steps[:, 1:] = geometry.row_step_lps_mm, geometry.column_step_lps_mm
        return cls((origins[1:] + origins[:-1]) / 2, steps)

    def points_mm(self, flat: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """float64 (n, 3): places of corners, given by their flat index in an array of all of them."""
        layer, row, column = np.unravel_index(flat, shape)
        return (
            self.origins_mm[layer]
            + row[:, None] * self.steps_mm[0, 1]
            + column[:, None] * self.steps_mm[0, 2]
        )

    def areas_mm2(self, flat: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """float64 (n,): area of the surface in the neighbourhood of each corner."""
        kinds, kind = np.unique(np.round(self.steps_mm, 9).reshape(-1, 9), axis=0, return_inverse=True)
        tables = np.stack([area_by_code(tuple(steps.tolist())) for steps in kinds])
        layer = flat // (codes.shape[1] * codes.shape[2])
        return tables[np.ravel(kind)[layer], codes.ravel()[flat]]


def _one_way(codes: np.ndarray, other_codes: np.ndarray, layers: _Layers) -> tuple[np.ndarray, np.ndarray]:
    """Distance from every surface element to the nearest of the other surface, ascending, and the elements'
    areas."""
    elements, is_other = np.flatnonzero(is_surface(codes, 255)), is_surface(other_codes, 255)
    area_mm2 = layers.areas_mm2(elements, codes)
    others = np.flatnonzero(is_other)
    distances_mm = np.full(len(elements), np.inf)
    if others.size:
        if (
            layers.spacing_mm
        ):  # compared surfaces lie close together, so most elements need few steps to the other
            distances_mm = look_up(elements, is_other, *_nearest_offsets(layers.spacing_mm))
        far = np.isinf(distances_mm)
        if far.any():
            # Points on a grid: compact nodes make the search of this tree up to ten times slower.
            points_mm = layers.points_mm(others, codes.shape)
            tree = KDTree(points_mm, balanced_tree=False, compact_nodes=False)
            distances_mm[far], _ = tree.query(layers.points_mm(elements[far], codes.shape))
    order = np.argsort(distances_mm, kind="stable")
    return distances_mm[order], area_mm2[order]


@lru_cache(maxsize=16)
def _nearest_offsets(spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest index offsets (n, 3), ascending by their lengths (n,) in mm; none that is left out is
    shorter."""
    span = slice(-OFFSET_REACH, OFFSET_REACH + 1)
    offsets = np.mgrid[span, span, span].reshape(3, -1).T
    lengths_mm = np.linalg.norm(offsets * spacing_mm, axis=1)
    complete = lengths_mm < (OFFSET_REACH + 1) * min(
        spacing_mm
    )  # what lies beyond the reach along an axis is farther
    order = np.argsort(lengths_mm, kind="stable")
    order = order[complete[order]][:NEAR_OFFSETS]
    return offsets[order], lengths_mm[order]


def look_up(
    elements: np.ndarray, is_other: np.ndarray, offsets: np.ndarray, lengths_mm: np.ndarray
) -> np.ndarray:
    """float64 (n,): length of the first of the ascending ``offsets`` that leads to another element; inf where
    none does.

    ``elements``: flat indices in the array ``is_other``, whose border offsets may leave.
    """
    margin = np.abs(offsets).max(axis=0, initial=0)
    padded = np.pad(is_other, [(size, size) for size in margin])
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    places = np.stack(np.unravel_index(elements, is_other.shape), axis=1) + margin
    flat, found_mm = padded.ravel(), np.full(len(elements), np.inf)
    waiting, places = np.arange(len(elements)), places @ strides
    for step, length_mm in zip((offsets @ strides).tolist(), lengths_mm.tolist(), strict=True):
        hit = flat[places + step]
        if hit.any():
            found_mm[waiting[hit]] = length_mm
            waiting, places = waiting[~hit], places[~hit]
            if not waiting.size:
                break
    return found_mm
