"""Margins in millimetres: GTV to CTV to PTV, on the patient's own slices, however uneven, tilted or oblique
they are.

The rule: a voxel's value is its signed distance from the surface of the structure
(:mod:`medseg.shapes.surface`), less the margin, as a ramp about 0.5. So the 0.5 level of the map, which every
writer contours between the voxels, is the surface itself moved by the margin, not rounded to whole voxels.

Own code, because growth by SimpleITK's distance map (from voxel centres) comes out 2 to 13 % too small, moves
by whole voxels, and cannot follow uneven or tilted slices (tools/benchmarks/margin/run.py;
docs/reference/metrics.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from medseg import limits
from medseg.errors import GeometryError, InputError, StructureError
from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of
from medseg.shapes.drawn import RAMP_PIXELS
from medseg.shapes.surface import Surface, surface_of

DIRECTIONS = {
    "left": (0, 1),
    "right": (0, -1),
    "posterior": (1, 1),
    "anterior": (1, -1),
    "superior": (2, 1),
    "inferior": (2, -1),
}
"""Patient directions as (LPS axis, sign)."""

LEAST_MM = 0.4
"""The smallest half axis of an ellipsoid, about half the distance of the surface's points: in a direction
that is left out, an edge may grow that far."""

JUST_BELOW = 0.499
"""The value of what is outside by no more than rounding."""

THIN_MM = 0.5
"""Of the surface's points one is kept in each cube of this side, unless an ellipsoid is about as flat as that
leaves them apart."""


def expand(volume: np.ndarray, geometry: Geometry, mm: float | Mapping[str, float]) -> np.ndarray:
    """A structure [slice, row, column] grown by ``mm`` in every direction, or shrunk by a negative ``mm``: a
    float32 map from 0 to 1, inside from 0.5 on.

    ``volume``: a bool mask, or a map whose 0.5 level is the surface. ``mm`` may be a mapping from patient
    directions (left, right, anterior, posterior, superior, inferior; one left out is 0) to margins of 0 or
    more: the structure grows by an ellipsoid whose eighths have these half axes. The border of the image is
    no surface: growth ends there, and nothing is shrunk from there. An empty structure stays empty; a margin
    of 0 gives back the values as they are. StructureError for an array of another type or with values outside
    0 to 1, GeometryError for one of another shape and for a single slice, whose height is not known,
    InputError for an unknown direction, a margin that cannot be used and one beyond
    the limit ``margin_mm``.
    """
    volume = _as_map(volume, geometry)
    margins_mm, shrink = _margins(mm)
    result = volume.astype(np.float32)
    inside = volume if volume.dtype == bool else volume >= 0.5
    if not inside.any() or not margins_mm.any():
        return result
    surface = surface_of(volume, geometry)
    if np.ptp(margins_mm) == 0 or margins_mm.min() > 2 * THIN_MM:
        surface = surface.thinned(THIN_MM)
    width_mm = RAMP_PIXELS * max(geometry.pixel_spacing_mm)
    box, near = _near(surface.points_lps_mm, geometry, float(margins_mm.max()) + width_mm / 2, inside.shape)
    result = inside.astype(np.float32)
    if not near.any():
        return result
    voxels = Voxels(
        np.concatenate([_centres(geometry, box, near, index) for index in range(len(near))]),
        inside[box][near],
        geometry.normal_lps,
        width_mm,
    )
    if np.ptp(margins_mm) == 0:
        margin_mm = float(margins_mm.max())
        beyond_mm = _beyond_ball(surface.points_lps_mm, voxels, -margin_mm if shrink else margin_mm)
    else:
        beyond_mm = _beyond_ellipsoid(surface, voxels, margins_mm)
    result[box][near] = np.clip(0.5 - beyond_mm / width_mm, 0, 1)
    return result


def crop(volume: np.ndarray, container: np.ndarray, geometry: Geometry, inset_mm: float = 0.0) -> np.ndarray:
    """What of a structure lies in another, ``inset_mm`` or more inside its surface (0: all of it), as a map.

    The inset is a shrinking by :func:`expand`, with its errors, so the end of the scan is no surface.
    InputError for a negative inset.
    """
    if not (np.isfinite(inset_mm) and inset_mm >= 0):
        raise InputError(f"crop {inset_mm} mm inside a structure: expected 0 or more.")
    return np.minimum(_as_map(volume, geometry).astype(np.float32), expand(container, geometry, -inset_mm))


def subtract(volume: np.ndarray, other: np.ndarray, geometry: Geometry, gap_mm: float = 0.0) -> np.ndarray:
    """What of a structure lies outside another and at least ``gap_mm`` from its surface (0: outside it), as a
    map.

    The gap is a growth by :func:`expand`, with its errors. InputError for a negative gap.
    """
    if not (np.isfinite(gap_mm) and gap_mm >= 0):
        raise InputError(f"a gap of {gap_mm} mm: expected 0 or more.")
    grown = expand(other, geometry, gap_mm)
    outside = np.where(grown >= 0.5, np.minimum(1 - grown, JUST_BELOW), 1 - grown)
    return np.minimum(_as_map(volume, geometry).astype(np.float32), outside)


def _as_map(volume: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The array, checked as :func:`expand` says."""
    volume = np.asarray(volume)
    if volume.dtype != bool and (
        volume.dtype.kind != "f" or (volume.size and not (volume.min() >= -1e-3 and volume.max() <= 1.001))
    ):
        raise StructureError(f"array of type {volume.dtype}: expected a bool mask, or a map from 0 to 1.")
    if volume.shape != geometry.shape:
        raise GeometryError(
            f"mask of shape {volume.shape} on an image of {geometry.shape} (slices, rows, columns)."
        )
    if geometry.shape[0] < 2:
        raise GeometryError("one slice has no slice spacing, so a margin across slices is not known.")
    return volume if volume.dtype == bool else volume.clip(0, 1)


