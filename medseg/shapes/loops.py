"""Polygons to the loops of points that a structure set holds: thinned, with holes, slice by slice."""

from __future__ import annotations

import numpy as np

from medseg.errors import GeometryError, StructureError
from medseg.geometry import Geometry
from medseg.shapes.outlines import (
    Polygon,
    cut_stairs,
    mask_if_binary,
    mask_polygons,
    probability_polygons,
)

HOLE_MODES = {"keyhole": "CLOSED_PLANAR", "nested": "CLOSED_PLANAR", "xor": "CLOSEDPLANAR_XOR"}
"""How a loop with a hole is written, with its Contour Geometric Type (DICOM PS3.3 C.8.8.6.1 and
C.8.8.6.3)."""


def simplify(
    polygons: list[Polygon], tolerance_mm: float, pixel_spacing_mm: tuple[float, float]
) -> list[Polygon]:
    """Fewer vertices, with every outline within ``tolerance_mm`` (Hausdorff distance, both ways) of the given
    one.

    Douglas-Peucker that keeps the topology (JTS); no polygon and no hole is ever dropped. A slice for which
    that cannot be had is left as it was. ``pixel_spacing_mm`` is (between rows, between columns).
    StructureError for a tolerance below 0.
    """
    import shapely  # here, because most contours are never simplified and it loads slowly

    if not 0 <= tolerance_mm < np.inf:
        raise StructureError(f"simplification by {tolerance_mm} mm: expected 0 or more.")
    spacing = np.asarray(pixel_spacing_mm, dtype=np.float64)
    given = shapely.MultiPolygon(
        [(p.exterior * spacing, [hole * spacing for hole in p.holes]) for p in polygons]
    )

    def rings(shape) -> list:
        return [ring for part in shapely.get_parts(shape) for ring in (part.exterior, *part.interiors)]

    # GEOS may also drop the vertex at which a ring starts, which can double the distance: then half of it is
    # asked for.
    for asked_mm in (tolerance_mm, tolerance_mm / 2):
        simple = shapely.simplify(given, asked_mm, preserve_topology=True)
        holes = [len(part.interiors) for part in shapely.get_parts(simple)]
        if not simple.is_valid or holes != [len(p.holes) for p in polygons]:
            continue
        if np.max(shapely.hausdorff_distance(rings(given), rings(simple)), initial=0.0) <= tolerance_mm:
            open_rings = [shapely.get_coordinates(ring)[:-1] / spacing for ring in rings(simple)]
            return [Polygon(open_rings.pop(0), tuple(open_rings.pop(0) for _ in range(n))) for n in holes]
    return polygons


def encode_holes(polygons: list[Polygon], mode: str) -> tuple[list[np.ndarray], str]:
    """Loops (n, 2) that carry the polygons in a file that knows only loops, and their Contour Geometric Type.

    ``mode`` "keyhole": one loop per polygon, joined to its holes by channels of no width, which run along a
    row inside the polygon; on a mask's polygons they keep half a pixel away from voxel centres. "nested":
    exteriors and holes as separate loops of type CLOSED_PLANAR. "xor": the same loops, typed
    CLOSEDPLANAR_XOR. The even-odd rule over all loops gives the polygons back in every mode. StructureError
    for another mode.
    """
    if mode not in HOLE_MODES:
        raise StructureError(f"hole encoding {mode!r}: expected one of {', '.join(HOLE_MODES)}.")
    if mode == "keyhole":
        loops = [_keyhole(polygon) for polygon in polygons]
    else:
        loops = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.holes)]
    return loops, HOLE_MODES[mode]


