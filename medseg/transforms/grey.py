"""What is made of a film's grey values before a network sees them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform, ScaleIntensityRange, ScaleIntensityRangePercentiles

from medseg.errors import InputError


class FilmGreyd(MapTransform):
    """Grey values to 0 to 1: between two percentiles of the film (``clip``) or two given values (``window``,
    on the reader's scale of 0 to 1), what lies beyond cut; then, with ``log_gain`` g above 0, the logarithm
    log(1 + g x) / log(1 + g), which lifts dark parts. InputError for limits that are out of order."""

    def __init__(
        self,
        keys="image",
        clip: Sequence[float] = (0.5, 99.5),
        window: Sequence[float] | None = None,
        log_gain: float = 0.0,
    ):
        super().__init__(keys)
        low, high = clip if window is None else window
        if not low < high or log_gain < 0:
            raise InputError(
                f"grey values from {low} to {high}, log_gain {log_gain}; expected low, then high."
            )
        self.log_gain = float(log_gain)
        self.scale = (
            ScaleIntensityRangePercentiles(low, high, 0.0, 1.0, clip=True)
            if window is None
            else ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            grey = self.scale(d[key])
            if self.log_gain:
                gain = torch.tensor(self.log_gain)
                grey = torch.log1p(gain * grey) / torch.log1p(gain)
            d[key] = grey
        return d