def _margins(mm: float | Mapping[str, float]) -> tuple[np.ndarray, bool]:
    """Half axes (3, 2) in mm per LPS axis and sign (0: negative, 1: positive), and whether to shrink by
    them."""
    margins_mm = np.zeros((3, 2))
    if not isinstance(mm, Mapping):
        if not np.isfinite(mm):
            raise InputError(f"margin {mm} mm: expected a finite number.")
        limits.check_margin(mm)
        margins_mm[:] = abs(mm)
        return margins_mm, mm < 0
    for name, value in mm.items():
        if name not in DIRECTIONS:
            raise InputError(f"margin direction {name!r}: expected one of {', '.join(DIRECTIONS)}.")
        if not (np.isfinite(value) and value >= 0):
            raise InputError(
                f"margin of {value} mm to the {name}: expected 0 or more; only one margin for all can shrink."
            )
        limits.check_margin(value)
        axis, sign = DIRECTIONS[name]
        margins_mm[axis, int(sign > 0)] = value
    return margins_mm, False


def _near(points: np.ndarray, geometry: Geometry, reach_mm: float, shape: tuple) -> tuple:
    """(box, bool array of the box): voxels that may lie within ``reach_mm`` of a point, and some around."""
    if not len(points):
        return (slice(0, 0),) * 3, np.zeros((0, 0, 0), dtype=bool)
    heights_mm = geometry.slice_positions_mm
    order = np.argsort(heights_mm)
    middles = (heights_mm[order][1:] + heights_mm[order][:-1]) / 2
    index = order[np.searchsorted(middles, points @ geometry.normal_lps)]
    pixels = np.stack(
        [
            (points - geometry.origins_lps_mm[index]) @ step / (step @ step)
            for step in (geometry.row_step_lps_mm, geometry.column_step_lps_mm)
        ]
    )
    rows, columns = (
        np.clip(np.rint(at).astype(int), 0, n - 1) for at, n in zip(pixels, shape[1:], strict=True)
    )
    hit = np.zeros(shape, dtype=bool)
    hit[index, rows, columns] = True
    # Slices of a sheared stack shift sideways, and so may what is grown from one into the next.
    steps = np.stack([geometry.row_step_lps_mm, geometry.column_step_lps_mm])
    length_mm = np.linalg.norm(steps, axis=1)
    gaps_mm = np.abs(np.diff(heights_mm))
    slope = np.abs(np.diff(geometry.origins_lps_mm, axis=0) @ (steps / length_mm[:, None]).T)
    shift_mm = (slope / gaps_mm[:, None]).max(axis=0) * (reach_mm + gaps_mm.max())
    longest = np.max(shape[1:])
    extra = [int(n) for n in np.minimum(np.ceil((reach_mm + shift_mm) / length_mm) + 1, longest)]
    box = box_of(hit, [shape[0], *extra])
    near = hit[box]
    for axis, reach in zip((1, 2), extra, strict=True):
        near = ndimage.maximum_filter1d(near, 2 * reach + 1, axis=axis, mode="constant")
    spread = np.zeros_like(near)
    for source in np.flatnonzero(near.any(axis=(1, 2))):
        within = np.abs(heights_mm - heights_mm[source]) <= reach_mm + gaps_mm.max()
        spread[within] |= near[source]
    return box, spread


def _centres(geometry: Geometry, box: tuple, near: np.ndarray, index: int) -> np.ndarray:
    """LPS mm (n, 3) of the voxels of one slice of ``near``."""
    rows_columns = np.argwhere(near[index]) + [box[1].start, box[2].start]
    return geometry.points_lps_mm(box[0].start + index, rows_columns)


