"""How far two masks agree, with the unit in every name and the answer for empty masks stated.

Surface measures follow DeepMind's surface-distance: surface elements sit at the corners between voxels and
have the area that marching cubes gives their 2x2x2 neighbourhood. On uneven or tilted slices each element
lies where its own slices put it and has the area of the triangles between their voxel centres, so nothing is
resampled. Other implementations differ by up to 11 points of surface Dice on the same masks, so print
SURFACE_DEFINITION, the tolerance and the voxel grid beside every number.

Empty masks: with both empty there is nothing to compare and every measure is nan (leave it out of means);
with one empty, overlaps are 0 and distances are infinite. The added path length is a length to draw, so it is
0 without a reference.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from scipy.spatial import KDTree

from medseg.errors import GeometryError
from medseg.geometry import Geometry

SURFACE_DEFINITION = "surface elements of DeepMind surface-distance (marching-cube areas), area-weighted"
PATH_DEFINITION = (
    "marching-square length of the reference outline, slice by slice, where the other outline is farther away"
)

NEAR_OFFSETS, OFFSET_REACH = 1500, 12
"""So many offsets, the nearest ones, are looked up one by one before a tree is asked, and so many voxels they
may reach. They cover about 10 mm at 1 x 1 x 3 mm; looking an element up takes at most a third of the time of
asking the tree."""


def dice(a: np.ndarray, b: np.ndarray, geometry: Geometry | None = None) -> float:
    """Twice the common volume over the volume of both bool masks. nan when both are empty, 0 when one is.

    Voxels are counted; with a ``geometry``, each counts by the height of its slice, which matters on uneven
    stacks alone. GeometryError for masks of different shapes, or of another shape than the geometry.
    """
    _require_same_shape(a, b)
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
    spacing that is not three positive numbers, and for a single slice, whose height is not known.
    """
    _require_same_shape(a, b)
    if isinstance(grid, Geometry) and grid.shape != a.shape:
        raise GeometryError(f"masks of shape {a.shape} on an image of {grid.shape} (slices, rows, columns).")
    box = _common_box(a, b)
    codes_a, codes_b = _neighbourhood_codes(a[box]), _neighbourhood_codes(b[box])
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
    _triangles_by_code()  # once, before two threads ask for it
    with ThreadPoolExecutor(
        2
    ) as threads:  # NumPy and the tree leave Python's lock, so two cores share the work
        there, back = threads.map(
            lambda pair: _directed(*pair, layers), [(codes_a, codes_b), (codes_b, codes_a)]
        )
    return SurfaceDistances(*there, *back)


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
    _require_same_shape(reference, other)
    if geometry.shape != reference.shape:
        raise GeometryError(
            f"masks of shape {reference.shape} on an image of {geometry.shape} (slices, rows, columns)."
        )
    box = _common_box(reference, other)
    codes, other_codes = _outline_codes(reference[box]), _outline_codes(other[box])
    row_mm, column_mm = geometry.pixel_spacing_mm
    elements = np.flatnonzero(_is_surface(codes, 15))
    length_mm = _length_by_code(row_mm, column_mm)[codes.ravel()[elements]]
    is_other = _is_surface(other_codes, 15)
    rows, columns = (min(int(tolerance_mm / mm), OFFSET_REACH) for mm in (row_mm, column_mm))
    offsets = np.mgrid[0:1, -rows : rows + 1, -columns : columns + 1].reshape(3, -1).T
    distances_mm = np.linalg.norm(offsets * (0, row_mm, column_mm), axis=1)
    order = np.argsort(distances_mm, kind="stable")
    order = order[distances_mm[order] <= tolerance_mm]
    lacking = np.isinf(_look_up(elements, is_other, offsets[order], distances_mm[order]))
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


def _require_same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise GeometryError(f"masks of shape {a.shape} and {b.shape}: expected the same voxel grid.")


def _percentile(distances_mm: np.ndarray, area_mm2: np.ndarray, percent: float) -> float:
    """Smallest distance within which ``percent`` of the area lies."""
    share = np.cumsum(area_mm2) / area_mm2.sum()
    return float(distances_mm[min(np.searchsorted(share, percent / 100.0), len(distances_mm) - 1)])


