"""What lies outside the patient: couch, headrest and mask are blanked for networks that never saw any."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.shapes.body import body_mask


class BlankOutsideBodyd(MapTransform):
    """Set everything outside the patient (:func:`medseg.shapes.body.body_mask`) to ``blank_hu``, on
    CTs (1, x, y, z) in HU, z along the body.

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
