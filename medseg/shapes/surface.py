"""The surface of a structure that is known on slices only: points on its outlines, and between the slices.

On a slice the surface is the outline. Between two slices it is guessed by the simplest solid that fits both:
where an area narrows from one slice to the next it does so as a ball would whose sections have the largest
depths (inscribed radii) of that area on its slice and on the one before, or along a straight line, whichever
encloses more. A ball that reaches the next slice's plane without having been there, and the end of a straight
wall, both end half-way between the slices, so a box of voxels keeps its height, and a ball its volume.

The ends of the scan are no surface: the patient goes on there, and so does a structure that touches them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of
from medseg.shapes.outlines import iso_polygons, probability_polygons

STEP_MM = 1.0
"""Points lie about so close to one another, so a distance of 5 mm comes out less than 0.05 mm too large."""

FAR_MM = 1e3
"""Stands for the distance from an outline that is too far away to matter."""

SMOOTHING = 0.9
"""Width in pixels of the filter that takes a mask's stairs away."""

NARROWS = 1.1
"""An area ends as a ball does, not half-way, where the slice before is deeper by this factor."""

RAMP_PIXELS = 4.0
"""Height of the ramp from 0 to 1 in a map of distances, in pixels: wide enough that it is straight wherever a
contour is drawn."""

CLEAR = 0.001
"""A voxel centre on an outline stays on its side of 0.5 by this much of the ramp."""

LEAST_STEP = 0.02
"""A smoothed mask keeps every voxel on its side of 0.5 by this much."""


