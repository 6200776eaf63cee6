"""Connected pieces of a mask."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


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
