"""Numbers about the patient beside the image, for networks with a late branch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.cases.radiograph import open_radiograph
from medseg.errors import InputError

WORDS = {"F": 0.0, "M": 1.0}
"""Words that count as numbers: the codes of PatientSex."""

STORED = {
    "sex": ("PatientSex", 1.0),
    "age": ("PatientAge", 1.0),
    "height_cm": ("PatientSize", 100.0),
    "weight_kg": ("PatientWeight", 1.0),
}
"""{covariate: its DICOM keyword, and the factor to its unit}."""


class AddCovariatesd(MapTransform):
    """Append a plane per covariate to an image (C, row, column), the same number in all its pixels: what
    :class:`medseg.networks.Classifier` takes behind its backbone.

    ``covariates``: {field of the item: (low, high)}, in the order of the planes; low becomes -1, high 1, and
    what lies outside goes beyond. A field holds a number, or F or M; an item without it takes sex, age,
    height_cm and weight_kg from the DICOM header. InputError where neither says it, for another word, and for
    a low that is not below its high.
    """

    def __init__(self, keys="image", covariates: Mapping[str, Sequence[float]] | None = None):
        super().__init__(keys)
        self.covariates = {name: tuple(map(float, ends)) for name, ends in (covariates or {}).items()}
        for name, (low, high) in self.covariates.items():
            if not low < high:
                raise InputError(f"covariate {name}: {low:g} to {high:g}; expected a low below its high.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            numbers = [self._scaled(d, name, image) for name in self.covariates]
            planes = [torch.full_like(torch.as_tensor(image)[:1], number) for number in numbers]
            stacked = torch.cat([torch.as_tensor(image), *planes])
            d[key] = MetaTensor(stacked, meta=image.meta, applied_operations=image.applied_operations)
        return d

    def _scaled(self, item: Mapping[Hashable, Any], name: str, image: MetaTensor) -> float:
        value = item[name] if name in item else _stored(image, name)
        number = WORDS.get(value, value)
        if isinstance(number, bool) or not isinstance(number, int | float):
            seen = "nothing" if value is None else repr(value)
            raise InputError(
                f"covariate {name}: {seen}; expected a number, or F or M, in the datalist or the DICOM "
                "header."
            )
        low, high = self.covariates[name]
        return 2 * (number - low) / (high - low) - 1


def _stored(image: MetaTensor, name: str) -> str | float | None:
    """What the DICOM header of the image says of a covariate; None where it says nothing, or there is
    none."""
    stored = open_radiograph(image.meta["filename_or_obj"]).stored if name in STORED else None
    value = None if stored is None else stored.header.get(STORED[name][0])
    if value in (None, ""):
        return None
    if name == "sex":
        return str(value)
    if name == "age":  # "071Y"; of months and weeks nobody has an osteoporotic hip
        return float(str(value)[:3]) if str(value)[3:] == "Y" else None
    return float(value) * STORED[name][1]
