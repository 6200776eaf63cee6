"""Margins in millimetres: GTV to CTV to PTV, on the patient's own slices, however uneven, tilted or oblique
they are.

The rule: a mask's surface is known at the centres of the faces between set and unset voxels, half-way between
the two voxel centres. A voxel belongs to the expanded mask when it is set, or when its *centre* lies within
the margin of such a point. So a flat face moves out by the margin rounded to whole voxels; measuring from
voxel centres instead would lose half a voxel on every side, and measuring from the voxels' corners would add
as much to a curved surface.

Own code, because growth by SimpleITK's distance map (from voxel centres) comes out 2 to 12 % too small where
this is at most 5 % off, and cannot follow uneven or tilted slices (tools/benchmarks/margin/run.py;
docs/reference/metrics.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from medseg.errors import GeometryError, InputError, StructureError
from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of

DIRECTIONS = {
    "left": (0, 1),
    "right": (0, -1),
    "posterior": (1, 1),
    "anterior": (1, -1),
    "superior": (2, 1),
    "inferior": (2, -1),
}
"""Patient directions as (LPS axis, sign)."""

ROUNDING_MM = 1e-4
"""Points this much beyond the margin still count, because positions in files are rounded decimals."""


def expand(mask: np.ndarray, geometry: Geometry, mm: float | Mapping[str, float]) -> np.ndarray:
    """The bool mask [slice, row, column] grown by ``mm`` in every direction, or shrunk by a negative ``mm``.

    ``mm`` may be a mapping from patient directions (left, right, anterior, posterior, superior, inferior; one
    left out is 0) to margins of 0 or more: the mask grows by an ellipsoid whose eighths have these half axes.
    Shrinking counts everything outside the image as unset. Growth ends at the image border. An empty mask
    stays empty. StructureError for a mask that is not bool, GeometryError for one of another shape and for a
    single slice, whose height is not known, InputError for an unknown direction or a margin that cannot be
    used.
    """
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise StructureError(f"mask of type {mask.dtype}: expected bool; threshold a probability map first.")
    if mask.shape != geometry.shape:
        raise GeometryError(
            f"mask of shape {mask.shape} on an image of {geometry.shape} (slices, rows, columns)."
        )
    if geometry.shape[0] < 2:
        raise GeometryError("one slice has no slice spacing, so a margin across slices is not known.")
    margins_mm, shrink = _margins(mm)
    if not mask.any() or not margins_mm.any():
        return mask.copy()
    # Slices of left-handed NIfTI files descend; the work below is done upwards.
    upwards = slice(None, None, 1 if geometry.slice_positions_mm[0] < geometry.slice_positions_mm[-1] else -1)
    mask, origins = mask[upwards], geometry.origins_lps_mm[upwards]
    steps = np.stack([geometry.row_step_lps_mm, geometry.column_step_lps_mm])
    if not shrink:
        return _grow_in_box(mask, mask, origins, steps, margins_mm)[upwards]
    # One unset voxel all round, so that the mask has a surface at the image border too.
    ends = np.stack([2 * origins[0] - origins[1], 2 * origins[-1] - origins[-2]])
    origins = np.concatenate([ends[:1], origins, ends[1:]]) - steps.sum(axis=0)
    padded = np.pad(mask, 1)
    return ~_grow_in_box(~padded, padded, origins, steps, margins_mm)[1:-1, 1:-1, 1:-1][upwards]


def crop(mask: np.ndarray, container: np.ndarray, geometry: Geometry, inset_mm: float = 0.0) -> np.ndarray:
    """What of a bool mask lies in another, ``inset_mm`` or more inside its surface (0: all of it).

    The inset is a shrinking by :func:`expand`, with its errors. InputError for a negative inset.
    """
    if not (np.isfinite(inset_mm) and inset_mm >= 0):
        raise InputError(f"crop {inset_mm} mm inside a structure: expected 0 or more.")
    return np.asarray(mask) & expand(container, geometry, -inset_mm)


def subtract(mask: np.ndarray, other: np.ndarray, geometry: Geometry, gap_mm: float = 0.0) -> np.ndarray:
    """What of a bool mask lies outside another and at least ``gap_mm`` from its surface (0: outside it).

    The gap is a growth by :func:`expand`, with its errors. InputError for a negative gap.
    """
    if not (np.isfinite(gap_mm) and gap_mm >= 0):
        raise InputError(f"a gap of {gap_mm} mm: expected 0 or more.")
    return np.asarray(mask) & ~expand(other, geometry, gap_mm)


def _margins(mm: float | Mapping[str, float]) -> tuple[np.ndarray, bool]:
    """Half axes (3, 2) in mm per LPS axis and sign (0: negative, 1: positive), and whether to shrink by
    them."""
    margins_mm = np.zeros((3, 2))
    if not isinstance(mm, Mapping):
        if not np.isfinite(mm):
            raise InputError(f"margin {mm} mm: expected a finite number.")
        margins_mm[:] = abs(mm)
        return margins_mm, mm < 0
    for name, value in mm.items():
        if name not in DIRECTIONS:
            raise InputError(f"margin direction {name!r}: expected one of {', '.join(DIRECTIONS)}.")
        if not (np.isfinite(value) and value >= 0):
            raise InputError(
                f"margin of {value} mm to the {name}: expected 0 or more; only one margin for all can shrink."
            )
        axis, sign = DIRECTIONS[name]
        margins_mm[axis, int(sign > 0)] = value
    return margins_mm, False


def _grow_in_box(
    mask: np.ndarray, around: np.ndarray, origins: np.ndarray, steps: np.ndarray, margins_mm: np.ndarray
) -> np.ndarray:
    """The mask grown, working only in the box within the margin (and at least one voxel) of the mask
    ``around``."""
    reach_mm = float(margins_mm.max()) + ROUNDING_MM
    heights_mm = origins @ _normal(steps)
    occupied = box_of(around)
    # The outermost faces lie between the mask's first or last slice and its neighbour.
    first, last = max(occupied[0].start - 1, 0), min(occupied[0].stop, len(heights_mm) - 1)
    low, high = np.searchsorted(heights_mm, [heights_mm[first] - reach_mm, heights_mm[last] + reach_mm])
    slices = slice(int(low), int(high))
    # Slices of a sheared stack shift sideways, and so may what is grown from one into the next.
    drift = np.abs(np.diff(origins[slices], axis=0) @ steps.T).sum(axis=0) / (steps**2).sum(axis=1)
    extra = np.ceil(reach_mm / np.linalg.norm(steps, axis=1) + drift).astype(int) + 1
    rows, columns = (
        slice(max(side.start - int(n), 0), side.stop + int(n))
        for side, n in zip(occupied[1:], extra, strict=True)
    )
    corner = rows.start * steps[0] + columns.start * steps[1]
    result = mask.copy()
    part = mask[slices, rows, columns]
    result[slices, rows, columns] = _grow(part, origins[slices] + corner, steps, margins_mm)
    return result


def _grow(mask: np.ndarray, origins: np.ndarray, steps: np.ndarray, margins_mm: np.ndarray) -> np.ndarray:
    result = mask.copy()
    reach_mm, normal = margins_mm.max() + ROUNDING_MM, _normal(steps)
    for points, origin in _faces(mask, origins, steps):
        sums = np.zeros((points.shape[0], points.shape[1] + 1), dtype=np.int32)
        np.cumsum(points, axis=1, out=sums[:, 1:])
        for index in np.flatnonzero(np.abs((origins - origin) @ normal) <= reach_mm):
            offset = tuple(np.round(origins[index] - origin, 6).tolist())
            runs = _runs(
                offset, tuple(steps.ravel().tolist()), tuple(margins_mm.ravel().tolist()), mask.shape[1:]
            )
            _stamp(result[index], sums, runs)
    return result


def _faces(mask: np.ndarray, origins: np.ndarray, steps: np.ndarray):
    """Planes with face centres, as (bool points [row, column], LPS mm of point (0, 0))."""
    for index, plane in enumerate(mask):
        planes = [
            (plane[1:] ^ plane[:-1], origins[index] + steps[0] / 2),
            (plane[:, 1:] ^ plane[:, :-1], origins[index] + steps[1] / 2),
        ]
        if index + 1 < len(mask):
            planes.append((plane ^ mask[index + 1], (origins[index] + origins[index + 1]) / 2))
        yield from ((points, origin) for points, origin in planes if points.any())


@lru_cache(maxsize=4096)
def _runs(
    offset_mm: tuple, flat_steps_mm: tuple, flat_margins_mm: tuple, shape: tuple[int, int]
) -> list[tuple[int, int, int]]:
    """Which voxels of a slice lie within the margin of a point: (row offset, first column offset, last column
    offset).

    ``offset_mm``: LPS mm from the point to the voxel of offset (0, 0). The ellipsoid's eighths form a convex
    body, so each row of it is one run. No offset leads farther than from one side of the slice, of ``shape``,
    to the other.
    """
    offset, steps = np.array(offset_mm), np.reshape(flat_steps_mm, (2, 3))
    margins_mm = np.reshape(flat_margins_mm, (3, 2))
    centre = -(steps @ offset) / (steps**2).sum(axis=1)
    reach = (margins_mm.max() + ROUNDING_MM) / np.linalg.norm(steps, axis=1)
    low, high = (
        np.maximum(np.floor(centre - reach), np.negative(shape)),
        np.minimum(np.ceil(centre + reach), shape),
    )
    rows, columns = (np.arange(*ends) for ends in zip(low, high + 1, strict=True))
    distance = offset + rows[:, None, None] * steps[0] + columns[None, :, None] * steps[1]
    half_axes = np.where(distance > 0, margins_mm[:, 1], margins_mm[:, 0]) + ROUNDING_MM
    inside = ((distance / half_axes) ** 2).sum(axis=2) <= 1
    return [
        (int(row), int(columns[run[0]]), int(columns[run[-1]]))
        for row, line in zip(rows, inside, strict=True)
        if (run := np.flatnonzero(line)).size
    ]


def _stamp(target: np.ndarray, sums: np.ndarray, runs: list[tuple[int, int, int]]) -> None:
    """Set each voxel of ``target`` [row, column] that some point's run reaches; ``sums`` counts points along
    rows."""
    rows, columns = target.shape
    width = sums.shape[1] - 1
    for row, first, last in runs:
        low, high = max(row, 0), min(rows, sums.shape[0] + row)
        if low >= high:
            continue
        # A voxel in column c is reached from the points in columns c - last ... c - first.
        ends = np.arange(columns)
        counted = sums[low - row : high - row]
        target[low:high] |= (
            counted[:, np.clip(ends - first + 1, 0, width)] != counted[:, np.clip(ends - last, 0, width)]
        )


def _normal(steps: np.ndarray) -> np.ndarray:
    normal = np.cross(steps[1], steps[0])
    return normal / np.linalg.norm(normal)
