"""CT, PET and MR of one patient as the channels of one image, any of PET and MR missing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch.nn import functional

from medseg.errors import InputError
from medseg.transforms.readers import case_of
from medseg.transforms.several import COVERED

CT, PT, MR, PT_COVERED, MR_COVERED = range(5)
"""Channels of the image that StackSeriesd makes. The coverage channels tell "no signal" from "not there"."""

SERIES = {"pt": (PT, PT_COVERED), "mr": (MR, MR_COVERED)}
"""Data key of each series beside the CT: its channel and that of its coverage."""

SUV_AT_ONE = 20.0
"""The SUV that becomes 1: muscle is 0.5 and a hot tumour 20, so SUV goes in as a logarithm."""


class StackSeriesd(MapTransform):
    """Put what :class:`medseg.transforms.LoadSeriesd` loaded as `pt` and `mr` beside the CT under `keys`.

    The CT is a MetaTensor (1, x, y, z) in HU; `pt` (SUV), `mr` and their `_covered` are on its grid or
    missing, and are left out of the result.

    Result: (5, x, y, z): CT with `window_hu` as 0 to 1; PET as log(1 + SUV) / log(21), 1 at SUV 20; MR with
    the 1st and 99th percentile of its whole series as 0 and 1; 1 where PET covers the CT; 1 where MR does.
    Series and coverage are 0 where there is nothing.
    """

    def __init__(self, keys: KeysCollection = "image", window_hu: Sequence[float] = (-160.0, 240.0)) -> None:
        super().__init__(keys)
        self.low_hu, self.high_hu = map(float, window_hu)
        if not self.low_hu < self.high_hu:
            raise InputError(f"window_hu is {tuple(window_hu)}; expected (lowest, highest).")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        loaded = {name: (d.pop(name, None), d.pop(f"{name}{COVERED}", None)) for name in SERIES}
        for key in self.key_iterator(d):
            image = d[key]
            channels = torch.zeros((5, *image.shape[1:]))
            channels[CT] = ((image.as_tensor()[0] - self.low_hu) / (self.high_hu - self.low_hu)).clamp(0, 1)
            for name, (values, covered) in loaded.items():
                if values is None:
                    continue
                scaled = _suv_scaled(values[0]) if name == "pt" else _mr_scaled(values[0], _levels(image))
                of_series, of_coverage = SERIES[name]
                channels[of_coverage] = torch.as_tensor(covered[0])
                channels[of_series] = torch.as_tensor(scaled) * channels[of_coverage]
            d[key] = MetaTensor(channels, meta=image.meta, applied_operations=image.applied_operations)
        return d


def _levels(image: MetaTensor) -> tuple[float, float]:
    """1st and 99th percentile of the whole MR series, so that a box has no say in them."""
    low, high = np.percentile(case_of(image.meta).companions["mr"].volume, [1, 99])
    return float(low), float(high)


def _suv_scaled(suv: torch.Tensor) -> torch.Tensor:
    return torch.log1p(suv.clamp(min=0)) / float(np.log1p(SUV_AT_ONE))


def _mr_scaled(values: torch.Tensor, levels: tuple[float, float]) -> torch.Tensor:
    low, high = levels
    return ((values - low) / max(high - low, 1e-6)).clamp(0, 1.5)


class RandDropSeriesd(Randomizable, MapTransform):
    """Take PET, MR or both away from a stacked image, so that one network learns to do without.

    `shares`: how often CT alone, CT + PET and CT + MR are left; else both stay. Series and coverage become 0.
    InputError for shares that are negative or above 1 together.
    """

    def __init__(self, keys: KeysCollection, shares: Sequence[float] = (0.2, 0.2, 0.2)) -> None:
        super().__init__(keys)
        self.shares = tuple(map(float, shares))
        if len(self.shares) != 3 or min(self.shares) < 0 or sum(self.shares) > 1:
            raise InputError(f"shares are {self.shares}; expected three, none negative, at most 1 together.")

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        alone, with_pt, with_mr = np.cumsum(self.shares)
        drawn = self.R.random()
        kept = ("pt", "mr")
        if drawn < with_mr:
            kept = () if drawn < alone else ("pt",) if drawn < with_pt else ("mr",)
        for key in self.key_iterator(d):
            d[key] = only_series(d[key], kept)
        return d


def only_series(image: torch.Tensor, kept: Sequence[str]) -> torch.Tensor:
    """A stacked image (5, x, y, z) with the CT and the `kept` ones of "pt" and "mr"; the others as if they
    had been missing."""
    image = image.clone()
    for name, channels in SERIES.items():
        if name not in kept:
            image[list(channels)] = 0
    return image


class RandSeriesLookd(Randomizable, MapTransform):
    """Change contrast, brightness, noise and sharpness of every series of a stacked image on its own.

    Each series gets, half of the time each: a gamma in 0.7 to 1.4, a factor within 15 % with an offset within
    0.07, noise of up to `noise`, and a mean over 3 voxels a side in part. Where a series does not cover it
    stays 0.
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.5, noise: float = 0.06) -> None:
        super().__init__(keys)
        self.prob, self.noise = float(prob), float(noise)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key].clone()
            for channel in (CT, PT, MR):
                image[channel] = self._changed(torch.as_tensor(image[channel]))
            for of_series, of_coverage in SERIES.values():
                image[of_series] *= image[of_coverage]
            d[key] = image
        return d

    def _changed(self, values: torch.Tensor) -> torch.Tensor:
        if self.R.random() < self.prob:
            share = float(self.R.uniform(0, 0.7))
            mean = functional.avg_pool3d(values[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
            values = torch.lerp(values, mean, share)
        if self.R.random() < self.prob:
            values = values.clamp(min=0) ** float(np.exp(self.R.uniform(np.log(0.7), np.log(1.4))))
        if self.R.random() < self.prob:
            values = values * float(self.R.uniform(0.85, 1.15)) + float(self.R.uniform(-0.07, 0.07))
        if self.R.random() < self.prob:
            noise = self.R.standard_normal(values.shape).astype(np.float32)
            values = values + torch.from_numpy(noise).to(values.device) * float(self.R.uniform(0, self.noise))
        return values
