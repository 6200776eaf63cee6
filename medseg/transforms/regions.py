"""Training crops that look like the region a planner marks around a tumour."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, SpatialCrop

from medseg.errors import InputError
from medseg.shapes.boxes import box_of


class RandRegionCropd(Randomizable, MapTransform):
    """Crop all keys to the labelled structures plus a random margin, drawn for each of the six sides on its
    own.

    At inference the network sees only the box that the user gave; trained on boxes that are always centred it
    would learn to answer "the middle". Margins are uniform in `margin_mm` (smallest, largest) and end at the
    image border. Images are channel-first (C, *spatial) MetaTensors whose affine gives the voxel size. A
    label without any voxel leaves the image whole. Raises InputError when keys differ in size.
    """

    def __init__(
        self, keys: KeysCollection, source_key: str = "label", margin_mm: Sequence[float] = (5.0, 40.0)
    ) -> None:
        super().__init__(keys)
        low, high = margin_mm
        if not 0 <= low <= high:
            raise InputError(
                f"margin_mm is {tuple(margin_mm)}; it must be (smallest, largest), neither negative."
            )
        self.source_key = source_key
        self.margin_mm = (float(low), float(high))

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        sample = dict(data)
        label = sample[self.source_key]
        size = tuple(label.shape[1:])
        for key in self.key_iterator(sample):
            if tuple(sample[key].shape[1:]) != size:
                raise InputError(
                    f"'{key}' has size {tuple(sample[key].shape[1:])}, '{self.source_key}' has {size}."
                )
        margins_mm = self.R.uniform(*self.margin_mm, size=(2, len(size)))
        box = box_of((label > 0).any(dim=0).numpy())
        if not box[0].stop:
            return sample
        voxel_mm = label.pixdim[: len(size)].numpy()
        start = np.array([side.start for side in box]) - (margins_mm[0] / voxel_mm).round().astype(int)
        end = np.array([side.stop for side in box]) + (margins_mm[1] / voxel_mm).round().astype(int)
        crop = SpatialCrop(roi_start=start.clip(min=0), roi_end=end.clip(max=size))
        for key in self.key_iterator(sample):
            sample[key] = crop(sample[key])
        return sample