class Section(NamedTuple):
    """One slice of the structure within a window of pixels.

    ``inside``: bool [row, column] of voxel centres. ``depth_mm``: how deep each lies inside, 0 outside.
    ``outline``: points (n, 2) of its outlines, in mm along rows and columns; ``tree`` finds the nearest.
    """

    inside: np.ndarray
    depth_mm: np.ndarray
    outline: np.ndarray
    tree: cKDTree | None

    def distance_mm(self, pixels: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
        """float [row, column]: signed distance from the outline at these pixels, negative inside; FAR_MM
        elsewhere."""
        signed = np.where(self.inside, -FAR_MM, FAR_MM)
        if self.tree is not None and pixels.any():
            found, _ = self.tree.query(np.argwhere(pixels) * pixel_mm)
            signed[pixels] = np.where(self.inside[pixels], -found, found)
        return signed


def surface_points(volume: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Points (n, 3) in LPS mm on the surface of a bool mask, or of a map's 0.5 level, [slice, row, column].

    None lie on the border of the image. An empty volume, and one that fills the image, give no points.
    """
    inside = volume if volume.dtype == bool else volume >= 0.5
    window = box_of(inside, [1, 2, 2])
    pixel_mm = np.array(geometry.pixel_spacing_mm)
    if volume.dtype == bool:
        volume = without_stairs(volume, geometry)
    sections = [
        _section(volume[index][window[1:]], pixel_mm) for index in range(window[0].start, window[0].stop)
    ]
    steps = np.stack([geometry.row_step_lps_mm, geometry.column_step_lps_mm]) / pixel_mm[:, None]
    corner_mm = np.array([side.start for side in window[1:]]) * pixel_mm
    last_mm = (np.array(geometry.shape[1:]) - 1) * pixel_mm
    origins = geometry.origins_lps_mm[window[0]]
    points = [np.empty((0, 3))]

    def keep(plane: np.ndarray, origin: np.ndarray) -> None:
        plane = plane + corner_mm
        within = ((plane >= 0) & (plane <= last_mm)).all(axis=1)
        points.append((origin + plane @ steps)[within])

    for section, origin in zip(sections, origins, strict=True):
        keep(section.outline, origin)
    heights_mm = np.abs(np.diff(geometry.slice_positions_mm))[window[0].start : window[0].stop - 1]
    for index, height_mm in enumerate(heights_mm):
        around = (sections[index - 1] if index else None, *sections[index : index + 2])
        beyond = sections[index + 2] if index + 2 < len(sections) else None
        before_mm, after_mm = heights_mm[max(index - 1, 0)], heights_mm[min(index + 1, len(heights_mm) - 1)]
        gap = Gap((*around, beyond), (before_mm, height_mm, after_mm), pixel_mm)
        for fractions, plane in gap.points():
            along = origins[index] + fractions[:, None] * (origins[index + 1] - origins[index])
            keep(plane, along)
    return np.concatenate(points)


def thinned(points: np.ndarray, side_mm: float) -> np.ndarray:
    """One of the points (n, 3) in each cube of ``side_mm``."""
    cells = np.floor(points / side_mm).astype(np.int64)
    cells -= cells.min(axis=0, initial=0)
    size = cells.max(axis=0, initial=0) + 1
    _, first = np.unique((cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2], return_index=True)
    return points[first]


def _section(plane: np.ndarray, pixel_mm: np.ndarray) -> Section:
    """The section of one slice's plane."""
    inside = plane >= 0.5
    rings = [ring for polygon in probability_polygons(plane) for ring in (polygon.exterior, *polygon.holes)]
    dense = [_along(ring * pixel_mm, STEP_MM / 4) for ring in rings]
    outline = np.concatenate([np.empty((0, 2)), *dense])
    depth_mm = np.full(plane.shape, FAR_MM)  # a section that fills the image has no outline
    if not inside.all():
        depth_mm = ndimage.distance_transform_edt(inside, sampling=pixel_mm)
    return Section(inside, depth_mm, outline, cKDTree(outline) if rings else None)


def _along(ring: np.ndarray, step_mm: float) -> np.ndarray:
    """Points (n, 2) along a closed ring, its vertices among them, no farther apart than ``step_mm``."""
    edge = np.roll(ring, -1, axis=0) - ring
    count = np.maximum(np.ceil(np.linalg.norm(edge, axis=1) / step_mm), 1).astype(int)
    owner = np.repeat(np.arange(len(ring)), count)
    part = (np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)) / count[owner]
    return ring[owner] + part[:, None] * edge[owner]


def outline_map(
    mask: np.ndarray, outlines: Mapping[int, Sequence[np.ndarray]], geometry: Geometry
) -> np.ndarray:
    """A bool mask [slice, row, column] as a float32 map from 0 to 1, whose 0.5 level on each slice is the
    outline that was drawn, not the edge of the voxels that it was read as.

    ``outlines``: {slice index: loops (n, 2) of (row, column)}. They only say how far a voxel centre lies from
    the surface (a ramp over RAMP_PIXELS); on which side it lies is what the mask says. Without outlines the
    values are 0 and 1.
    """
    result = mask.astype(np.float32)
    pixel_mm = np.array(geometry.pixel_spacing_mm)
    width_mm = RAMP_PIXELS * pixel_mm.max()
    for index, loops in outlines.items():
        points = np.concatenate([_along(loop * pixel_mm, STEP_MM / 4) for loop in loops])
        plane = mask[index]
        near = ndimage.binary_dilation(plane ^ ndimage.binary_erosion(plane), iterations=2)
        if near.any():
            found, _ = cKDTree(points).query(np.argwhere(near) * pixel_mm)
            side = np.where(
                plane[near], np.maximum(found, CLEAR * width_mm), -np.maximum(found, CLEAR * width_mm)
            )
            result[index][near] = np.clip(0.5 + side / width_mm, 0, 1)
    return result


def without_stairs(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """float64 map whose 0.5 level is a bool mask's surface without its stairs: flat and curved surfaces stay
    where they are, and so does every voxel's side of it.

    The mask is smoothed by 2 G - G G, G a Gaussian of SMOOTHING pixels. It has no second moment, so that,
    unlike G, it does not move a curved surface inwards. Across the slices G is as wide in mm.
    """
    gap_mm = float(np.abs(np.diff(geometry.slice_positions_mm)).min())
    width = SMOOTHING * np.array([min(geometry.pixel_spacing_mm) / gap_mm, 1, 1])
    once = ndimage.gaussian_filter(mask.astype(np.float64), width, mode="nearest")
    smooth = 2 * once - ndimage.gaussian_filter(once, width, mode="nearest")
    return np.where(mask, np.clip(smooth, 0.5 + LEAST_STEP, 1), np.clip(smooth, 0, 0.5 - LEAST_STEP))


class Gap:
    """The space between two slices, with the sections before, below, above and after it."""

    def __init__(self, sections: tuple, heights_mm: tuple[float, float, float], pixel_mm: np.ndarray) -> None:
        before, below, above, after = sections
        self.below, self.above, self.pixel_mm = below, above, pixel_mm
        self.height_mm = heights_mm[1]
        self.ends = below.inside & ~above.inside, above.inside & ~below.inside
        shown = ndimage.binary_dilation(self.ends[0] | self.ends[1], iterations=2)
        for section in (below, above):
            rim = section.inside ^ ndimage.binary_erosion(section.inside)
            shown |= ndimage.binary_dilation(rim, iterations=2)
        self.fields = tuple(section.distance_mm(shown, pixel_mm) for section in (below, above))
        shift_mm = self.fields[1] - self.fields[0]
        self.domes = (
            Dome.of(below, before, heights_mm[0], self.height_mm, shift_mm),
            Dome.of(above, after, heights_mm[2], self.height_mm, -shift_mm),
        )

    def points(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(fractions (n,) of the way up, points (n, 2) in mm along rows and columns), part by part."""
        levels = 2 * max(int(np.ceil(self.height_mm / STEP_MM / 2)), 1)
        for level in range(1, levels):
            part = level / levels
            # Outlines are closed beyond the border of the image, where points do not count.
            field = np.pad(self.field_mm(part), 1, mode="edge")
            for polygon in iso_polygons(-field, 0.0):
                for ring in (polygon.exterior, *polygon.holes):
                    plane = _along((ring - 1) * self.pixel_mm, STEP_MM / 2)
                    yield np.full(len(plane), part), plane
        for up, (end, dome) in enumerate(zip(self.ends, self.domes, strict=True)):
            if end.any():
                depth, other = -self.fields[up][end], self.fields[1 - up][end]
                height = np.maximum(dome.height_mm(depth, end), self.height_mm * depth / (depth + other))
                parts = np.zeros(end.shape)
                parts[end] = np.minimum(height / self.height_mm, 1)
                yield from _between(end, 1 - parts if up else parts, self.pixel_mm)

    def field_mm(self, part: float) -> np.ndarray:
        """float [row, column]: about the signed distance from the surface in the plane at ``part`` of the way
        up."""
        below, above = (np.clip(field, -FAR_MM, FAR_MM) for field in self.fields)
        field = (1 - part) * below + part * above
        field = np.minimum(field, below + self.domes[0].inset_mm(part * self.height_mm))
        return np.minimum(field, above + self.domes[1].inset_mm((1 - part) * self.height_mm))


def _between(end: np.ndarray, part: np.ndarray, pixel_mm: np.ndarray) -> Iterator:
    """Points of a surface known at the voxels ``end``, and half-way between neighbours that are far apart."""
    yield part[end], np.argwhere(end) * pixel_mm
    for shift in ((0, 1), (1, 0), (1, 1)):
        if np.linalg.norm(pixel_mm * shift) > STEP_MM:
            here = end & np.roll(end, (-shift[0], -shift[1]), axis=(0, 1))
            mean = (part + np.roll(part, (-shift[0], -shift[1]), axis=(0, 1))) / 2
            yield mean[here], (np.argwhere(here) + np.array(shift) / 2) * pixel_mm


class Dome(NamedTuple):
    """How each area of a section closes towards the next slice: as a ball of ``radius_mm`` whose middle lies
    ``below_mm`` under the section, up to ``top_mm`` above it; float [row, column] each."""

    largest_mm: np.ndarray
    below_mm: np.ndarray
    top_mm: np.ndarray

    @classmethod
    def of(cls, section: Section, before: Section | None, before_mm: float, height_mm: float, shift_mm):
        """``before``: the section on the other side, ``before_mm`` away; ``shift_mm``: how far the outline
        moves towards the next slice, where it has one."""
        pieces, count = ndimage.label(section.inside)
        index = np.arange(count + 1)
        largest = ndimage.maximum(section.depth_mm, pieces, index)
        wider = np.zeros(count + 1) if before is None else ndimage.maximum(before.depth_mm, pieces, index)
        wider = np.where(wider > 0, wider, largest)
        below = np.maximum(((wider**2 - largest**2) / before_mm + before_mm) / 2, 0)
        pieces = np.where(section.inside, pieces, ndimage.maximum_filter(pieces, 3))
        largest, below = largest[pieces], below[pieces]
        radius = np.hypot(largest, below)
        inset = largest - np.sqrt(np.maximum(radius**2 - (below + height_mm) ** 2, 0))
        has_next = (shift_mm > 0) & (shift_mm < FAR_MM / 2)
        ends = (radius - below < height_mm) & (wider[pieces] > NARROWS * largest)
        closes = np.where(has_next, inset >= shift_mm / 2, ends)
        top = np.where(closes, np.minimum(height_mm, radius - below), height_mm / 2)
        return cls(largest, below, top)

    def height_mm(self, depth_mm: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Of the surface above the section at voxels ``where``, which lie ``depth_mm`` inside its outline."""
        largest, below, top = self.largest_mm[where], self.below_mm[where], self.top_mm[where]
        out = np.maximum(largest - depth_mm, 0)
        return np.minimum(np.sqrt(np.maximum(largest**2 + below**2 - out**2, 0)) - below, top)

    def inset_mm(self, height_mm: float) -> np.ndarray:
        """float [row, column]: how far the outline has moved inwards at a height; FAR_MM above the top."""
        left = self.largest_mm**2 + self.below_mm**2 - (self.below_mm + height_mm) ** 2
        inset = self.largest_mm - np.sqrt(np.maximum(left, 0))
        return np.where(height_mm <= self.top_mm + 1e-6, inset, 2 * FAR_MM)
