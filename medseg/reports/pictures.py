"""What several pages draw: two masks on planes through the patient, turned the way a clinician looks at them.

A picture is the image as an embedded PNG and both outlines as SVG paths along the masks' own pixels, sharp at
any zoom.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of
from medseg.shapes.outlines import mask_polygons

WINDOW_HU = (-160.0, 240.0)
"""Soft-tissue window, level 40 width 400: what a planner would open the case with."""

LUNG_WINDOW_HU = (-1350.0, 150.0)
LUNG_HU = -300.0
"""A structure whose median lies below this is shown in the lung window."""

AROUND_MM = 20.0
"""How much of the image is shown around both structures."""


@dataclass(frozen=True)
class Picture:
    """One plane: what it shows, its size in mm, the PNG, and the SVG path data of each outline and difference
    in mm."""

    caption: str
    width_mm: float
    height_mm: float
    png_base64: str
    reference_path: str
    other_path: str
    missed_path: str
    extra_path: str


def anatomical_axes(geometry: Geometry) -> tuple[list[int], list[bool]]:
    """Which array axis runs closest to Superior, Posterior and Left, and which of them have to be turned
    round."""
    directions = np.stack(
        [
            geometry.normal_lps
            if geometry.shape[0] < 2
            else geometry.origins_lps_mm[-1] - geometry.origins_lps_mm[0],
            geometry.row_step_lps_mm,
            geometry.column_step_lps_mm,
        ]
    )
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    array_axes, patient_axes = linear_sum_assignment(-np.abs(directions))
    axis_of = dict(zip(patient_axes, array_axes, strict=True))
    order = [int(axis_of[axis]) for axis in (2, 1, 0)]
    flips = [bool(directions[axis_of[axis], axis] < 0) for axis in (2, 1, 0)]
    return order, flips


def draw_pair(
    reference: np.ndarray,
    other: np.ndarray,
    geometry: Geometry,
    volume: np.ndarray | None,
    modality: str = "CT",
    slice_words: Callable[[int], str] | None = None,
) -> tuple[Picture, ...]:
    """Pictures of two bool masks [slice, row, column] on ``volume`` (None draws on grey), () when both are
    empty.

    The axial slice with the largest differing area (if any differs), the middle slice, and the coronal and
    sagittal plane through the reference's centre (the other's, when it is empty). Patient right is on the
    viewer's left, superior and anterior up. Uneven slices are repeated to their true heights; tilted stacks
    have axial pictures alone. ``slice_words``: names a slice by its index, where ``geometry`` is not the
    series' own; otherwise it is its number from 1, and z where slices are axial.
    """
    either = reference | other
    if not either.any():
        return ()
    window = (0.0, 1.0) if volume is None else _window(volume[either], modality)
    centre = [int(np.median(index)) for index in np.nonzero(reference if reference.any() else other)]
    wrong = np.count_nonzero(reference ^ other, axis=(1, 2))
    slices = np.flatnonzero(either.any(axis=(1, 2)))
    worst, middle = int(wrong.argmax()), int(np.median(slices))
    planes = [("middle slice", 0, middle)]
    if wrong.any() and worst != middle:
        planes.insert(0, ("slice with the largest difference", 0, worst))
    elif wrong.any():
        planes[0] = ("middle slice and the one with the largest difference", 0, middle)
    if not geometry.is_sheared and geometry.shape[0] > 1:
        planes += [("through the centre", axis, centre[axis]) for axis in (1, 2)]
    pictures = []
    for what, axis, index in planes:
        if axis == 0:
            shown = either[index] if either[index].any() else either.any(axis=0)
            words = slice_words(index) if slice_words else slice_place(geometry, index, shown)
            what = f", {what}: {words}"
        else:
            what = f" {what}"
        pictures.append(_picture(what, axis, index, (reference, other), volume, geometry, window))
    return tuple(pictures)


def slice_place(geometry: Geometry, index: int, shown: np.ndarray) -> str:
    """A slice in words: "31 of 66, z -40.0 mm", z at the middle of what is ``shown``, a bool [row, column];
    without z where slices are not axial."""
    words = f"{index + 1} of {geometry.shape[0]}"
    if anatomical_axes(geometry)[0][0] != 0:
        return words
    middle = np.argwhere(shown).mean(axis=0, keepdims=True)
    return f"{words}, z {geometry.points_lps_mm(index, middle)[0, 2]:.1f} mm"


def _window(values: np.ndarray, modality: str) -> tuple[float, float]:
    """Lowest and highest shown value for what lies inside the structures: fixed for CT, by percentiles for
    other images."""
    if modality == "CT":
        return LUNG_WINDOW_HU if np.median(values) < LUNG_HU else WINDOW_HU
    low, high = np.percentile(values, [1, 99])
    return float(low - (high - low) / 2), float(high + (high - low) / 2 + 1e-6)


def _picture(what, axis, index, masks, volume, geometry, window) -> Picture:
    """The plane at ``index`` of an array axis, cut to what both masks fill and some way around, turned for
    the viewer."""
    order, flips = anatomical_axes(geometry)
    shown, spacing_mm = _even_heights(geometry)
    row_axis, column_axis = [other for other in order if other != axis]
    turn = [flips[order.index(row_axis)] ^ (order.index(row_axis) == 0), flips[order.index(column_axis)]]

    def plane(array: np.ndarray) -> np.ndarray:
        flat = array.take(index, axis)
        flat = flat if axis == 0 else flat[shown]
        flat = flat if row_axis < column_axis else flat.T
        return np.flip(flat, [side for side in (0, 1) if turn[side]])

    a, b = (plane(mask) for mask in masks)
    steps_mm = (spacing_mm[row_axis], spacing_mm[column_axis])
    box = _box(a | b, steps_mm)
    a, b = a[box], b[box]
    grey = np.full(a.shape, 96, dtype=np.uint8)
    if volume is not None:
        low, high = window
        grey = (np.clip((plane(volume)[box] - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    name = {0: "axial", 1: "coronal", 2: "sagittal"}[order.index(axis)]
    return Picture(
        name + what,
        a.shape[1] * steps_mm[1],
        a.shape[0] * steps_mm[0],
        encode_png(grey),
        *(_path(mask, steps_mm) for mask in (a, b, a & ~b, b & ~a)),
    )


def _even_heights(geometry: Geometry) -> tuple[np.ndarray, tuple[float, float, float]]:
    """(for evenly spaced heights, the nearest slice of each; spacing of slices so repeated, of rows, of
    columns)."""
    positions_mm = geometry.slice_positions_mm
    if len(positions_mm) < 2:
        return np.zeros(1, dtype=int), (geometry.pixel_spacing_mm[0], *geometry.pixel_spacing_mm)
    if geometry.is_uniform:
        return np.arange(len(positions_mm)), (
            float(np.abs(np.diff(positions_mm)).mean()),
            *geometry.pixel_spacing_mm,
        )
    gap_mm = float(np.abs(np.diff(positions_mm)).min())
    count = round(abs(positions_mm[-1] - positions_mm[0]) / gap_mm) + 1
    heights_mm = np.linspace(positions_mm[0], positions_mm[-1], count)
    nearest = np.abs(heights_mm[:, None] - positions_mm).argmin(axis=1)
    return nearest, (abs(positions_mm[-1] - positions_mm[0]) / (count - 1), *geometry.pixel_spacing_mm)


def _box(mask: np.ndarray, steps_mm: tuple[float, float]) -> tuple[slice, slice]:
    """What a plane shows: the box of the set pixels and AROUND_MM, or all of it when none is set."""
    if not mask.any():
        return slice(None), slice(None)
    rows, columns = box_of(mask, [math.ceil(AROUND_MM / mm) for mm in steps_mm])
    return rows, columns


def encode_png(grey: np.ndarray) -> str:
    """Base64 text of a uint8 plane as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _path(mask: np.ndarray, steps_mm: tuple[float, float]) -> str:
    """SVG path data in mm of the outlines of a bool plane; "" when nothing is set."""
    parts = []
    for polygon in mask_polygons(mask):
        for ring in (polygon.exterior, *polygon.holes):
            points = (np.asarray(ring)[:, ::-1] + 0.5) * (steps_mm[1], steps_mm[0])
            parts.append("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points.tolist()) + "Z")
    return "".join(parts)