class Voxels(NamedTuple):
    """Voxels that are measured: ``centres_lps_mm`` (n, 3), bool (n,) ``inside`` the structure; unit vector
    (3,) ``normal_lps`` of their slices; ``width_mm`` of the ramp about the new surface."""

    centres_lps_mm: np.ndarray
    inside: np.ndarray
    normal_lps: np.ndarray
    width_mm: float


def _beyond_ball(points: np.ndarray, voxels: Voxels, margin_mm: float) -> np.ndarray:
    """About how many mm, within its slice, each voxel lies beyond the surface moved by ``margin_mm``; what is
    farther than half the ramp may be infinite.

    A voxel at a height h over its nearest point is in when it is within sqrt(margin² - h²) of it across: that
    distance is nearly linear in the slice, where contours are drawn, unlike the one in space.
    """
    tree, width_mm = cKDTree(points), voxels.width_mm
    grows = margin_mm > 0
    beyond = np.where(voxels.inside, -np.inf, np.inf)
    for side in (False, True):  # outside the structure, then inside
        reach_mm = abs(margin_mm) * (1 if side != grows else -1) + width_mm / 2
        some = np.flatnonzero(voxels.inside == side)
        if reach_mm <= 0 or not some.size:
            continue
        centres = voxels.centres_lps_mm[some]
        found, nearest = tree.query(centres, distance_upper_bound=reach_mm)
        known = np.isfinite(found)
        away = centres[known] - points[nearest[known]]
        signed = -found[known] if side else found[known]
        off = signed - margin_mm
        if side != grows:
            height2 = (away @ voxels.normal_lps) ** 2
            left2 = margin_mm**2 - height2
            across = np.sqrt(np.maximum(found[known] ** 2 - height2, 0)) - np.sqrt(np.maximum(left2, 0))
            off = np.where(left2 > 0, across if grows else -across, off)
        beyond[some[known]] = off
        if side != grows:  # out of reach, on the side to which the surface moves
            beyond[some[~known]] = np.inf if grows else -np.inf
    return beyond


def _beyond_ellipsoid(surface: Surface, voxels: Voxels, margins_mm: np.ndarray) -> np.ndarray:
    """About how many mm each voxel lies beyond the nearest of the ellipsoids around the points.

    The ellipsoid's eighths differ. Where the nearest point lies from a voxel in one of the eight directions,
    the surface there faces that way (the ellipsoid touches the surface, and both have one normal): so each
    eighth has a tree of the points that face its way, in units of its half axes. What lies beyond an
    ellipsoid is measured along the ray from its middle.
    """
    centres, width_mm = voxels.centres_lps_mm, voxels.width_mm
    half = np.maximum(margins_mm, LEAST_MM)
    tree = cKDTree(surface.points_lps_mm)
    signed_mm = np.where(voxels.inside, -np.inf, np.inf)
    outside = ~voxels.inside
    signed_mm[outside], _ = tree.query(centres[outside], distance_upper_bound=half.max() + width_mm / 2)
    if margins_mm.min() < width_mm / 2:
        depth_mm, _ = tree.query(centres[voxels.inside], distance_upper_bound=width_mm / 2 - margins_mm.min())
        signed_mm[voxels.inside] = -depth_mm
    beyond = np.minimum(signed_mm, width_mm)
    sure = signed_mm < float(margins_mm.min()) - width_mm / 2
    beyond[sure] = -width_mm
    wanted = np.flatnonzero(~sure & np.isfinite(signed_mm))
    for lengths, facing in _eighths(half, surface.outwards).items():
        points, axes = surface.points_lps_mm[facing], np.array(lengths)
        bound = 1 + width_mm / 2 / max(axes.min(), 1.0)
        tree = cKDTree(points / axes)
        scaled, nearest = tree.query(centres[wanted] / axes, distance_upper_bound=bound)
        met = np.isfinite(scaled)
        away = centres[wanted[met]] - points[nearest[met]]
        scaled = np.linalg.norm(away / np.where(away > 0, half[:, 1], half[:, 0]), axis=1)
        off = np.linalg.norm(away, axis=1) * (1 - 1 / np.maximum(scaled, 1e-9))
        np.minimum.at(beyond, wanted[met], off)
    return beyond


def _eighths(half_mm: np.ndarray, outwards: np.ndarray) -> dict[tuple, np.ndarray]:
    """{half axes of an eighth of the ellipsoid: bool (n,) of the points that may face its way}."""
    found: dict[tuple, np.ndarray] = {}
    for signs in itertools.product((0, 1), repeat=3):
        axes = tuple(half_mm[range(3), signs].tolist())
        facing = (outwards * (2 * np.array(signs) - 1) >= 0).all(axis=1)
        found[axes] = found[axes] | facing if axes in found else facing
    return found
