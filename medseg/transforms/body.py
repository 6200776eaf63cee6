"""What lies outside the patient: couch, headrest and mask are blanked for networks that never saw any."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

TISSUE_HU = -300.0
"""Above: skin and muscle; below: air, lung and the foam of a headrest."""

THIN_MM = 10.0
"""Shells of couches and masks are thinner, a neck is thicker."""


def body_mask(image_hu: np.ndarray, voxel_mm: tuple[float, float, float]) -> np.ndarray:
    """bool (x, y, z): the patient on a CT of the same shape, with the air inside and one voxel of skin
    around.

    Tissue (above -300 HU) is cut free of what is thinner than about 10 mm across the third axis, which runs
    along the body; the largest piece is the patient. Ears and nose, lost by that cut, come back where they
    touch him; holes are filled plane by plane. An image without tissue gives an empty mask.
    """
    tissue = image_hu > TISSUE_HU
    reach = [max(1, round(THIN_MM / 2 / mm)) for mm in voxel_mm[:2]]
    across = _disc(*reach)
    core = ndimage.binary_opening(tissue, across)
    pieces, count = ndimage.label(core)
    if not count:
        return np.zeros_like(tissue)
    core = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    body = core | (ndimage.binary_dilation(core, across) & tissue)
    for plane in range(body.shape[2]):
        body[:, :, plane] = ndimage.binary_fill_holes(body[:, :, plane])
    return ndimage.binary_dilation(body, _disc(1, 1))


def _disc(reach_x: int, reach_y: int) -> np.ndarray:
    """bool (2 reach_x + 1, 2 reach_y + 1, 1): voxels within an ellipse around the centre."""
    x, y = np.ogrid[-reach_x : reach_x + 1, -reach_y : reach_y + 1]
    return ((x / reach_x) ** 2 + (y / reach_y) ** 2 <= 1.0)[:, :, None]


class BlankOutsideBodyd(MapTransform):
    """Set everything outside the patient (:func:`body_mask`) to ``blank_hu``, on CTs (1, x, y, z) in HU, z
    along the body.

    An image without tissue becomes blank throughout. The inverse of a chain passes over this step: no voxel
    moves.
    """

    def __init__(self, keys: KeysCollection, blank_hu: float = -1024.0) -> None:
        super().__init__(keys)
        self.blank_hu = blank_hu

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.key_iterator(sample):
            image: MetaTensor = sample[key]
            mask = body_mask(image[0].cpu().numpy(), tuple(image.pixdim[:3].tolist()))
            sample[key] = torch.where(torch.from_numpy(mask)[None].to(image.device), image, self.blank_hu)
        return sample
