"""Outlines as they were drawn, kept in a map of voxels: its 0.5 level is the outline, below the voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of
from medseg.shapes.repeats import first_copies
from medseg.shapes.scanline import centre_line_crossings
from medseg.shapes.true_outlines import steps_along

RAMP_PIXELS = 4.0
"""Height of the ramp from 0 to 1 in a map of distances, in pixels: wide enough that it is straight wherever a
contour is drawn."""

CLEAR = 0.001
"""A voxel centre on an outline stays on its side of 0.5 by this much of the ramp."""

POINTS_MM = 0.25
"""Points on outlines lie no farther apart."""


def outline_map(
    mask: np.ndarray, outlines: Mapping[int, Sequence[np.ndarray]], geometry: Geometry
) -> np.ndarray:
    """A bool mask [slice, row, column] as a float32 map from 0 to 1, whose 0.5 level on each slice is the
    outline that was drawn, not the edge of the voxels that it was read as.

    ``outlines``: {slice index: loops (n, 2) of (row, column)}. They only say how far a voxel centre lies from
    the surface (a ramp over RAMP_PIXELS); on which side it lies is what the mask says. Channels that join an
    outline to its holes are no surface, and a loop that is listed twice counts once. Between two voxels on
    either side the level is where the outline crosses. Without outlines the values are 0 and 1.
    """
    result = mask.astype(np.float32)
    pixel_mm = np.array(geometry.pixel_spacing_mm)
    width_mm = RAMP_PIXELS * pixel_mm.max()
    for index, loops in outlines.items():
        rings = [ring / pixel_mm for ring in outline_rings([loop * pixel_mm for loop in loops])]
        box = box_of(mask[index], 2)
        plane = mask[index][box]
        if not rings or not plane.any():
            continue
        rings = [ring - [side.start for side in box] for ring in rings]
        near = ndimage.binary_dilation(plane ^ ndimage.binary_erosion(plane), iterations=2)
        points = np.concatenate([_points_on(ring * pixel_mm) for ring in rings])
        off_mm = np.full(plane.shape, np.inf)
        off_mm[near], _ = cKDTree(points).query(np.argwhere(near) * pixel_mm)
        off_mm = _to_the_crossings(np.maximum(off_mm, CLEAR * width_mm), plane, rings, pixel_mm)
        signed_mm = np.where(plane, off_mm, -off_mm)
        result[index][box] = np.clip(0.5 + signed_mm / width_mm, 0, 1)
    return result


def outline_rings(loops_mm: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rings (n, 2) around what an odd number of the loops (n, 2) in mm encloses, an outline that is stored
    twice counted once: without the channels of keyholes. Loops without area give none."""
    import shapely  # here, because it loads slowly and few commands draw

    loops_mm = [loop for loop in loops_mm if len(loop) > 2]
    owners = enumerate(first_copies(loops_mm))
    kept = [loops_mm[number] for number, owner in owners if owner == number]
    areas = [shapely.make_valid(shapely.Polygon(loop)) for loop in kept]
    parts = shapely.get_parts(shapely.get_parts(shapely.symmetric_difference_all(areas)))
    polygons = [part for part in parts if part.geom_type == "Polygon"]
    rings = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)]
    return [shapely.get_coordinates(ring)[:-1] for ring in rings]


def _points_on(ring_mm: np.ndarray) -> np.ndarray:
    """Points (n, 2) along a closed ring in mm, no farther apart than POINTS_MM."""
    owner, part = steps_along(ring_mm, POINTS_MM)
    return ring_mm[owner] + part[:, None] * (np.roll(ring_mm, -1, axis=0) - ring_mm)[owner]


def _to_the_crossings(
    off_mm: np.ndarray, plane: np.ndarray, rings: list[np.ndarray], pixel_mm: np.ndarray
) -> np.ndarray:
    """Distances [row, column] from the outline, those outside changed so that between neighbours on either
    side the level falls where a ring crosses.

    A voxel with several such neighbours takes a mean, in which crossings at right angles, and half-way, count
    most.
    """
    wanted, weights = np.zeros_like(off_mm), np.zeros_like(off_mm)
    for axis in (0, 1):
        line, at = centre_line_crossings([ring if axis == 1 else ring[:, ::-1] for ring in rings])
        lines, places = plane.shape[1 - axis], plane.shape[axis]
        before = np.floor(at).astype(int)
        known = (line >= 0) & (line < lines) & (before >= 0) & (before < places - 1)
        part = np.full((lines, places - 1), np.nan)
        part[line[known], before[known]] = (at - before)[known]
        part = part if axis == 1 else part.T
        first, second = (plane[:-1], plane[1:]) if axis == 0 else (plane[:, :-1], plane[:, 1:])
        for inside_first in (True, False):
            here = np.argwhere((first != second) & (first == inside_first) & np.isfinite(part))
            there = here + [axis == 0, axis == 1]
            inner, outer = (here, there) if inside_first else (there, here)
            share = part[tuple(here.T)]
            inner_mm = off_mm[tuple(inner.T)]
            nearest = inner_mm / pixel_mm[axis]
            share = np.clip(share if inside_first else 1 - share, np.minimum(nearest, 0.99), 0.999)
            # A crossing close to a voxel stays there, whatever the other one's value.
            weight = (nearest / share) ** 4 * (share * (1 - share)) ** 2
            np.add.at(wanted, tuple(outer.T), weight * inner_mm * (1 - share) / share)
            np.add.at(weights, tuple(outer.T), weight)
    return np.where(weights > 0, wanted / np.maximum(weights, 1e-12), off_mm)
