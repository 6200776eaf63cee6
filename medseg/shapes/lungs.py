"""Where the lungs are on a CT: the spaces inside the patient that are as full of air as a lung is."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medseg.shapes.body import body_mask
from medseg.shapes.boxes import box_of
from medseg.shapes.pieces import label_pieces

AIR_HU = -400.0
"""Below: lung, airways, bowel gas; above: soft tissue and most of what a nodule is made of."""

LUNG_HU = (-960.0, -450.0)
"""Means of a lung, from one with emphysema to one breathed out; gas and airways are near -1000."""

COARSE_MM = 2.0
"""Distance of the voxels at which lungs are looked for."""

CLOSED_MM = 8.0
"""Vessels and nodules up to about so wide count as lung. A larger nodule at the wall lies in the box, not in
the mask."""

LEAST_PIECE_CC = 50.0
"""A smaller space is no lung of its own."""

AIRWAY_MM = 4.0
"""Lungs that only the bronchi join come apart under so deep an erosion; gas of the bowel leaves the lung."""


def lung_mask(image_hu: np.ndarray, voxel_mm: tuple[float, float, float]) -> np.ndarray:
    """bool (x, y, z): both lungs on a CT of the same shape whose third axis runs along the body, with the
    vessels and nodules in them; nothing where there is none.

    Looked for on every few voxels (COARSE_MM): spaces of air (below AIR_HU) inside the patient, of at least
    LEAST_PIECE_CC, with the mean of a lung. So air of bowel, stomach, sinuses and trachea is none. The
    outline is as coarse as the look was. Lungs that the edge of the field of view cuts open sideways are
    taken for the air outside.
    """
    steps = [max(round(COARSE_MM / mm), 1) for mm in voxel_mm]
    x_mm, y_mm, z_mm = (step * mm for step, mm in zip(steps, voxel_mm, strict=True))
    coarse = image_hu[tuple(slice(None, None, step) for step in steps)]
    lungs = _lungs(coarse, (x_mm, y_mm, z_mm))
    for axis, step in enumerate(steps):
        nearest = np.minimum((np.arange(image_hu.shape[axis]) + step // 2) // step, coarse.shape[axis] - 1)
        lungs = np.take(lungs, nearest, axis=axis)
    return lungs


def _lungs(image_hu: np.ndarray, voxel_mm: tuple[float, float, float]) -> np.ndarray:
    found = np.zeros(image_hu.shape, dtype=bool)
    air = (image_hu < AIR_HU) & body_mask(image_hu, voxel_mm)
    box = box_of(air, [int(np.ceil(CLOSED_MM / mm)) for mm in voxel_mm])
    air, image_hu = air[box], image_hu[box]
    cores, count = label_pieces(_depth_mm(air, voxel_mm) > AIRWAY_MM, diagonal=False)
    if not count:
        return found
    numbers = np.arange(1, count + 1)
    cc = np.bincount(cores.ravel())[1:] * np.prod(voxel_mm) / 1000
    means = ndimage.mean(image_hu, cores, numbers)
    low, high = LUNG_HU
    kept = np.isin(cores, numbers[(cc >= LEAST_PIECE_CC) & (means > low) & (means < high)])
    if kept.any():
        lungs = air & (_depth_mm(~kept, voxel_mm) <= AIRWAY_MM + max(voxel_mm))
        # A mirrored border, so that a lung goes on beyond the first and the last slice.
        pad = [(int(np.ceil(CLOSED_MM / mm)),) * 2 for mm in voxel_mm]
        widened = _depth_mm(~np.pad(lungs, pad, mode="symmetric"), voxel_mm) <= CLOSED_MM / 2
        inner = tuple(slice(before, -before) for before, _ in pad)
        found[box] = (_depth_mm(widened, voxel_mm) > CLOSED_MM / 2)[inner]
    return found


def _depth_mm(mask: np.ndarray, voxel_mm: tuple[float, ...]) -> np.ndarray:
    return ndimage.distance_transform_edt(mask, sampling=voxel_mm)
