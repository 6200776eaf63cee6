"""Balls and boxes grown and shrunk, against closed forms, on even, uneven and tilted grids.

    python tools/benchmarks/margin/run.py

What contours on these slices can show at best is the exact section of the exact shape on each slice,
times its height; "off" compares with that, and "sections off" is what those sections themselves miss of
the closed form (Steiner's formula: a box grown by a ball is its own volume, its faces times the margin,
quarter cylinders along its edges, and a ball of its corners; six directions make them elliptic). The
start is given as it was drawn (outlines on every slice, as in a structure set) and as a mask of voxel
centres, whose own volume may be off before anything grows ("start off"). "Inside" is how far the farthest
contour point of the result lies inside the exact surface, and "inside voxels" how far inside that of the
mask's voxel centres, each grown by the margin: all that a mask is sure of.
"SimpleITK off" is the usual way: voxels within the margin of a set voxel by SignedMaurerDistanceMap,
where it can be used.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.spatial import cKDTree

from medseg.geometry import Geometry
from medseg.metrics import volume_cc
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm
from medseg.shapes.drawn import outline_map
from medseg.shapes.margins import crop, expand
from medseg.shapes.outlines import probability_polygons

GRIDS = {
    "1 x 1 x 1 mm": ((120, 130, 130), 1.0, (1.0, 1.0)),
    "0.98 x 0.98 x 3 mm": ((42, 130, 130), 3.0, (0.977, 0.977)),
    "1.25 x 2.5 x 5 mm": ((26, 52, 104), 5.0, (2.5, 1.25)),
    "0.98 x 0.98 x 1, 2 and 4 mm": (
        (55, 130, 130),
        [2.0] * 15 + [1.0] * 20 + [4.0] * 9 + [2.0] * 10,
        (0.977, 0.977),
    ),
    "1 x 1 x 3 mm, gantry 15 degrees": ((42, 170, 130), 3.0, (1.0, 1.0)),
}
"""Shape, gaps between slices and pixel spacing (row, column) in mm."""

SIX_MM = {"left": 7.0, "right": 5.0, "anterior": 5.0, "posterior": 8.0, "superior": 10.0, "inferior": 10.0}


def geometry_of(name: str) -> Geometry:
    shape, gaps_mm, pixel_mm = GRIDS[name]
    return stack_geometry(
        shape, gaps_mm=gaps_mm, pixel_spacing_mm=pixel_mm, tilt_degrees=15 if "gantry" in name else 0
    )


def from_middle_lps_mm(geometry: Geometry) -> np.ndarray:
    """float64 [slice, row, column, 3]: voxel centres, seen from a point near the middle that is no voxel's
    centre."""
    points = np.stack([voxel_points_lps_mm(geometry, index) for index in range(geometry.shape[0])])
    middle = points[geometry.shape[0] // 2].reshape(-1, 3).mean(0)
    return points - middle - [0.31, 0.17, 0.23]


def grown_box_cc(sides_mm: np.ndarray, mm: dict[str, float]) -> float:
    """A box grown by the eighths of ellipsoids: faces by their own margins, quarter ellipses and eighths of
    ellipsoids."""
    pairs = [(mm["left"], mm["right"]), (mm["anterior"], mm["posterior"]), (mm["superior"], mm["inferior"])]
    total = float(np.prod(sides_mm))
    for axis in range(3):
        u, v = [other for other in range(3) if other != axis]
        total += sides_mm[u] * sides_mm[v] * sum(pairs[axis])
        total += sides_mm[axis] * np.pi / 4 * sum(pairs[u]) * sum(pairs[v])
    return (total + np.pi / 6 * np.prod([sum(pair) for pair in pairs])) / 1000


def box_sections_cc(geometry: Geometry, ends_mm, sides_mm: np.ndarray, mm: dict[str, float]) -> float:
    """Exact sections of the grown box, times the slices' heights; ``ends_mm``: its lowest and highest z."""
    heights_mm = geometry.slice_positions_mm
    below, above = ((ends_mm[0] - heights_mm) / mm["inferior"], (heights_mm - ends_mm[1]) / mm["superior"])
    beyond = np.maximum(np.maximum(below, above), 0)
    part = np.sqrt(np.maximum(1 - beyond**2, 0))
    across, along = (part * (mm[a] + mm[b]) for a, b in (("left", "right"), ("anterior", "posterior")))
    area = sides_mm[0] * sides_mm[1] + across * sides_mm[1] + along * sides_mm[0] + np.pi / 4 * across * along
    return float(np.where(beyond < 1, area, 0) @ geometry.slice_thickness_mm) / 1000


