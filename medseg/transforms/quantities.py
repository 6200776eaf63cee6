"""Numbers with a unit that a network gives beside classes: how they are learned, and how they are said."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from monai.transforms import MapTransform

from medseg.errors import InputError


@dataclass(frozen=True)
class Quantity:
    """A number that a network learns as (number - mean) / sd.

    ``name``: how an answer calls it; ``unit``: by UCUM. ``standardised``: what (number - mean) / sd itself is
    called, "" where it means nothing: with the mean and SD of a reference population of BMD it is the
    T-score.
    """

    name: str
    unit: str
    mean: float
    sd: float
    standardised: str = ""

    def values(self, learned: float) -> dict[str, tuple[float, str]]:
        """{name: (number, unit)} of what the network said."""
        values = {self.name: (self.mean + self.sd * learned, self.unit)}
        return values | ({self.standardised: (learned, "1")} if self.standardised else {})


def quantities_of(numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, Quantity]:
    """{field of the datalist: Quantity} of a config's ``numbers``; InputError for other fields than
    Quantity's and an SD that is not above 0."""
    found = {}
    for field, content in numbers.items():
        try:
            found[field] = Quantity(**content)
        except TypeError as error:
            raise InputError(
                f"numbers: {field} is {content}; expected name, unit, mean, sd and, if wanted, standardised."
            ) from error
        if not found[field].sd > 0:
            raise InputError(f"numbers: the sd of {field} is {found[field].sd}; expected a number above 0.")
    return found


class AppendNumbersd(MapTransform):
    """Append the numbers of an item, standardised, to its vector of classes (C,): float32 (C + numbers,).

    ``numbers``: see :func:`quantities_of`. An item without the field, or with none in it, gets NaN, which
    counts nothing in :class:`medseg.losses.LabelCEPerSample`. InputError for what is no finite number.
    """

    def __init__(self, keys="label", numbers: Mapping[str, Mapping[str, Any]] | None = None):
        super().__init__(keys)
        self.quantities = quantities_of(numbers or {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        learned = torch.tensor([_standardised(d, *item) for item in self.quantities.items()])
        for key in self.key_iterator(d):
            d[key] = torch.cat([d[key], learned])
        return d


def _standardised(item: Mapping[Hashable, Any], field: str, quantity: Quantity) -> float:
    number = item.get(field)
    if number is None:
        return math.nan
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise InputError(f"{field} is {number!r}; expected a finite number in {quantity.unit}.")
    return (number - quantity.mean) / quantity.sd
