"""Volumes after margins against closed forms, on even and uneven grids, and what leaks out of a crop.

    python tools/benchmarks/margin/run.py

Steiner's formula gives the volume of a box grown by a ball: its own, its faces times the margin, quarter
cylinders along its edges, a ball of its corners; six directions make them elliptic. Masks are drawn by voxel
centre, so the starting volume, whose error is not the margin's, stands beside. "SimpleITK off" is the usual
way: voxels within the margin of a set voxel by SignedMaurerDistanceMap, where it can be used.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from medseg.geometry import Geometry
from medseg.metrics import volume_cc
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm
from medseg.shapes.margins import crop, expand

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


def grown_box_cc(sides_mm: np.ndarray, margin_mm: float) -> float:
    a, b, c = sides_mm
    m = margin_mm
    return (
        a * b * c + 2 * m * (a * b + b * c + a * c) + np.pi * m**2 * (a + b + c) + 4 / 3 * np.pi * m**3
    ) / 1000


def six_box_cc(sides_mm: np.ndarray, mm: dict[str, float]) -> float:
    """A box grown by the eighths of ellipsoids: faces by their own margins, quarter ellipses and eighths of
    ellipsoids."""
    pairs = [(mm["left"], mm["right"]), (mm["anterior"], mm["posterior"]), (mm["superior"], mm["inferior"])]
    total = float(np.prod(sides_mm))
    for axis in range(3):
        u, v = [other for other in range(3) if other != axis]
        total += sides_mm[u] * sides_mm[v] * sum(pairs[axis])
        total += sides_mm[axis] * np.pi / 4 * sum(pairs[u]) * sum(pairs[v])
    return (total + np.pi / 6 * np.prod([sum(pair) for pair in pairs])) / 1000


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


def print_row(
    grid: str, what: str, mask: np.ndarray, geometry: Geometry, mm, truth_cc: tuple[float, float]
) -> None:
    """``truth_cc``: (before, after) in closed form."""
    start = time.perf_counter()
    grown_cc = volume_cc(expand(mask, geometry, mm), geometry)
    seconds = time.perf_counter() - start
    before_cc, after_cc = truth_cc
    off, usual = (100 * (cc / after_cc - 1) for cc in (grown_cc, by_distance_map_cc(mask, geometry, mm)))
    cells = [
        grid,
        what,
        f"{volume_cc(mask, geometry):.2f} ({before_cc:.2f})",
        f"{grown_cc:.2f}",
        f"{after_cc:.2f}",
        f"{off:+.1f} %",
        "" if np.isnan(usual) else f"{usual:+.1f} %",
        f"{seconds:.2f}",
    ]
    print("| " + " | ".join(cells) + " |")


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(
        "| grid | structure and margin | start cc (closed form) | result cc | closed form | off | SimpleITK "
        "off | seconds |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    leaks = []
    for grid in GRIDS:
        geometry = geometry_of(grid)
        points = from_middle_lps_mm(geometry)
        distance_mm = np.linalg.norm(points, axis=-1)
        for radius_mm, margin_mm in ((20, 5), (12, 10), (25, -7)):
            truth_cc = tuple(4 / 3 * np.pi * r**3 / 1000 for r in (radius_mm, radius_mm + margin_mm))
            print_row(
                grid,
                f"ball {radius_mm} mm {margin_mm:+} mm",
                distance_mm <= radius_mm,
                geometry,
                margin_mm,
                truth_cc,
            )
        # A box of whole voxels, so that its own volume is exact; uneven and tilted ones are as high as their
        # slices.
        box, sides_mm = whole_box(geometry)
        if "gantry" not in grid:
            print_row(
                grid, "box +5 mm", box, geometry, 5, (np.prod(sides_mm) / 1000, grown_box_cc(sides_mm, 5))
            )
            print_row(
                grid,
                "box six directions",
                box,
                geometry,
                SIX_MM,
                (np.prod(sides_mm) / 1000, six_box_cc(sides_mm, SIX_MM)),
            )
        body = distance_mm <= 30
        ptv = expand(np.linalg.norm(points - [20, 0, 0], axis=-1) <= 8, geometry, 10)
        for inset_mm in (0, 5):
            kept = crop(ptv, body, geometry, inset_mm)
            deepest_mm = float(distance_mm[kept].max())
            leaks.append(
                (grid, inset_mm, np.count_nonzero(ptv & ~body), np.count_nonzero(kept & ~body), deepest_mm)
            )
    print(
        "\n| grid | crop inside a ball of 30 mm by | voxels outside before | after | largest radius kept mm |"
    )
    print("|---|--:|--:|--:|--:|")
    for grid, inset_mm, before, after, deepest_mm in leaks:
        print(f"| {grid} | {inset_mm} mm | {before} | {after} | {deepest_mm:.2f} |")


def whole_box(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """A mask of whole voxels around the middle, and its sides in mm along left, posterior and superior."""
    slices, rows, columns = (slice(n // 2 - n // 7, n // 2 + n // 7) for n in geometry.shape)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[slices, rows, columns] = True
    row_mm, column_mm = geometry.pixel_spacing_mm
    high_mm = float(geometry.slice_thickness_mm[slices].sum())
    return mask, np.array(
        [(columns.stop - columns.start) * column_mm, (rows.stop - rows.start) * row_mm, high_mm]
    )


if __name__ == "__main__":
    main()
