"""Labels in which some structures were never contoured: no loss and no score for those, rather than "empty".

A label that has channels (C, x, y, z) of 0 and 1 marks a structure that nobody contoured in this case by a
channel of NaN. :mod:`medseg.losses.per_sample` gives such a channel no loss. MONAI's Dice and surface metrics
give a channel whose truth holds no voxel above 0, and NaN is none, no score (nan, left out of means), as long
as their ``ignore_empty`` stays on.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.errors import GeometryError, InputError, StructureError

LAST_BIT = 23
"""Bit fields reach the transforms as float32, which holds whole numbers up to 24 bits exactly."""


class BitFieldToChannelsd(MapTransform):
    """A bit field (1, x, y, z) to float32 channels (C, x, y, z) of 0 and 1; NaN where the case has no
    contour.

    ``bits``: {structure name: bit numbers}, one channel each in this order; a structure of several bits is
    their union. ``present_key``: where the case lists the names of its contoured structures. Every other
    channel is NaN throughout. Raises StructureError for a listed name without bits, for voxels of a structure
    that is not listed, and for a listed structure without a voxel: a wrong list would teach the network that
    an organ is not there. ``image_key``: an image that has to have the field's size; without it, both would
    be stretched to fit. ``may_be_empty``: a listed structure without a voxel is taken at its word, as lesions
    that a patient does not have are. Errors begin with the sample's "case_id".
    """

    def __init__(
        self,
        keys: KeysCollection,
        bits: Mapping[str, Sequence[int]],
        present_key: str = "present",
        image_key: str | None = None,
        may_be_empty: bool = False,
    ) -> None:
        super().__init__(keys)
        for name, numbers in bits.items():
            if not numbers or not all(isinstance(n, int) and 0 <= n <= LAST_BIT for n in numbers):
                raise InputError(
                    f"bits of {name} are {numbers}; expected one or more whole numbers, 0 to {LAST_BIT}."
                )
        self.masks = {name: sum(1 << n for n in set(numbers)) for name, numbers in bits.items()}
        self.present_key, self.image_key, self.may_be_empty = present_key, image_key, may_be_empty

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        case = f"{sample['case_id']}: " if "case_id" in sample else ""
        if not isinstance(sample.get(self.present_key), (list, tuple)):
            raise InputError(
                f"{case}no list under '{self.present_key}'; it names the structures that were contoured."
            )
        present = set(sample[self.present_key])
        unknown = sorted(present - self.masks.keys())
        if unknown:
            raise StructureError(
                f"{case}no bits for {', '.join(unknown)}; the transform knows {', '.join(self.masks)}."
            )
        for key in self.key_iterator(sample):
            field = sample[key]
            if self.image_key is not None and field.shape[1:] != sample[self.image_key].shape[1:]:
                sizes = [
                    " x ".join(map(str, shape))
                    for shape in (field.shape[1:], sample[self.image_key].shape[1:])
                ]
                raise GeometryError(
                    f"{case}'{key}' has {sizes[0]} pixels, its image {sizes[1]}; they must lie on one grid."
                )
            sample[key] = self._channels(field, present, f"{case}'{key}'")
        return sample

    def _channels(self, field: torch.Tensor, present: set[str], what: str) -> torch.Tensor:
        if field.shape[0] != 1:
            raise InputError(f"{what} has {field.shape[0]} channels; expected one that holds a bit field.")
        values = torch.as_tensor(field).to(torch.int32)
        channels = []
        for name, mask in self.masks.items():
            inside = (values & mask) != 0
            wrong = name not in present if inside.any() else name in present and not self.may_be_empty
            if wrong:
                seen = "voxels but is not listed" if name not in present else "no voxel but is listed"
                raise StructureError(
                    f"{what}: {name} has {seen} as contoured (the list: {', '.join(sorted(present))})."
                )
            channels.append(
                inside.float() if name in present else torch.full_like(inside, torch.nan, dtype=torch.float32)
            )
        result = torch.cat(channels)
        return (
            MetaTensor(result, meta=field.meta, applied_operations=field.applied_operations)
            if isinstance(field, MetaTensor)
            else result
        )


class ThresholdKnownd(MapTransform):
    """1.0 where a value reaches ``threshold`` and 0.0 elsewhere; NaN stays NaN, which a comparison would turn
    into 0."""

    def __init__(self, keys: KeysCollection, threshold: float = 0.5) -> None:
        super().__init__(keys)
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.key_iterator(sample):
            values = sample[key]
            sample[key] = torch.where(
                torch.isnan(values), values, (values >= self.threshold).to(values.dtype)
            )
        return sample
