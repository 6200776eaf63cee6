"""The surface of a structure that is known on slices only: points on its outlines, and between the slices.

On a slice the surface is the outline. Between two slices it is guessed by the simplest solid that fits both:
where an area narrows from one slice to the next it does so as a ball would whose sections have the largest
depths (inscribed radii) of that area on its slice and on the one before, or along a straight line, whichever
encloses more. A ball that reaches the next slice's plane without having been there, and a wall that does not
narrow, end half-way between the slices, so a box of voxels keeps its height, and a ball its volume.

The ends of the scan are no surface: the patient goes on there, and so does a structure that touches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of
from medseg.shapes.outlines import iso_polygons, mask_if_binary
from medseg.shapes.scanline import rasterise
from medseg.shapes.true_outlines import steps_along, true_outlines

STEP_MM = 1.0
"""Points lie about so close to one another, so a distance of 5 mm comes out less than 0.05 mm too large."""

ALIGNED, ALONG = 0.996, 0.1
"""Slices are cut along the patient's axes when theirs lie within 5 degrees of them; a direction within 6
degrees of a plane between the eighths of space is taken to lie in it."""

BEND = np.radians(40)
"""What turns more from edge to edge has corners."""

FAR_MM = 1e3
"""Stands for the distance from an outline that is too far away to matter."""

LEAST_SHIFT = 0.1
"""Slices that shift sideways by less than this part of a step stand upright."""

NARROWS = 1.1
"""An area ends as a ball does, not half-way, where the slice before is deeper by this factor."""


class Surface(NamedTuple):
    """Points on a surface. ``points_lps_mm``: float (n, 3). ``outwards``: int8 (n, 3), whether the body's
    outside lies towards positive (1) or negative (-1) L, P and S there; 0: along that axis, or not known."""

    points_lps_mm: np.ndarray
    outwards: np.ndarray

    def thinned(self, side_mm: float) -> Surface:
        """One of the points in each cube of ``side_mm``."""
        cells = np.floor(self.points_lps_mm / side_mm).astype(np.int64)
        cells -= cells.min(axis=0, initial=0)
        size = cells.max(axis=0, initial=0) + 1
        number = (cells[:, 0] * size[1] + cells[:, 1]) * size[2] + cells[:, 2]
        _, first = np.unique(number, return_index=True)
        return Surface(self.points_lps_mm[first], self.outwards[first])


class Section(NamedTuple):
    """One slice of the structure within a window of pixels.

    ``inside``: bool [row, column] of a lattice's points. ``depth_mm``: how deep each lies inside, 0 outside.
    ``outline``: points (n, 2) of its outlines, in mm along rows and columns; ``tree`` finds the nearest;
    ``outwards``: unit vectors (n, 2) across them.
    """

    inside: np.ndarray
    depth_mm: np.ndarray
    outline: np.ndarray
    tree: cKDTree | None
    outwards: np.ndarray

    def distance_mm(self, pixels: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
        """float [row, column]: signed distance from the outline at these pixels, negative inside; FAR_MM
        elsewhere."""
        signed = np.where(self.inside, -FAR_MM, FAR_MM)
        if self.tree is not None and pixels.any():
            found, _ = self.tree.query(np.argwhere(pixels) * pixel_mm)
            signed[pixels] = np.where(self.inside[pixels], -found, found)
        return signed


class Window:
    """A box of the volume's pixels, seen upright: in mm along rows and columns from the middle of its first
    pixel on its lowest slice, straight along the slices' normal. On a tilted stack slices lie shifted in it.

    ``step_mm``: (row, column) of the lattice that fills it, a pixel or a whole part of it; ``parts``: of
    these in a pixel; ``low``: number of its first point.
    """

    def __init__(self, geometry: Geometry, box: tuple[slice, ...]) -> None:
        self.pixel_mm = np.array(geometry.pixel_spacing_mm)
        self.parts = np.maximum(np.ceil(self.pixel_mm / STEP_MM - 0.01), 1).astype(int)
        self.step_mm = self.pixel_mm / self.parts
        steps = np.stack([geometry.row_step_lps_mm, geometry.column_step_lps_mm]) / self.pixel_mm[:, None]
        self.axes = np.stack([*steps, geometry.normal_lps])
        origins = geometry.origins_lps_mm[box[0]]
        # From the lowest slice, so that slices in the other order make the same lattice.
        lowest = box[0].start + int(np.argmin(geometry.slice_positions_mm[box[0]])) if len(origins) else 0
        away = origins - geometry.origins_lps_mm[lowest]
        self.heights_mm, self.shifts_mm = away @ geometry.normal_lps, away @ steps.T
        corner_mm = np.array([side.start for side in box[1:]]) * self.pixel_mm
        self.origin = geometry.origins_lps_mm[lowest] + corner_mm @ steps
        self.border_mm = -corner_mm, (np.array(geometry.shape[1:]) - 1) * self.pixel_mm - corner_mm
        self.is_upright = bool(np.abs(self.shifts_mm).max(initial=0) < LEAST_SHIFT * self.step_mm.min())
        low = np.floor(self.shifts_mm.min(axis=0, initial=0) / self.step_mm).astype(int)
        high = np.ceil(self.shifts_mm.max(axis=0, initial=0) / self.step_mm).astype(int)
        self.low = np.zeros(2, dtype=int) if self.is_upright else low
        extent = (np.array([side.stop - side.start for side in box[1:]]) - 1) * self.parts + 1
        self.shape = tuple((extent if self.is_upright else extent + high - low).tolist())

    def section(self, index: int, plane: np.ndarray) -> Section:
        """The section of a slice, counted in the window, with its plane [row, column] of pixels."""
        rings = [ring * self.pixel_mm + self.shifts_mm[index] for ring in true_outlines(plane)]
        dense = [(np.empty((0, 2)),) * 2, *(_along(ring, STEP_MM / 4) for ring in rings)]
        outline, outwards = (np.concatenate(found) for found in zip(*dense, strict=True))
        if self.is_upright and (self.parts == 1).all():
            inside = plane if plane.dtype == bool else plane >= 0.5
        elif not rings and (plane >= 0.5).all():
            inside = np.ones(self.shape, dtype=bool)
        else:
            inside = rasterise([ring / self.step_mm - self.low for ring in rings], self.shape)
        depth_mm = np.full(inside.shape, FAR_MM)  # a section that fills the image has no outline
        if not inside.all():
            depth_mm = ndimage.distance_transform_edt(inside, sampling=self.step_mm)
        # From here on distances count from the lattice's first point.
        outline = outline - self.low * self.step_mm
        return Section(inside, depth_mm, outline, cKDTree(outline) if rings else None, outwards)

    def lps_mm(self, plane: np.ndarray, heights_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(LPS mm (n, 3) of points in mm on the lattice, at heights above the lowest slice; bool (n,): those
        in the image)"""
        plane = plane + self.low * self.step_mm
        upwards = np.argsort(self.heights_mm)
        known_mm, shifts_mm = self.heights_mm[upwards], self.shifts_mm[upwards].T
        on_slice = plane - np.stack([np.interp(heights_mm, known_mm, shift) for shift in shifts_mm], axis=1)
        low, high = self.border_mm
        within = ((on_slice >= low - 1e-9) & (on_slice <= high + 1e-9)).all(axis=1)
        return self.origin + np.column_stack([plane, heights_mm]) @ self.axes, within


