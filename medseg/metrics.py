"""How far two masks agree, with the unit in every name and the answer for empty masks stated.

Surface measures follow DeepMind's surface-distance: surface elements sit at the corners between voxels and have the
area that marching cubes gives their 2x2x2 neighbourhood. Other implementations differ by up to 11 points of surface
Dice on the same masks, so print SURFACE_DEFINITION, the tolerance and the voxel grid beside every number.

Empty masks: with both empty there is nothing to compare and every measure is nan (leave it out of means); with one
empty, overlaps are 0 and distances are infinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import KDTree

from medseg.errors import GeometryError
from medseg.geometry import Geometry

SURFACE_DEFINITION = "surface elements of DeepMind surface-distance (marching-cube areas), area-weighted"


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Twice the common voxels over all voxels of both bool masks. nan when both are empty, 0 when one is."""
    _require_same_shape(a, b)
    both = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / both if both else float("nan")


def volume_cc(mask: np.ndarray, geometry: Geometry) -> float:
    """Set voxels of a bool mask [slice, row, column] times their volume, slice by slice, in cubic centimetres.

    An end slice counts as thick as its inner neighbour's gap. An empty mask has 0. A mask on a single slice stack has
    nan: its height is not known. GeometryError for a mask of another shape.
    """
    if mask.shape != geometry.shape:
        raise GeometryError(f"mask of shape {mask.shape} on an image of {geometry.shape} (slices, rows, columns).")
    return float(np.count_nonzero(mask, axis=(1, 2)) @ geometry.voxel_volumes_cc)


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Each surface element's distance in mm to the other surface, ascending, and its area in mm2, for both masks."""

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
            _percentile(self.from_a_mm, self.area_a_mm2, percent), _percentile(self.from_b_mm, self.area_b_mm2, percent)
        )

    def mean_mm(self) -> float:
        """Mean distance over both surfaces together, by area."""
        if not (self.from_a_mm.size and self.from_b_mm.size):
            return self._empty_answer()
        whole_mm2 = self.area_a_mm2.sum() + self.area_b_mm2.sum()
        return float((self.from_a_mm @ self.area_a_mm2 + self.from_b_mm @ self.area_b_mm2) / whole_mm2)

    def _empty_answer(self) -> float:
        return float("inf") if self.from_a_mm.size or self.from_b_mm.size else float("nan")


def surface_distances(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, float, float]) -> SurfaceDistances:
    """Both directions of surface distance between bool masks of one shape; ``spacing_mm`` is one number per array axis.

    For a Geometry, its ``spacing_mm`` (which refuses uneven slices). A structure that touches the image border has a
    surface there. GeometryError for unequal shapes and for a spacing that is not three positive numbers.
    """
    _require_same_shape(a, b)
    spacing_mm = tuple(float(value) for value in spacing_mm)
    if a.ndim != 3 or len(spacing_mm) != 3 or not all(0 < value < np.inf for value in spacing_mm):
        raise GeometryError(f"masks of shape {a.shape} with spacing {spacing_mm} mm: expected three axes and spacings.")
    box = _common_box(a, b)
    codes_a, codes_b = _neighbourhood_codes(a[box]), _neighbourhood_codes(b[box])
    return SurfaceDistances(*_directed(codes_a, codes_b, spacing_mm), *_directed(codes_b, codes_a, spacing_mm))


def surface_dice(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, float, float], tolerance_mm: float) -> float:
    """SurfaceDistances.dice of two masks: nan when both are empty, 0 when one is."""
    return surface_distances(a, b, spacing_mm).dice(tolerance_mm)


