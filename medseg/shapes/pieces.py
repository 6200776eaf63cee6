"""Connected pieces of a mask."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree


def label_pieces(mask: np.ndarray, *, diagonal: bool) -> tuple[np.ndarray, int]:
    """(int array of the mask's shape, 0 outside and 1 ... count in each piece; count) of a bool mask of any
    dimension.

    ``diagonal``: whether voxels that share no more than an edge or a corner belong to one piece.
    """
    neighbours = np.ones((3,) * mask.ndim) if diagonal else None
    pieces, count = ndimage.label(mask, structure=neighbours)
    return pieces, int(count)


def largest_piece(mask: np.ndarray, *, diagonal: bool) -> np.ndarray:
    """The connected piece of a bool mask with the most voxels, the first of several as large; empty stays
    empty.

    ``diagonal``: as in :func:`label_pieces`.
    """
    pieces, count = label_pieces(mask, diagonal=diagonal)
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax() if count else np.zeros_like(mask)


def edge_of(mask: np.ndarray) -> np.ndarray:
    """The voxels of a bool mask of any dimension that lack a neighbour on some axis: what lies nearest to
    anything outside."""
    padded, inner = np.pad(mask, 1), mask.copy()
    for axis in range(mask.ndim):
        for begin in (0, 2):
            begins = [begin if other == axis else 1 for other in range(mask.ndim)]
            inner &= padded[tuple(slice(b, b + size) for b, size in zip(begins, mask.shape, strict=True))]
    return mask & ~inner


def gaps_to_piece_mm(piece: np.ndarray, points_mm: np.ndarray, to: int) -> np.ndarray:
    """float64 (count + 1,): how far in mm each piece lies from piece number ``to``, between the two voxels'
    centres that are nearest to each other; 0 for ``to`` itself and for numbers that no voxel has.

    ``piece``: int (n,), the number of each voxel's piece, from 1; ``points_mm``: its centre (n, 3). Those of
    :func:`edge_of` are enough.
    """
    gaps_mm = np.zeros(piece.max(initial=0) + 1)
    there = piece == to
    if there.any() and not there.all():
        others = piece[~there]
        gaps_mm[others] = np.inf
        # On a grid many points share a coordinate: a tree balanced by medians takes five times as long.
        tree = cKDTree(points_mm[there], balanced_tree=False, compact_nodes=False)
        np.minimum.at(gaps_mm, others, tree.query(points_mm[~there])[0])
    return gaps_mm