def surface_of(volume: np.ndarray, geometry: Geometry) -> Surface:
    """Points on the surface of a bool mask, or of a map's 0.5 level, [slice, row, column].

    None lie on the border of the image. An empty volume, and one that fills the image, give no points.
    """
    box = box_of(volume if volume.dtype == bool else volume >= 0.5, [1, 2, 2])
    window = Window(geometry, box)
    planes = mask_if_binary(volume[box])
    sections = [window.section(index, plane) for index, plane in enumerate(planes)]
    aligned = bool((np.abs(window.axes).max(axis=1) > ALIGNED).all())
    points, outwards = [np.empty((0, 3))], [np.empty((0, 3), dtype=np.int8)]

    def keep(plane: np.ndarray, heights_mm: np.ndarray, outward: np.ndarray) -> None:
        found, within = window.lps_mm(plane, heights_mm)
        points.append(found[within])
        outward = outward[within] @ window.axes if aligned else np.zeros((np.count_nonzero(within), 3))
        outwards.append((np.sign(outward) * (np.abs(outward) > ALONG)).astype(np.int8))

    for section, height_mm in zip(sections, window.heights_mm, strict=True):
        outward = np.pad(section.outwards, ((0, 0), (0, 1)))
        keep(section.outline, np.full(len(section.outline), height_mm), outward)
    rises_mm = np.diff(window.heights_mm)
    gaps_mm = np.abs(rises_mm)
    for index, rise_mm in enumerate(rises_mm):
        around = (sections[index - 1] if index else None, *sections[index : index + 2])
        beyond = sections[index + 2] if index + 2 < len(sections) else None
        before_mm, after_mm = gaps_mm[max(index - 1, 0)], gaps_mm[min(index + 1, len(gaps_mm) - 1)]
        gap = Gap((*around, beyond), (before_mm, gaps_mm[index], after_mm), window.step_mm)
        for fractions, plane, outward in gap.points():
            heights_mm = window.heights_mm[index] + fractions * rise_mm
            keep(plane, heights_mm, outward * [1, 1, np.sign(rise_mm)])
    return Surface(np.concatenate(points), np.concatenate(outwards))