def hd95_mm(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """95th percentile Hausdorff distance: nan when both masks are empty, infinite when one is."""
    return surface_distances(a, b, spacing_mm).hausdorff_mm(95.0)


def mean_surface_distance_mm(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Mean distance over both surfaces: nan when both masks are empty, infinite when one is."""
    return surface_distances(a, b, spacing_mm).mean_mm()


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
    """uint8 at every corner between voxels: a bit for each of its 8 voxels, earlier ones higher; 0, 255: no surface."""
    codes = np.pad(mask, 1).astype(np.uint8)
    codes = codes[:, :, :-1] << np.uint8(1) | codes[:, :, 1:]
    codes = codes[:, :-1] << np.uint8(2) | codes[:, 1:]
    return codes[:-1] << np.uint8(4) | codes[1:]


def _directed(codes: np.ndarray, other_codes: np.ndarray, spacing_mm: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Distance from every surface element to the nearest of the other surface, ascending, and the elements' areas."""
    # Codes 1 ... 254; subtraction wraps 0 round to 255.
    elements, others = (np.flatnonzero((c - np.uint8(1)).ravel() < 254) for c in (codes, other_codes))
    area_mm2 = _area_by_code(spacing_mm)[codes.ravel()[elements]]
    if not others.size:
        return np.full(len(elements), np.inf), area_mm2
    other_code = other_codes.ravel()[elements]
    apart = (other_code == 0) | (other_code == 255)
    distances_mm = np.zeros(len(elements))
    if apart.any():
        # Compared surfaces mostly lie close together, where a tree is many times faster than a distance map.
        tree = KDTree(np.stack(np.unravel_index(others, codes.shape), axis=1) * spacing_mm, balanced_tree=False)
        points_mm = np.stack(np.unravel_index(elements[apart], codes.shape), axis=1) * spacing_mm
        distances_mm[apart], _ = tree.query(points_mm)
    order = np.argsort(distances_mm, kind="stable")
    return distances_mm[order], area_mm2[order]


# ---- marching cubes ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _area_by_code(spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """float64 (256,): area in mm2 of the surface between the 8 voxel centres of each neighbourhood code."""
    triangles = _triangles_by_code() * np.array(spacing_mm)
    sides = triangles[:, :, 1:] - triangles[:, :, :1]
    return np.linalg.norm(np.cross(sides[:, :, 0], sides[:, :, 1]), axis=-1).sum(axis=1) / 2


@lru_cache(maxsize=1)
def _triangles_by_code() -> np.ndarray:
    """float64 (256, 4, 3, 3): up to four triangles of three points of each code, in voxels; the rest have no area.

    Lorensen and Cline's marching cubes (1987): the surface crosses the cube's edges half-way, and where a face allows
    two ways, it cuts off the corners of the rarer kind. Of the ways to fill a bent loop with triangles, the one of
    largest area is taken; this gives the areas of DeepMind's table, as a test shows at several spacings.
    """
    table = np.zeros((256, 4, 3, 3))
    for code in range(256):
        triangles = [triangle for loop in _cube_loops(code) for triangle in _largest_filling(loop)]
        table[code, : len(triangles)] = np.reshape(triangles, (-1, 3, 3))
    return table


def _cube_loops(code: int) -> list[np.ndarray]:
    """The closed loops (n, 3) in which the surface of a neighbourhood code crosses the faces of its unit cube."""
    rarer = int(code.bit_count() <= 4)
    links: dict[tuple, list[tuple]] = {}
    for axis, side in np.ndindex(3, 2):
        corners = [np.insert([i, j], axis, side) for i, j in ((0, 0), (0, 1), (1, 1), (1, 0))]
        is_set = [code >> int(7 - corner @ [4, 2, 1]) & 1 for corner in corners]
        middles = [tuple((corners[n] + corners[(n + 1) % 4]) / 2) for n in range(4)]
        crossed = [n for n in range(4) if is_set[n] != is_set[(n + 1) % 4]]
        pairs = [crossed] if len(crossed) == 2 else [(n - 1, n) for n in range(4) if crossed and is_set[n] == rarer]
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
        loops.append(np.array(loop))
    return loops


def _largest_filling(loop: np.ndarray) -> list[np.ndarray]:
    """The triangles (3, 3) between the points (n, 3) of a loop that together have the largest area."""
    if len(loop) < 3:
        return []
    fillings = [
        [*_largest_filling(loop[: apex + 1]), loop[[0, apex, -1]], *_largest_filling(loop[apex:])]
        for apex in range(1, len(loop) - 1)
    ]
    return max(fillings, key=lambda triangles: sum(np.linalg.norm(np.cross(b - a, c - a)) for a, b, c in triangles))