def _keyhole(polygon: Polygon) -> np.ndarray:
    """One loop: from left to right, each hole is joined by a channel from its leftmost vertex to the next
    outline.

    What lies to the left was joined before, so a channel never meets an outline that is still to come.
    """
    turned = []
    for hole in polygon.holes:
        turned.append(np.roll(hole, -int(np.lexsort((hole[:, 0], hole[:, 1]))[0]), axis=0))
    loop = polygon.exterior
    for hole in sorted(turned, key=lambda ring: (ring[0, 1], ring[0, 0])):
        row, column = hole[0]
        start, end = loop, np.roll(loop, -1, axis=0)
        rise = end[:, 0] - start[:, 0]
        edges = np.flatnonzero(((start[:, 0] - row) * (end[:, 0] - row) <= 0) & (rise != 0))
        met = start[edges, 1] + (row - start[edges, 0]) / rise[edges] * (end[edges, 1] - start[edges, 1])
        met[met > column + 1e-9] = -np.inf
        best = int(met.argmax())
        edge, landing = int(edges[best]), np.array([[row, met[best]]])
        on_start = np.abs(landing - start[edge]).max() < 1e-9
        if not on_start and np.abs(landing - end[edge]).max() < 1e-9:
            edge, on_start = (edge + 1) % len(loop), True
        before = loop[: edge + 1] if on_start else np.concatenate([loop[: edge + 1], landing])
        touches = np.abs(before[-1] - hole[0]).max() < 1e-9
        back = before[-1:] if touches else np.concatenate([hole[:1], before[-1:]])
        loop = np.concatenate([before, hole[1:] if touches else hole, back, loop[edge + 1 :]])
    return loop


def structure_loops(
    volume: np.ndarray,
    geometry: Geometry,
    holes: str = "keyhole",
    simplify_mm: float = 0.0,
    level: float = 0.5,
    corner: tuple[int, ...] | None = None,
) -> tuple[dict[int, list[np.ndarray]], str]:
    """The loops of one structure as {slice index: [loop (n, 2), ...]}, without empty slices, and their
    geometric type.

    ``volume`` [slice, row, column]: a bool mask, or a map of nothing but 0 and 1, is bounded by its pixel
    edges with the stairs cut (cut_stairs), any other float map is contoured at ``level``. ``holes`` and
    ``simplify_mm`` (0: every vertex) are as in encode_holes and simplify. The type is CLOSEDPLANAR_XOR only
    for a structure that has a hole, because all loops of a structure share it. An empty volume gives no
    slices. ``corner``: the voxel of the grid where ``volume`` begins, when it is only the part of the grid
    outside of which nothing is set; the loops are the same. GeometryError when the volume's shape is not the
    geometry's, or the part leaves it.
    """
    volume = np.asarray(volume)
    first, *in_plane = corner or (0, 0, 0)
    if not _fits(volume.shape, corner, geometry.shape):
        at = "" if corner is None else f" at {corner}"
        raise GeometryError(
            f"mask of shape {volume.shape}{at} on an image of {geometry.shape} (slices, rows, columns)."
        )
    volume = mask_if_binary(volume)
    loops, any_hole, geometric_type = {}, False, HOLE_MODES["nested"]
    for index, plane in enumerate(volume, start=first):
        if volume.dtype.kind == "f":
            polygons = probability_polygons(plane, level)
        else:
            polygons = cut_stairs(mask_polygons(plane))
        if simplify_mm != 0:
            polygons = simplify(polygons, simplify_mm, geometry.pixel_spacing_mm)
        if polygons:
            any_hole = any_hole or any(polygon.holes for polygon in polygons)
            found, geometric_type = encode_holes(polygons, holes)
            loops[index] = [loop + in_plane for loop in found]
    return loops, geometric_type if any_hole else HOLE_MODES["nested"]


def _fits(shape: tuple[int, ...], corner: tuple[int, ...] | None, grid: tuple[int, ...]) -> bool:
    """Whether an array is as large as the grid, or as a part that begins at ``corner`` lies within it."""
    if corner is None or len(shape) != len(grid):
        return shape == grid
    return all(0 <= low and low + n <= most for low, n, most in zip(corner, shape, grid, strict=True))
