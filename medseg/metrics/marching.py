"""Marching squares and cubes on masks: where outlines and surfaces lie, and how long and large they are."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np


def neighbourhood_codes(mask: np.ndarray) -> np.ndarray:
    """uint8 at every corner between voxels: a bit for each of its 8 voxels, earlier ones higher; 0, 255: no
    surface."""
    codes = np.pad(mask, 1).astype(np.uint8)
    codes = codes[:, :, :-1] << np.uint8(1) | codes[:, :, 1:]
    codes = codes[:, :-1] << np.uint8(2) | codes[:, 1:]
    return codes[:-1] << np.uint8(4) | codes[1:]


def is_surface(codes: np.ndarray, full: int) -> np.ndarray:
    """bool: where a neighbourhood is neither empty (0) nor ``full``; subtraction wraps 0 round to 255."""
    return codes - np.uint8(1) < full - 1


def outline_codes(mask: np.ndarray) -> np.ndarray:
    """uint8 at every corner between the pixels of each slice: a bit for each of its 4 pixels; 0, 15: no
    outline."""
    codes = np.pad(mask, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
    codes = codes[:, :, :-1] << np.uint8(1) | codes[:, :, 1:]
    return codes[:, :-1] << np.uint8(2) | codes[:, 1:]


def length_by_code(row_mm: float, column_mm: float) -> np.ndarray:
    """float64 (16,): length in mm of the outline between the 4 pixel centres of each code, crossing edges
    half-way."""
    slant_mm = np.hypot(row_mm, column_mm) / 2
    by_count = {1: slant_mm, 2: 2 * slant_mm, 3: slant_mm}
    lengths_mm = [by_count.get(code.bit_count(), 0.0) for code in range(16)]
    lengths_mm[0b0011] = lengths_mm[0b1100] = column_mm  # the two pixels of one row are set
    lengths_mm[0b0101] = lengths_mm[0b1010] = row_mm
    return np.array(lengths_mm)


@lru_cache(maxsize=256)
def area_by_code(steps_mm: tuple[float, ...]) -> np.ndarray:
    """float64 (256,): area in mm2 of the surface between the 8 voxel centres of each neighbourhood code.

    ``steps_mm``: nine numbers, the vectors from slice to slice, row to row and column to column.
    """
    triangles = triangles_by_code() @ np.reshape(steps_mm, (3, 3))
    sides = triangles[:, :, 1:] - triangles[:, :, :1]
    return np.linalg.norm(np.cross(sides[:, :, 0], sides[:, :, 1]), axis=-1).sum(axis=1) / 2


@lru_cache(maxsize=1)
def triangles_by_code() -> np.ndarray:
    """float64 (256, 4, 3, 3): up to four triangles of three points of each code, in voxels; the rest have no
    area.

    Lorensen and Cline's marching cubes (1987): the surface crosses the cube's edges half-way, and where a
    face allows two ways, it cuts off the corners of the rarer kind. Of the ways to fill a bent loop with
    triangles, the one of largest area is taken; this gives the areas of DeepMind's table, as a test shows at
    several spacings.
    """
    table = np.zeros((256, 4, 3, 3))
    for code in range(256):
        triangles = [triangle for loop in _cube_loops(code) for triangle in _largest_filling(loop)]
        table[code, : len(triangles)] = np.reshape(triangles, (-1, 3, 3))
    return table


def _cube_loops(code: int) -> list[tuple]:
    """The closed loops of points in which the surface of a neighbourhood code crosses the faces of its unit
    cube."""
    rarer = int(code.bit_count() <= 4)
    links: dict[tuple, list[tuple]] = {}
    for axis, side in np.ndindex(3, 2):
        corners = [np.insert([i, j], axis, side) for i, j in ((0, 0), (0, 1), (1, 1), (1, 0))]
        is_set = [code >> int(7 - corner @ [4, 2, 1]) & 1 for corner in corners]
        middles = [tuple((corners[n] + corners[(n + 1) % 4]) / 2) for n in range(4)]
        crossed = [n for n in range(4) if is_set[n] != is_set[(n + 1) % 4]]
        pairs = (
            [crossed]
            if len(crossed) == 2
            else [(n - 1, n) for n in range(4) if crossed and is_set[n] == rarer]
        )
        for first, second in pairs:
            links.setdefault(middles[first], []).append(middles[second])
            links.setdefault(middles[second], []).append(middles[first])
    loops = []
    while links:
        here: tuple | None = next(iter(links))
        loop = []
        while here in links:
            loop.append(here)
            here = next((point for point in links.pop(here) if point in links), None)
        loops.append(tuple(loop))
    return loops


@cache
def _largest_filling(loop: tuple[tuple[float, float, float], ...]) -> tuple[tuple, ...]:
    """The triangles, three points each, between the points of a loop that together have the largest area."""
    if len(loop) < 3:
        return ()
    fillings = [
        (*_largest_filling(loop[: apex + 1]), (loop[0], loop[apex], loop[-1]), *_largest_filling(loop[apex:]))
        for apex in range(1, len(loop) - 1)
    ]
    return max(fillings, key=lambda triangles: sum(map(_double_area, triangles)))


@cache
def _double_area(triangle: tuple[tuple[float, float, float], ...]) -> float:
    a, b, c = np.array(triangle)
    return float(np.linalg.norm(np.cross(b - a, c - a)))
