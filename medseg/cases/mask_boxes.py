"""Masks as boxes of a datalist: ``{"class", "low", "high"}``, corners in LPS mm, around the voxels' area."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from medseg.errors import InputError
from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of
from medseg.shapes.pieces import label_pieces


def mask_box(mask: np.ndarray, geometry: Geometry) -> tuple[list[float], list[float]]:
    """The low and the high corner, LPS mm, of the smallest box along the patient's axes that holds every
    voxel of a bool mask [slice, row, column] whole. InputError for an empty mask and a single slice, which
    has no height."""
    if not mask.any():
        raise InputError("a box around an empty mask.")
    slices, rows, columns = box_of(mask)
    half_mm = geometry.slice_thickness_mm / 2
    if np.isnan(half_mm).any():
        raise InputError("one slice alone has no height, so a box in it has none; give the whole series.")
    edges = [
        (row, column)
        for row in (rows.start - 0.5, rows.stop - 0.5)
        for column in (columns.start - 0.5, columns.stop - 0.5)
    ]
    points = [
        geometry.points_lps_mm(index, edges) + sign * half_mm[index] * geometry.normal_lps
        for index in (slices.start, slices.stop - 1)
        for sign in (-1, 1)
    ]
    points = np.concatenate(points)
    return tuple([round(float(mm), 3) for mm in end(points, axis=0)] for end in (np.min, np.max))


def voxels_about(geometry: Geometry, corners_lps_mm: np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
    """Of the voxels about a box (2, 3) in LPS mm the first slice, row and column, and where their middles
    lie, LPS mm, float64 (slices, rows, columns, 3): on the slices that go through it all that may lie in it,
    and none where it lies between two slices or beyond them."""
    ends = np.array(list(itertools.product(*corners_lps_mm.T)))
    levels, positions = ends @ geometry.normal_lps, geometry.slice_positions_mm
    inside = np.flatnonzero((positions >= levels.min()) & (positions <= levels.max()))
    if not len(inside):
        return (0, 0, 0), np.zeros((0, 0, 0, 3))
    places = np.concatenate([geometry.rows_columns(index, ends) for index in (inside[0], inside[-1])])
    low = np.clip(np.floor(places.min(axis=0)), 0, geometry.shape[1:]).astype(int)
    high = np.clip(np.ceil(places.max(axis=0)) + 1, 0, geometry.shape[1:]).astype(int)
    grid = np.stack(np.mgrid[low[0] : high[0], low[1] : high[1]], axis=-1)
    points = [
        geometry.points_lps_mm(index, grid.reshape(-1, 2)).reshape(grid.shape[:2] + (3,)) for index in inside
    ]
    return (int(inside[0]), int(low[0]), int(low[1])), np.stack(points)


def mask_boxes(mask: np.ndarray, geometry: Geometry, name: str) -> Iterator[dict[str, Any]]:
    """A box of class ``name`` for each connected piece of a mask; nothing for an empty one."""
    pieces, count = label_pieces(mask, diagonal=True)
    for number in range(1, count + 1):
        low, high = mask_box(pieces == number, geometry)
        yield {"class": name, "low": low, "high": high}