def ball_sections_cc(heights_mm: np.ndarray, geometry: Geometry, radius_mm: float) -> float:
    """Exact sections of a ball, times the slices' heights; ``heights_mm``: of the slices over its middle."""
    areas = np.pi * np.maximum(radius_mm**2 - heights_mm**2, 0)
    return float(areas @ geometry.slice_thickness_mm) / 1000


def drawn_ball(geometry: Geometry, points: np.ndarray, radius_mm: float) -> np.ndarray:
    """A ball as the outlines of its sections, 0.2 mm fine, make it a map."""
    inside = np.linalg.norm(points, axis=-1) <= radius_mm
    outlines = {}
    for index in range(geometry.shape[0]):
        height_mm = float(points[index, 0, 0] @ geometry.normal_lps)
        if abs(height_mm) < radius_mm:
            turn = np.linspace(0, 2 * np.pi, 720, endpoint=False)[:, None]
            row, column = (
                step / np.linalg.norm(step)
                for step in (geometry.row_step_lps_mm, geometry.column_step_lps_mm)
            )
            around = np.sqrt(radius_mm**2 - height_mm**2) * (np.cos(turn) * row + np.sin(turn) * column)
            middle = geometry.origins_lps_mm[index] - points[index, 0, 0] + height_mm * geometry.normal_lps
            outlines[index] = [geometry.rows_columns(index, middle + around)]
    return outline_map(inside, outlines, geometry)


def contour_points_lps_mm(grown: np.ndarray, geometry: Geometry) -> np.ndarray:
    return np.concatenate(
        [
            geometry.points_lps_mm(index, polygon.exterior)
            for index, plane in enumerate(grown)
            for polygon in probability_polygons(plane)
        ]
    )


def inside_mm(contours: np.ndarray, geometry: Geometry, points: np.ndarray, radius_mm: float) -> float:
    """How far the farthest contour point lies inside a ball of ``radius_mm``."""
    middle = geometry.origins_lps_mm[0] - points[0, 0, 0]
    return max(0.0, radius_mm - float(np.linalg.norm(contours - middle, axis=1).min()))


def inside_voxels_mm(contours: np.ndarray, geometry: Geometry, mask: np.ndarray, margin_mm: float) -> float:
    """How far the farthest contour point lies inside balls of ``margin_mm`` around the voxel centres of a
    mask."""
    centres = [geometry.points_lps_mm(index, np.argwhere(plane)) for index, plane in enumerate(mask)]
    found, _ = cKDTree(np.concatenate(centres)).query(contours)
    return max(0.0, margin_mm - float(found.min()))


def by_distance_map_cc(mask: np.ndarray, geometry: Geometry, mm) -> float:
    """The volume that SimpleITK's distance map gives, cut at the margin: the usual way; nan where it cannot
    be had."""
    if not geometry.is_regular or isinstance(mm, dict) or mm < 0:
        return float("nan")
    import SimpleITK

    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(geometry.spacing_mm[::-1])
    distance = SimpleITK.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return volume_cc(SimpleITK.GetArrayFromImage(distance) <= mm, geometry)


def print_row(cells, start, geometry: Geometry, mm, exact_cc: tuple[float, float, float], ball=None) -> None:
    """``exact_cc``: (closed form, exact sections) of the result, sections of the start; ``ball``: (points,
    radius of the result)."""
    began = time.process_time()
    grown = expand(start, geometry, mm)
    seconds = time.process_time() - began
    closed_cc, sections_cc, start_cc = exact_cc
    found_cc = volume_cc(grown, geometry)
    is_mask = start.dtype == bool
    usual_cc = by_distance_map_cc(start, geometry, mm) if is_mask else float("nan")
    inside, inside_voxels = "", ""
    if ball:
        contours = contour_points_lps_mm(grown, geometry)
        inside = f"{inside_mm(contours, geometry, *ball):.2f} mm"
        if is_mask and mm > 0:
            inside_voxels = f"{inside_voxels_mm(contours, geometry, start, mm):.2f} mm"
    row = [
        *cells,
        f"{100 * (volume_cc(start, geometry) / start_cc - 1):+.1f} %",
        f"{found_cc:.2f}",
        f"{sections_cc:.2f}",
        f"{100 * (found_cc / sections_cc - 1):+.1f} %",
        f"{100 * (sections_cc / closed_cc - 1):+.1f} %",
        inside,
        inside_voxels,
        "" if np.isnan(usual_cc) else f"{100 * (usual_cc / sections_cc - 1):+.1f} %",
        f"{seconds:.2f}",
    ]
    print("| " + " | ".join(row) + " |", flush=True)


