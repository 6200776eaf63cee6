"""Where the patient is on a CT: his mask without couch and headrest, and the box that holds him."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medseg.shapes.boxes import box_of
from medseg.shapes.pieces import largest_piece

TISSUE_HU = -300.0
"""Above: skin and muscle; below: air, lung and the foam of a headrest."""

THIN_MM = 10.0
"""Shells of couches and masks are thinner, a neck is thicker."""

COARSE_MM = 4.0
"""Distance of the voxels at which :func:`body_box` looks."""


def body_mask(image_hu: np.ndarray, voxel_mm: tuple[float, float, float]) -> np.ndarray:
    """bool (x, y, z): the patient on a CT of the same shape, with the air inside and one voxel of skin
    around.

    Tissue (above TISSUE_HU) is cut free of what is thinner than about 10 mm across the third axis, which runs
    along the body; the largest piece is the patient. Ears and nose, lost by that cut, come back where they
    touch him; holes are filled plane by plane. An image without tissue gives an empty mask.
    """
    tissue = image_hu > TISSUE_HU
    reach = [max(1, round(THIN_MM / 2 / mm)) for mm in voxel_mm[:2]]
    across = _disc(*reach)
    core = largest_piece(ndimage.binary_opening(tissue, across), diagonal=False)
    if not core.any():
        return core
    body = core | (ndimage.binary_dilation(core, across) & tissue)
    for plane in range(body.shape[2]):
        body[:, :, plane] = ndimage.binary_fill_holes(body[:, :, plane])
    return ndimage.binary_dilation(body, _disc(1, 1))


def body_box(
    image_hu: np.ndarray, voxel_mm: tuple[float, ...], threshold_hu: float, margin_mm: float
) -> tuple[slice, ...]:
    """The box of the patient on a CT and ``margin_mm`` around him, for a network that is not to see the bore.

    The patient is the largest piece above ``threshold_hu``, looked for on every few voxels (COARSE_MM), so
    the box ends up to one such step farther out. Nothing is cut free: a couch that touches him stays, since a
    box too large costs time and one too small costs the contour. An image without such a piece gives the
    whole image. The threshold is the caller's: the boxes of a bundle belong to its training.
    """
    steps = [max(round(COARSE_MM / mm), 1) for mm in voxel_mm]
    coarse = image_hu[tuple(slice(None, None, step) for step in steps)]
    body = largest_piece(coarse > threshold_hu, diagonal=False)
    if not body.any():
        return tuple(slice(0, n) for n in image_hu.shape)
    margins = [step + int(np.ceil(margin_mm / mm)) for step, mm in zip(steps, voxel_mm, strict=True)]
    return tuple(
        slice(max(side.start * step - margin, 0), min((side.stop - 1) * step + margin + 1, n))
        for side, step, margin, n in zip(box_of(body), steps, margins, image_hu.shape, strict=True)
    )


def _disc(reach_x: int, reach_y: int) -> np.ndarray:
    """bool (2 reach_x + 1, 2 reach_y + 1, 1): voxels within an ellipse around the centre."""
    x, y = np.ogrid[-reach_x : reach_x + 1, -reach_y : reach_y + 1]
    return ((x / reach_x) ** 2 + (y / reach_y) ** 2 <= 1.0)[:, :, None]