def _along(ring: np.ndarray, step_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """(points (n, 2) along a closed ring, its vertices among them, no farther apart than ``step_mm``; unit
    vectors (n, 2) to its left, which is outside for exteriors and holes as :mod:`outlines` turns them).

    Where the ring bends little, it runs on an arc between its vertices: chords lose 0.05 mm of a circle of
    12 mm on pixels of 2.5 mm.
    """
    edge = np.roll(ring, -1, axis=0) - ring
    length = np.maximum(np.linalg.norm(edge, axis=1), 1e-9)
    owner, part = steps_along(ring, step_mm)
    left = np.stack([-edge[:, 1], edge[:, 0]], axis=1) / length[:, None]
    angle = np.arctan2(edge[:, 1], edge[:, 0])
    turn = (angle - np.roll(angle, 1) + np.pi) % (2 * np.pi) - np.pi  # at the start of each edge
    after = np.roll(turn, -1)
    bend = turn / (length + np.roll(length, 1)) + after / (length + np.roll(length, -1))
    smooth = (turn * after > 0) & (np.maximum(np.abs(turn), np.abs(after)) < BEND)
    rise = np.where(smooth, -bend * length**2 / 8, 0)[owner] * 4 * part * (1 - part)
    return ring[owner] + part[:, None] * edge[owner] + rise[:, None] * left[owner], left[owner]


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
            Dome.of((below, before), (heights_mm[0], self.height_mm), shift_mm, pixel_mm),
            Dome.of((above, after), (heights_mm[2], self.height_mm), -shift_mm, pixel_mm),
        )

    def points(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(fractions (n,) of the way up, points (n, 2) in mm along rows and columns, directions (n, 3) out of
        the body along rows, columns and up), part by part."""
        levels = 2 * max(int(np.ceil(self.height_mm / STEP_MM / 2)), 1)
        slope = np.clip((self.fields[1] - self.fields[0]) / self.height_mm, -FAR_MM, FAR_MM)
        for level in range(1, levels):
            part = level / levels
            # Outlines are closed beyond the border of the image, where points do not count.
            field = np.pad(self.field_mm(part), 1, mode="edge")
            for polygon in iso_polygons(-field, 0.0):
                for ring in (polygon.exterior, *polygon.holes):
                    plane, outward = _along((ring - 1) * self.pixel_mm, STEP_MM / 2)
                    nearest = np.rint(plane / self.pixel_mm).astype(int)
                    row, column = (np.clip(nearest[:, axis], 0, slope.shape[axis] - 1) for axis in (0, 1))
                    yield (
                        np.full(len(plane), part),
                        plane,
                        np.concatenate([outward, slope[row, column][:, None]], axis=1),
                    )
        for up, (end, dome) in enumerate(zip(self.ends, self.domes, strict=True)):
            if end.any():
                depth, other = -self.fields[up][end], self.fields[1 - up][end]
                height = np.maximum(dome.height_mm(depth, end), self.height_mm * depth / (depth + other))
                parts = np.zeros(end.shape)
                parts[end] = np.minimum(height / self.height_mm, 1)
                for fractions, plane in _between(end, 1 - parts if up else parts, self.pixel_mm):
                    yield fractions, plane, np.tile([0, 0, -1.0 if up else 1.0], (len(plane), 1))

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
    ``below_mm`` under the section, up to ``top_mm`` above it; float [row, column] each. Where it is
    ``straight``, bool [row, column], it goes straight up to the top."""

    largest_mm: np.ndarray
    below_mm: np.ndarray
    top_mm: np.ndarray
    straight: np.ndarray

    @classmethod
    def of(cls, sections: tuple, heights_mm: tuple[float, float], shift_mm: np.ndarray, step_mm: np.ndarray):
        """``sections``: this one and that on its other side, None without one. ``heights_mm``: of the gap to
        that one, and of this gap. ``shift_mm``: how far the outline moves towards the next slice, where it
        has one."""
        section, before = sections
        before_mm, height_mm = heights_mm
        pieces, count = ndimage.label(section.inside)
        largest = deepest_mm(section, pieces, count, step_mm)
        wider = np.zeros(count + 1) if before is None else deepest_mm(before, pieces, count, step_mm)
        wider = np.where(wider > 0, wider, largest)
        below = np.maximum(((wider**2 - largest**2) / before_mm + before_mm) / 2, 0)
        pieces = np.where(section.inside, pieces, ndimage.maximum_filter(pieces, 3))
        narrows = wider[pieces] > NARROWS * largest[pieces]
        largest, below = largest[pieces], below[pieces]
        radius = np.hypot(largest, below)
        inset = largest - np.sqrt(np.maximum(radius**2 - (below + height_mm) ** 2, 0))
        has_next = (shift_mm > 0) & (shift_mm < FAR_MM / 2)
        ends = (radius - below < height_mm) & narrows
        closes = np.where(has_next, inset >= shift_mm / 2, ends)
        top = np.where(closes, np.minimum(height_mm, radius - below), height_mm / 2)
        return cls(largest, below, top, ~has_next & ~narrows)

    def height_mm(self, depth_mm: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Of the surface above the section at voxels ``where``, which lie ``depth_mm`` inside its outline."""
        largest, below, top = self.largest_mm[where], self.below_mm[where], self.top_mm[where]
        out = np.maximum(largest - depth_mm, 0)
        dome = np.sqrt(np.maximum(largest**2 + below**2 - out**2, 0)) - below
        return np.where(self.straight[where], top, np.minimum(dome, top))

    def inset_mm(self, height_mm: float) -> np.ndarray:
        """float [row, column]: how far the outline has moved inwards at a height; FAR_MM above the top."""
        left = self.largest_mm**2 + self.below_mm**2 - (self.below_mm + height_mm) ** 2
        inset = np.where(self.straight, 0, self.largest_mm - np.sqrt(np.maximum(left, 0)))
        return np.where(height_mm <= self.top_mm + 1e-6, inset, 2 * FAR_MM)


def deepest_mm(section: Section, pieces: np.ndarray, count: int, step_mm: np.ndarray) -> np.ndarray:
    """float (count + 1,): how deep a section is inside at most within each of ``pieces``, its largest
    inscribed radius; 0 where it has nothing. Point 0 stands for no piece."""
    found = np.zeros(count + 1)
    numbers = np.arange(1, count + 1)
    if count:
        found[1:] = ndimage.maximum(section.depth_mm, pieces, numbers)
    held = np.flatnonzero(found)
    if section.tree is None or not held.size:
        return found
    # The lattice's deepest point is up to 0.7 steps off: look around it.
    at = np.array(ndimage.maximum_position(section.depth_mm, pieces, held)) * step_mm
    for finer in (0, 0.5, 0.25, 0.12):
        around = at[:, None] + AROUND * step_mm * finer
        distance, _ = section.tree.query(around)
        best = distance.argmax(axis=1)
        at, found[held] = around[np.arange(len(at)), best], distance.max(axis=1)
    return found


AROUND = np.array([(row, column) for row in (0, -1, 1) for column in (0, -1, 1)])
"""A point of a lattice and its neighbours."""
