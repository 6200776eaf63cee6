"""From points inside a tumour to the box that a bundle of boxes contours in: look, take what was found at the
points, look closer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from medseg.bundles.find import Bundle
from medseg.errors import BundleError, InputError, MedsegWarning
from medseg.geometry import Geometry

MOST_LOOKS = 2
"""Boxes that are looked at on the way to the one that is contoured."""

STILL_MM = 2.0
"""A box none of whose sides moves by more is found: a voxel of the network."""

Look = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""A box (3, 2) of LPS mm to the network's answer in it: logits (x, y, z), and the 4x4 that takes an index to
LPS mm."""


@dataclass(frozen=True)
class Clicks:
    """How a bundle starts from points: the side of the cube to begin with, and the margin of the boxes that
    it learned from."""

    cube_mm: float
    margin_mm: float


@dataclass(frozen=True, eq=False)
class Found:
    """``box_mm`` (3, 2) LPS, found in so many looks."""

    box_mm: np.ndarray
    looks: int

    @property
    def within(self) -> str:
        """The box as :func:`medseg.cases.region.region_mask` takes it."""
        return region_text(self.box_mm)

    def record(self, points_lps_mm: Sequence[Sequence[float]]) -> dict[str, Any]:
        """Plain values for run.json."""
        points = [list(map(float, point)) for point in points_lps_mm]
        return {"at": points, "within": self.within, "looks": self.looks}


def region_text(box_mm: np.ndarray) -> str:
    """A box (3, 2) of LPS mm as the text of a region."""
    return ",".join(f"{value:.1f}" for value in box_mm.ravel())


def clicks_of(bundle: Bundle) -> Clicks:
    """What metadata.json says under "clicks". InputError for a bundle that takes no points, BundleError for
    what is no such table."""
    said = bundle.metadata.get("clicks")
    if said is None:
        raise InputError(f"`at`: {bundle.name} takes no points. Say where to look: `within`.")
    try:
        cube_mm, margin_mm = float(said["cube_mm"]), float(said["margin_mm"])
        if not 0 <= 2 * margin_mm < cube_mm:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f'bundle {bundle.name}: metadata.json says clicks {said!r}; expected "cube_mm" and "margin_mm", '
            "which fits into it twice."
        ) from error
    return Clicks(cube_mm, margin_mm)


def require_inside(points_lps_mm: Sequence[Sequence[float]], geometry: Geometry) -> None:
    """InputError for a point (n, 3) that lies in no voxel of the image."""
    for point in points_lps_mm:
        index, off_mm = geometry.nearest_slice([point])
        at = geometry.rows_columns(index, [point])[0]
        in_plane = (at >= -0.5).all() and (at <= np.array(geometry.shape[1:]) - 0.5).all()
        if not in_plane or off_mm > geometry.slice_thickness_mm[index] / 2:
            said = ",".join(f"{value:g}" for value in point)
            raise InputError(
                f"`at` {said}: outside the image; expected a point inside the tumour, in LPS mm."
            )


def search(look: Look, points_lps_mm: Sequence[Sequence[float]], clicks: Clicks) -> Found:
    """The box around what the network finds at the points (n, 3), all of which are to lie inside.

    From a cube around the points: look, take the pieces of the answer that hold a point (the nearest one
    where it lies beside all), and draw the next box around these and the points, with the margin that the
    network knows; until the box stays, or MOST_LOOKS times. InputError when nothing is found.
    """
    points = np.asarray(points_lps_mm, dtype=np.float64).reshape(-1, 3)
    low, high = points.min(0), points.max(0)
    half_mm = np.maximum(clicks.cube_mm / 2, (high - low) / 2 + clicks.margin_mm)
    box_mm, looks = _box((low + high) / 2 - half_mm, (low + high) / 2 + half_mm), 0
    while looks < MOST_LOOKS:
        looks += 1
        logits, to_mm = look(box_mm)
        mask = logits >= 0
        if not mask.any():
            raise InputError(
                "nothing was found at the points of `at`; draw a box around the tumour: `within`."
            )
        found, beside_mm = _at_points(mask, to_mm, points)
        before, box_mm = box_mm, _around(found, to_mm, points, clicks.margin_mm)
        if np.abs(box_mm - before).max() <= STILL_MM:
            break
    if beside_mm > clicks.margin_mm:
        warnings.warn(
            f"a point of `at` lies {beside_mm:.0f} mm beside what was found: what is contoured may be "
            "something else. Look, or draw a box around the tumour: `within`.",
            MedsegWarning,
            stacklevel=2,
        )
    return Found(box_mm, looks)


def _box(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.stack([low, high], axis=1)


def _at_points(mask: np.ndarray, to_mm: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """(bool, the pieces of ``mask`` that hold a point or are nearest to it; how far in mm the furthest point
    lies from ``mask``, which is not empty)."""
    pieces, _ = ndimage.label(mask)
    inverse = np.linalg.inv(to_mm)
    indices = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    indices = np.clip(indices, 0, np.array(mask.shape) - 1)
    spacing_mm = np.linalg.norm(to_mm[:3, :3], axis=0)
    away_mm, nearest = ndimage.distance_transform_edt(~mask, spacing_mm, return_indices=True)
    numbers = {int(pieces[tuple(nearest[(slice(None), *index)])]) for index in indices}
    return np.isin(pieces, list(numbers)), float(away_mm[tuple(indices.T)].max())


def _around(found: np.ndarray, to_mm: np.ndarray, points: np.ndarray, margin_mm: float) -> np.ndarray:
    """The box (3, 2) around the voxels of ``found``, whole, and the points, and ``margin_mm`` more."""
    indices = np.argwhere(found)
    ends = np.stack([indices.min(0) - 0.5, indices.max(0) + 0.5])
    corners = np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)
    corners_mm = np.concatenate([corners @ to_mm[:3, :3].T + to_mm[:3, 3], points])
    return _box(corners_mm.min(0) - margin_mm, corners_mm.max(0) + margin_mm)
