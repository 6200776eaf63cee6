"""Where contours lie against a stack of slices: on which, how far off its plane, beside the image or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.geometry import Geometry

SINGLE_SLICE_TOLERANCE_MM = 0.5
"""How far a contour may lie from the only slice of a series, whose height nobody knows."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Arrays (contours,) of contours against the slices of a series.

    ``indices``: the slice nearest to a contour's mean height ``heights_mm`` along the normal.
    ``off_plane_mm``: how far its farthest point lies from that slice's plane. ``stretch_mm``: from its lowest
    to its highest point across the slices. ``tolerances_mm``: half the way to the neighbour on that side;
    beyond an end slice, to its only neighbour. ``beside_mm``: from its box to the image in the plane, 0.0
    where they touch.
    """

    indices: np.ndarray
    heights_mm: np.ndarray
    off_plane_mm: np.ndarray
    stretch_mm: np.ndarray
    tolerances_mm: np.ndarray
    beside_mm: np.ndarray
    distances_mm: np.ndarray

    @property
    def is_flat(self) -> np.ndarray:
        """False for contours that run across the slices."""
        return self.stretch_mm < self.tolerances_mm

    @property
    def is_near(self) -> np.ndarray:
        """False for contours half-way between two slices, or beyond the stack."""
        return self.distances_mm < self.tolerances_mm


def placement(loops: Sequence[np.ndarray], geometry: Geometry) -> Placement:
    """The Placement of at least one loop (n, 3) in LPS mm, none of them without points."""
    counts = np.array([len(points) for points in loops])
    starts = np.cumsum(counts) - counts
    points = np.concatenate(loops)
    heights_mm = points @ geometry.normal_lps
    lowest_mm, highest_mm = np.minimum.reduceat(heights_mm, starts), np.maximum.reduceat(heights_mm, starts)
    mean_mm = np.add.reduceat(heights_mm, starts) / counts
    positions_mm = geometry.slice_positions_mm
    indices = np.abs(positions_mm - mean_mm[:, None]).argmin(axis=1)
    offset_mm = mean_mm - positions_mm[indices]
    off_plane_mm = np.maximum(highest_mm - positions_mm[indices], positions_mm[indices] - lowest_mm)
    return Placement(
        indices,
        mean_mm,
        off_plane_mm,
        highest_mm - lowest_mm,
        _tolerances_mm(indices, offset_mm, positions_mm),
        _beside_mm(points, starts, geometry.origins_lps_mm[indices], geometry),
        np.abs(offset_mm),
    )


def _tolerances_mm(indices: np.ndarray, offset_mm: np.ndarray, positions_mm: np.ndarray) -> np.ndarray:
    if len(positions_mm) == 1:
        return np.full(len(indices), SINGLE_SLICE_TOLERANCE_MM)
    gaps_mm = np.diff(positions_mm)
    towards_next = offset_mm * gaps_mm[0] > 0
    gap_number = np.clip(np.where(towards_next, indices, indices - 1), 0, len(gaps_mm) - 1)
    return 0.499 * np.abs(gaps_mm[gap_number])


def _beside_mm(points: np.ndarray, starts: np.ndarray, origins: np.ndarray, geometry: Geometry) -> np.ndarray:
    apart_mm = []
    steps = (geometry.row_step_lps_mm, geometry.column_step_lps_mm)
    for step, count in zip(steps, geometry.shape[1:], strict=True):
        step_mm = float(np.linalg.norm(step))
        along_mm, zero_mm = points @ (step / step_mm), origins @ (step / step_mm)
        low_mm = np.minimum.reduceat(along_mm, starts) - zero_mm
        high_mm = np.maximum.reduceat(along_mm, starts) - zero_mm
        beyond_mm = np.maximum(-step_mm / 2 - high_mm, low_mm - (count - 0.5) * step_mm)
        apart_mm.append(np.maximum(beyond_mm, 0.0))
    return np.hypot(*apart_mm)


def why_nowhere(loops: Sequence[np.ndarray], geometry: Geometry) -> str | None:
    """Why none of the loops (n, 3) lies on the images, with both places in mm; None where one does, or for no
    loops."""
    if not loops:
        return None
    found = placement(loops, geometry)
    if (found.is_flat & found.is_near & (found.beside_mm == 0)).any():
        return None
    positions_mm = geometry.slice_positions_mm
    low_mm, high_mm = float(positions_mm.min()), float(positions_mm.max())
    heights_mm = found.heights_mm
    what = f"none of its {len(loops)} contours lies on the images: "
    if not found.is_flat.any():
        return f"{what}they run across the slices, over up to {found.stretch_mm.max():.1f} mm of their normal"
    if not found.is_near.any() and ((heights_mm < low_mm) | (heights_mm > high_mm)).all():
        return (
            f"{what}they lie at {heights_mm.min():.1f} to {heights_mm.max():.1f} mm along the slices' normal"
            f", the images at {low_mm:.1f} to {high_mm:.1f} mm"
        )
    if not (found.is_flat & found.is_near).any():
        return f"{what}the nearest lies {found.distances_mm.min():.2f} mm from a slice, half-way to the next"
    corners = [[row, column] for row in (0, geometry.shape[1] - 1) for column in (0, geometry.shape[2] - 1)]
    images = [geometry.points_lps_mm(index, corners) for index in range(geometry.shape[0])]
    return f"{what}they lie at {_box(loops)}, beside the images at {_box(images)}"


def _box(points: Sequence[np.ndarray]) -> str:
    low, high = np.concatenate(points).min(axis=0), np.concatenate(points).max(axis=0)
    sides = (f"{axis} {low[n]:.1f} to {high[n]:.1f}" for n, axis in enumerate("xyz"))
    return ", ".join(sides) + " mm"
