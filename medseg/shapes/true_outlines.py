"""The outline that a mask or a map most likely stands for: of a mask without the stairs of its pixels, of a
map with the corners that linear interpolation cuts. Straight edges and right corners stay where they are.

Coordinates are (row, column), as in :mod:`medseg.shapes.outlines`.
"""

from __future__ import annotations

import numpy as np

from medseg.shapes.outlines import mask_polygons, probability_polygons

SMOOTHING = 4.0
"""Width of the filter that takes a mask's stairs away, in pixel edges along the outline; a twentieth of all
edges where there are fewer than 80."""

CORNER = 3
"""A corner of a mask is meant, and no stair, where both of its edges are so many pixels long."""

SHARP_DEGREES, STRAIGHT_DEGREES = 45.0, 3.0
"""A map's outline has a corner where it turns by as much within a pixel, between two straight pieces."""


def true_outlines(plane: np.ndarray) -> list[np.ndarray]:
    """Rings (n, 2) around a bool mask, or a map's 0.5 level, [row, column]; none for an empty plane."""
    if plane.dtype == bool:
        make, polygons = without_stairs, mask_polygons(plane)
    else:
        make, polygons = with_corners, probability_polygons(plane)
    return [make(ring) for polygon in polygons for ring in (polygon.exterior, *polygon.holes)]


def steps_along(ring: np.ndarray, step_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """(number of an edge (n,), part of the way along it (n,)) of points on a closed ring in mm, its vertices
    among them, no farther apart than ``step_mm``."""
    length = np.linalg.norm(np.roll(ring, -1, axis=0) - ring, axis=1)
    count = np.maximum(np.ceil(length / step_mm), 1).astype(int)
    owner = np.repeat(np.arange(len(ring)), count)
    return owner, (np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)) / count[owner]


def without_stairs(ring: np.ndarray) -> np.ndarray:
    """A ring along pixel edges as a curve near the middles of these edges, from one corner to the next.

    The middles are smoothed along the ring by 2 G - G G, G a Gaussian. It has no second moment, so that,
    unlike G, it does not pull a curve inwards.
    """
    length = np.abs(np.roll(ring, -1, axis=0) - ring).sum(axis=1)
    corners = np.flatnonzero((length >= CORNER) & (np.roll(length, 1) >= CORNER))
    if not corners.size:
        return _smoothed(_edge_middles(ring, np.roll(ring, -1, axis=0)))
    ring, corners = np.roll(ring, -corners[0], axis=0), corners - corners[0]
    ends = np.append(corners[1:], len(ring))
    closed = np.concatenate([ring, ring[:1]])
    return np.concatenate([_chain(closed[a : b + 1]) for a, b in zip(corners, ends, strict=True)])


def _edge_middles(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The middles of all pixel edges between the points of a ring."""
    count = np.rint(np.abs(end - start).sum(axis=1)).astype(int)
    owner = np.repeat(np.arange(len(start)), count)
    part = (np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[owner]
    return start[owner] + part[:, None] * (end - start)[owner]


def _chain(points: np.ndarray) -> np.ndarray:
    """From one corner to the next, both of which stay, without the second."""
    if len(points) == 2:
        return points[:1]
    middles = _edge_middles(points[:-1], points[1:])
    whole = np.concatenate([points[:1], middles, points[-1:]])
    part = np.linspace(0, 1, len(whole))[:, None]
    chord = (1 - part) * whole[0] + part * whole[-1]
    off = whole - chord
    # Turned over beyond both corners, the filter leaves them where they are.
    mirrored = np.concatenate([off, -off[-2:0:-1]])
    return (chord + _smoothed(mirrored)[: len(whole)])[:-1]


def _smoothed(points: np.ndarray) -> np.ndarray:
    """Points (n, 2) of a closed ring, filtered along it."""
    width = min(SMOOTHING, len(points) / 20)
    turn = 2 * np.pi * np.fft.fftfreq(len(points))
    lost = 1 - np.exp(-((width * turn) ** 2) / 2)
    found = np.fft.ifft(np.fft.fft(points @ [1, 1j]) * (1 - lost**2))
    return np.stack([found.real, found.imag], axis=1)


def with_corners(ring: np.ndarray) -> np.ndarray:
    """A ring of a map's level with its corners: an edge of at most a pixel's diagonal between two straight
    pieces becomes the point where these meet."""
    if len(ring) < 6:
        return ring
    edge = np.roll(ring, -1, axis=0) - ring
    angle = np.arctan2(edge[:, 1], edge[:, 0])
    turn = np.degrees((np.roll(angle, -1) - angle + np.pi) % (2 * np.pi) - np.pi)  # to the next edge
    straight = np.abs(turn) < STRAIGHT_DEGREES
    whole = np.roll(turn, 1) + turn
    cut = (
        (np.linalg.norm(edge, axis=1) <= np.sqrt(2))
        & (np.abs(whole) >= SHARP_DEGREES)
        & (np.abs(whole) < 180 - SHARP_DEGREES)
        & np.roll(straight, 2)
        & np.roll(straight, -1)
    )
    places, corners = [], []
    for number in np.flatnonzero(cut):
        came, goes, after = edge[number - 1], edge[(number + 1) % len(ring)], (number + 1) % len(ring)
        along, _ = np.linalg.solve(np.stack([came, -goes], axis=1), ring[after] - ring[number])
        if 0 <= along * np.linalg.norm(came) <= 1:
            places.append(number + 1)
            corners.append(ring[number] + along * came)
    return np.insert(ring, places, corners, axis=0) if places else ring
