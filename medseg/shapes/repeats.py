"""Outlines that are stored more than once: the same shape, however its vertices are listed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAME_OUTLINE_MM = 0.1
"""Outlines nowhere further apart than this are one: writers round to a tenth of a millimetre, and no wall of
an organ is thinner."""

SAME_OUTLINE_SHARE = 0.01
"""The same as a share of an outline's diagonal, for outlines that are themselves small: specks of a few
pixels."""


def first_copies(loops_mm: Sequence[np.ndarray]) -> list[int]:
    """For each closed loop (n, 2) in mm the number of the first one that has its outline; its own where it is
    the first.

    Start, direction, vertices on straight edges, a last point that repeats the first and shifts below
    SAME_OUTLINE_MM (or SAME_OUTLINE_SHARE of the diagonal, where that is less) make no difference. Outlines
    are compared both ways at their vertices and at two points of every edge. No loops give an empty list.
    """
    if len(loops_mm) < 2:
        return list(range(len(loops_mm)))
    counts = np.array([len(loop) for loop in loops_mm])
    points, starts = np.concatenate(loops_mm), np.cumsum(counts) - counts
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    boxes = np.concatenate([low, high], axis=1)
    tolerances_mm = np.minimum(SAME_OUTLINE_MM, SAME_OUTLINE_SHARE * np.hypot(*(high - low).T))
    owners: list[int] = []
    first: list[int] = []
    for number, loop in enumerate(loops_mm):
        tolerance_mm = tolerances_mm[number]
        near = np.abs(boxes[first] - boxes[number]).max(axis=1) <= tolerance_mm if first else ()
        alike = (first[place] for place in np.flatnonzero(near))
        owner = next((other for other in alike if _same(loops_mm[other], loop, tolerance_mm)), number)
        owners.append(owner)
        if owner == number:
            first.append(number)
    return owners


def _same(one: np.ndarray, other: np.ndarray, tolerance_mm: float) -> bool:
    if one.shape == other.shape and np.array_equal(one, other):
        return True
    perimeter_mm = np.linalg.norm(one - np.roll(one, 1, axis=0), axis=1).sum()
    if abs(abs(_area(one)) - abs(_area(other))) > perimeter_mm * tolerance_mm:
        return False
    return _lies_on(one, other, tolerance_mm) and _lies_on(other, one, tolerance_mm)


def _lies_on(one: np.ndarray, other: np.ndarray, tolerance_mm: float) -> bool:
    """Whether the vertices of one loop, and two points of each of its edges, lie on the other's outline.

    The same points in another order are another shape, which points of edges tell.
    """
    import shapely  # here, because few sets store an outline twice and it loads slowly

    after = np.roll(one, -1, axis=0)
    points = np.concatenate([one, 0.7 * one + 0.3 * after, 0.4 * one + 0.6 * after])
    ring = shapely.linearrings(other)
    shapely.prepare(ring)
    return bool(shapely.dwithin(ring, shapely.points(points), tolerance_mm).all())


def _area(loop: np.ndarray) -> float:
    x, y = (loop - loop[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