def _common_box(a: np.ndarray, b: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds both masks; an empty box for two empty ones."""
    either, box = a | b, []
    for axis in range(3):
        occupied = np.flatnonzero(either.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0))
    return tuple(box)


def _neighbourhood_codes(mask: np.ndarray) -> np.ndarray:
    """uint8 at every corner between voxels: a bit for each of its 8 voxels, earlier ones higher; 0, 255: no
    surface."""
    codes = np.pad(mask, 1).astype(np.uint8)
    codes = codes[:, :, :-1] << np.uint8(1) | codes[:, :, 1:]
    codes = codes[:, :-1] << np.uint8(2) | codes[:, 1:]
    return codes[:-1] << np.uint8(4) | codes[1:]


def _is_surface(codes: np.ndarray, full: int) -> np.ndarray:
    """bool: where a neighbourhood is neither empty (0) nor ``full``; subtraction wraps 0 round to 255."""
    return codes - np.uint8(1) < full - 1


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
        tables = np.stack([_area_by_code(tuple(steps.tolist())) for steps in kinds])
        layer = flat // (codes.shape[1] * codes.shape[2])
        return tables[np.ravel(kind)[layer], codes.ravel()[flat]]


def _directed(codes: np.ndarray, other_codes: np.ndarray, layers: _Layers) -> tuple[np.ndarray, np.ndarray]:
    """Distance from every surface element to the nearest of the other surface, ascending, and the elements'
    areas."""
    elements, is_other = np.flatnonzero(_is_surface(codes, 255)), _is_surface(other_codes, 255)
    area_mm2 = layers.areas_mm2(elements, codes)
    others = np.flatnonzero(is_other)
    distances_mm = np.full(len(elements), np.inf)
    if others.size:
        if (
            layers.spacing_mm
        ):  # compared surfaces lie close together, so most elements need few steps to the other
            distances_mm = _look_up(elements, is_other, *_nearest_offsets(layers.spacing_mm))
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


def _look_up(
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


# ---- marching squares and cubes ----------------------------------------------------------------------------


def _outline_codes(mask: np.ndarray) -> np.ndarray:
    """uint8 at every corner between the pixels of each slice: a bit for each of its 4 pixels; 0, 15: no
    outline."""
    codes = np.pad(mask, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    codes = codes[:, :, :-1] << np.uint8(1) | codes[:, :, 1:]
    return codes[:, :-1] << np.uint8(2) | codes[:, 1:]


def _length_by_code(row_mm: float, column_mm: float) -> np.ndarray:
    """float64 (16,): length in mm of the outline between the 4 pixel centres of each code, crossing edges
    half-way."""
    slant_mm = np.hypot(row_mm, column_mm) / 2
    by_count = {1: slant_mm, 2: 2 * slant_mm, 3: slant_mm}
    lengths_mm = [by_count.get(code.bit_count(), 0.0) for code in range(16)]
    lengths_mm[0b0011] = lengths_mm[0b1100] = column_mm  # the two pixels of one row are set
    lengths_mm[0b0101] = lengths_mm[0b1010] = row_mm
    return np.array(lengths_mm)


@lru_cache(maxsize=256)
def _area_by_code(steps_mm: tuple[float, ...]) -> np.ndarray:
    """float64 (256,): area in mm2 of the surface between the 8 voxel centres of each neighbourhood code.

    ``steps_mm``: nine numbers, the vectors from slice to slice, row to row and column to column.
    """
    triangles = _triangles_by_code() @ np.reshape(steps_mm, (3, 3))
    sides = triangles[:, :, 1:] - triangles[:, :, :1]
    return np.linalg.norm(np.cross(sides[:, :, 0], sides[:, :, 1]), axis=-1).sum(axis=1) / 2


@lru_cache(maxsize=1)
def _triangles_by_code() -> np.ndarray:
    """float64 (256, 4, 3, 3): up to four triangles of three points of each code, in voxels; the rest have no
    area.

    Lorensen and Cline's marching cubes (1987): the surface crosses the cube's edges half-way, and where a
    face allows two ways, it cuts off the corners of the rarer kind. Of the ways to fill a bent loop with
    triangles, the one of largest area is taken; this gives the areas of DeepMind's table, as a test shows at
    several spacings.
    """
    table = np.zeros((256, 4, 3, 3))
    for code in range(256):
        triangles = [triangle for loop in _cube_loops(code) for triangle in _largest_filling(loop)]
        table[code, : len(triangles)] = np.reshape(triangles, (-1, 3, 3))
    return table


def _cube_loops(code: int) -> list[tuple]:
    """The closed loops of points in which the surface of a neighbourhood code crosses the faces of its unit
    cube."""
    rarer = int(code.bit_count() <= 4)
    links: dict[tuple, list[tuple]] = {}
    for axis, side in np.ndindex(3, 2):
        corners = [np.insert([i, j], axis, side) for i, j in ((0, 0), (0, 1), (1, 1), (1, 0))]
        is_set = [code >> int(7 - corner @ [4, 2, 1]) & 1 for corner in corners]
        middles = [tuple((corners[n] + corners[(n + 1) % 4]) / 2) for n in range(4)]
        crossed = [n for n in range(4) if is_set[n] != is_set[(n + 1) % 4]]
        pairs = (
            [crossed]
            if len(crossed) == 2
            else [(n - 1, n) for n in range(4) if crossed and is_set[n] == rarer]
        )
        for first, second in pairs:
            links.setdefault(middles[first], []).append(middles[second])
            links.setdefault(middles[second], []).append(middles[first])
    loops = []
    while links:
        here = next(iter(links))
        loop = []
        while here in links:
            loop.append(here)
            here = next((point for point in links.pop(here) if point in links), None)
        loops.append(tuple(loop))
    return loops


@cache
def _largest_filling(loop: tuple[tuple[float, float, float], ...]) -> tuple[tuple, ...]:
    """The triangles, three points each, between the points of a loop that together have the largest area."""
    if len(loop) < 3:
        return ()
    fillings = [
        (*_largest_filling(loop[: apex + 1]), (loop[0], loop[apex], loop[-1]), *_largest_filling(loop[apex:]))
        for apex in range(1, len(loop) - 1)
    ]
    return max(fillings, key=lambda triangles: sum(map(_double_area, triangles)))


@cache
def _double_area(triangle: tuple[tuple[float, float, float], ...]) -> float:
    a, b, c = np.array(triangle)
    return float(np.linalg.norm(np.cross(b - a, c - a)))