def print_grid(grid: str) -> list[tuple]:
    """The rows of one grid; returns what its crops leave."""
    geometry = geometry_of(grid)
    points = from_middle_lps_mm(geometry)
    distance_mm = np.linalg.norm(points, axis=-1)
    heights_mm = points[:, 0, 0] @ geometry.normal_lps
    for radius_mm, margin_mm in ((20, 5), (12, 10), (25, -7)):
        after_mm = radius_mm + margin_mm
        exact_cc = (
            4 / 3 * np.pi * after_mm**3 / 1000,
            ball_sections_cc(heights_mm, geometry, after_mm),
            ball_sections_cc(heights_mm, geometry, radius_mm),
        )
        words = f"ball {radius_mm} mm {margin_mm:+} mm"
        ball = points, after_mm
        print_row(
            [grid, words, "drawn"],
            drawn_ball(geometry, points, radius_mm),
            geometry,
            margin_mm,
            exact_cc,
            ball,
        )
        print_row([grid, words, "mask"], distance_mm <= radius_mm, geometry, margin_mm, exact_cc, ball)
    if "gantry" not in grid:
        # A box of whole voxels, so that its own volume is exact; it is as high as its slices.
        box, sides_mm, ends_mm = whole_box(geometry)
        drawn = outline_map(
            box, {index: [edges_of(box[index])] for index in np.flatnonzero(box.any((1, 2)))}, geometry
        )
        for words, mm in (("box +5 mm", 5.0), ("box six directions", SIX_MM)):
            six = mm if isinstance(mm, dict) else dict.fromkeys(SIX_MM, mm)
            sections_cc = box_sections_cc(geometry, ends_mm, sides_mm, six)
            exact_cc = grown_box_cc(sides_mm, six), sections_cc, float(np.prod(sides_mm)) / 1000
            print_row([grid, words, "drawn"], drawn, geometry, mm, exact_cc)
            print_row([grid, words, "mask"], box, geometry, mm, exact_cc)
    body = drawn_ball(geometry, points, 30)
    ptv = expand(np.linalg.norm(points - [20, 0, 0], axis=-1) <= 8, geometry, 10)
    leaks = []
    for inset_mm in (0, 5):
        kept = crop(ptv, body, geometry, inset_mm) >= 0.5
        before, after = (np.count_nonzero((volume >= 0.5) & (body < 0.5)) for volume in (ptv, kept))
        leaks.append((grid, inset_mm, before, after, float(distance_mm[kept].max())))
    return leaks


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(
        "| grid | structure and margin | start | start off | result cc | exact sections cc | off | "
        "sections off | inside | inside voxels | SimpleITK off | CPU seconds |"
    )
    print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    leaks = [row for grid in GRIDS for row in print_grid(grid)]
    print(
        "\n| grid | crop inside a ball of 30 mm by | voxels outside before | after | largest radius kept mm |"
    )
    print("|---|--:|--:|--:|--:|")
    for grid, inset_mm, before, after, deepest_mm in leaks:
        print(f"| {grid} | {inset_mm} mm | {before} | {after} | {deepest_mm:.2f} |")


def edges_of(plane: np.ndarray) -> np.ndarray:
    """The outline (row, column) of a rectangle of voxels."""
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    top, bottom, left, right = rows[0] - 0.5, rows[-1] + 0.5, columns[0] - 0.5, columns[-1] + 0.5
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]])


def whole_box(geometry: Geometry) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """A mask of whole voxels around the middle, its sides in mm along left, posterior and superior, and its
    lowest and highest z."""
    slices, rows, columns = (slice(n // 2 - n // 7, n // 2 + n // 7) for n in geometry.shape)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[slices, rows, columns] = True
    row_mm, column_mm = geometry.pixel_spacing_mm
    z_mm = geometry.slice_positions_mm
    ends_mm = tuple(float(z_mm[n - 1] + z_mm[n]) / 2 for n in (slices.start, slices.stop))
    across = [(columns.stop - columns.start) * column_mm, (rows.stop - rows.start) * row_mm]
    return mask, np.array([*across, ends_mm[1] - ends_mm[0]]), ends_mm


if __name__ == "__main__":
    main()
