"""A CT cut to its lungs, and one without lungs refused."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform

from medseg.errors import InputError
from medseg.shapes.boxes import box_of
from medseg.shapes.lungs import lung_mask


class CropLungsd(MapTransform, InvertibleTransform):
    """Crop CTs (1, x, y, z) in HU, z along the body, to the box of both lungs
    (:func:`medseg.shapes.lungs.lung_mask`) and ``margin_mm`` around it.

    A CT with less than ``least_cc`` of lung is refused (InputError): a network for nodules finds some
    anywhere. The affine of a MetaTensor says where the box lies, so boxes in mm need no change; the inverse
    pads with zeros. A part of a chest is taken as long as it holds so much lung.
    """

    def __init__(self, keys: KeysCollection = "image", margin_mm: float = 10.0, least_cc: float = 200.0):
        MapTransform.__init__(self, keys)
        if margin_mm < 0:
            raise InputError(f"margin_mm is {margin_mm}; expected 0 or more.")
        self.margin_mm, self.least_cc, self.cropper = margin_mm, least_cc, Crop()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.cropper(d[key], list(self._box(d[key])))
        return d

    def _box(self, image: MetaTensor) -> tuple[slice, ...]:
        voxel_mm = tuple(float(mm) for mm in image.pixdim)
        lungs = lung_mask(image.as_tensor()[0].cpu().numpy(), voxel_mm)
        cc = float(np.count_nonzero(lungs) * np.prod(voxel_mm) / 1000)
        if cc < self.least_cc:
            raise InputError(
                f"{image.meta.get('filename_or_obj', 'the image')}: {cc:.0f} cc of lung on this CT, at least "
                f"{self.least_cc:g} cc expected; give a CT of the chest, in HU."
            )
        return box_of(lungs, [int(np.ceil(self.margin_mm / mm)) for mm in voxel_mm])

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.cropper.inverse(d[key])
        return d
