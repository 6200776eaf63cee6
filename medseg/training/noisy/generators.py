"""Which cases get which corruption: the six kinds of label noise, and the transforms that put them into a
training.

`paper` draws anew whenever a case is fetched; the others decide once per case, by seed and case name alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform

from medseg.errors import InputError
from medseg.training.noisy.noise import Corruption, corrupt


@dataclass(frozen=True)
class Noise:
    """Settings of a generator. Sizes are uniform in `sizes` (smallest, largest), in mm or pixels as the
    spacing is.

    generator: a key of GENERATORS. share: of the cases that are corrupted, 0 to 1. direction: "both" (equally
    likely), "dilate" or "erode"; "both" is refused for `biased`. annotators: how many habits `styles` has;
    the corrupted cases are divided among them. channels: number of structures (for `gross`). axes: number of
    spatial axes (for `gross`).
    """

    generator: str
    share: float
    sizes: tuple[float, float] = (1.0, 8.0)
    direction: str = "both"
    annotators: int = 3
    channels: int = 1
    axes: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.generator not in GENERATORS:
            raise InputError(
                f"unknown noise generator '{self.generator}'; choose one of {', '.join(GENERATORS)}."
            )
        if not 0 <= self.share <= 1:
            raise InputError(f"the share of corrupted cases is {self.share}; it must lie between 0 and 1.")
        if not 0 <= self.sizes[0] <= self.sizes[1]:
            raise InputError(
                f"noise sizes are {tuple(self.sizes)}; expected (smallest, largest), neither negative."
            )
        if self.direction not in ("both", "dilate", "erode"):
            raise InputError(f"direction is '{self.direction}'; choose both, dilate or erode.")
        if self.generator == "biased" and self.direction == "both":
            raise InputError("generator 'biased' needs the direction dilate or erode.")
        if min(self.annotators, self.channels, self.axes) < 1:
            raise InputError("annotators, channels and axes must each be at least 1.")


def draw_moved_outline(noise: Noise, rng: np.random.Generator) -> Corruption:
    """Dilate or erode all structures of the case by one and the same size: the law of the paper."""
    kind = ("dilate", "erode")[rng.integers(2)] if noise.direction == "both" else noise.direction
    return Corruption(kind, {"size": float(rng.uniform(*noise.sizes))})


def draw_style(noise: Noise, rng: np.random.Generator) -> Corruption:
    """The habit of one annotator: all cases of that annotator get the same one."""
    annotator = int(rng.integers(noise.annotators))
    habit = np.random.default_rng([noise.seed, annotator, 7919])
    bias = float(habit.uniform(*noise.sizes))
    inward = habit.integers(2) == 1 if noise.direction == "both" else noise.direction == "erode"
    smoothness = float(habit.uniform(0, noise.sizes[1] / 2))
    return Corruption("style", {"bias": -bias if inward else bias, "smoothness": smoothness})


def draw_walk(noise: Noise, rng: np.random.Generator) -> Corruption:
    """A biased, correlated walk of the outline, out four times as often as in, or the reverse."""
    size = float(rng.uniform(*noise.sizes))
    out = rng.integers(2) == 1 if noise.direction == "both" else noise.direction == "dilate"
    return Corruption(
        "walk", {"size": size, "outward": 0.8 if out else 0.2, "flip": 0.7, "seed": int(rng.integers(2**31))}
    )


def draw_gross(noise: Noise, rng: np.random.Generator) -> Corruption:
    """A blunder: a shift of two to four times the sizes, a wrong organ, missing slices, a missing piece."""
    channel = int(rng.integers(noise.channels))
    kind = ("shift", "wrong_organ", "drop_slices", "drop_component")[rng.integers(4)]
    if kind == "shift":
        direction = rng.normal(size=noise.axes)
        offset = direction / np.linalg.norm(direction) * rng.uniform(2, 4) * rng.uniform(*noise.sizes)
        return Corruption(kind, {"offset": [float(value) for value in offset]})
    if kind == "wrong_organ":
        return Corruption(kind, {"channel": channel, "other": (channel + 1) % noise.channels})
    if kind == "drop_slices":
        first = float(rng.uniform(0, 0.6))
        last = first + float(rng.uniform(0.2, 0.4))
        return Corruption(kind, {"channel": channel, "axis": 0, "first": first, "last": last})
    return Corruption(kind, {"channel": channel})


GENERATORS: dict[str, Callable[[Noise, np.random.Generator], Corruption]] = {
    "paper": draw_moved_outline,
    "fixed": draw_moved_outline,
    "biased": draw_moved_outline,
    "styles": draw_style,
    "markov": draw_walk,
    "gross": draw_gross,
}


def plan(noise: Noise, cases: Sequence[str]) -> dict[str, Corruption]:
    """Every case's corruption: exactly round(share * n) cases are corrupted; independent of the order of
    `cases`."""
    if len(set(cases)) != len(cases):
        raise InputError("two cases have the same name; corruptions are planned by name.")
    chosen = sorted(cases)
    np.random.default_rng([noise.seed, 104729]).shuffle(chosen)
    corrupted = set(chosen[: round(noise.share * len(cases))])
    return {case: draw(noise, case) if case in corrupted else Corruption("clean") for case in cases}


def draw(noise: Noise, case: str) -> Corruption:
    """The corruption of one case, decided by the seed and the case's name."""
    return GENERATORS[noise.generator](noise, np.random.default_rng([noise.seed, zlib.crc32(case.encode())]))


class LabelNoised(MapTransform):
    """Corrupt the label of the cases that `plan` chose, always in the same way. For the training transforms
    only.

    keys: labels (C, *spatial) of 0 and 1; a channel of NaN stays as it is. `cases`: the names of all training
    cases, as `case_key` gives them. `in_mm`: sizes are mm, by the MetaTensor's voxel size; else pixels. Adds
    `noisy` (0 or 1) and `noise_record` (JSON of the CorruptionRecord of the last key). Not random, so a
    CacheDataset applies it once.
    """

    def __init__(
        self,
        keys: KeysCollection,
        noise: Noise | Mapping[str, Any],
        cases: Sequence[str],
        case_key: str = "case_id",
        in_mm: bool = False,
    ) -> None:
        super().__init__(keys)
        self.noise = _settings(noise)
        if self.noise.generator == "paper":
            raise InputError("generator 'paper' draws at every fetch: use FreshLabelNoised.")
        self.plan = plan(self.noise, [str(case) for case in cases])
        self.case_key, self.in_mm = case_key, in_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = str(data[self.case_key])
        if case not in self.plan:
            raise InputError(
                f"case '{case}' is not among the {len(self.plan)} cases that the label noise was planned for."
            )
        return _with_noise(data, self.key_iterator(data), (case, self.plan[case]), self.in_mm)


class FreshLabelNoised(RandomizableTransform, MapTransform):
    """Corrupt a label with probability `noise.share`, drawn anew at every fetch (generator "paper"); adds the
    same keys."""

    def __init__(
        self,
        keys: KeysCollection,
        noise: Noise | Mapping[str, Any],
        case_key: str = "case_id",
        in_mm: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.noise = _settings(noise)
        RandomizableTransform.__init__(self, self.noise.share)
        if self.noise.generator != "paper":
            raise InputError(f"generator '{self.noise.generator}' is drawn once per case: use LabelNoised.")
        self.case_key, self.in_mm = case_key, in_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        noisy = self.R.random() < self.noise.share
        seed = int(self.R.randint(2**31))
        drawn = draw_moved_outline(self.noise, np.random.default_rng(seed)) if noisy else Corruption("clean")
        return _with_noise(data, self.key_iterator(data), (str(data[self.case_key]), drawn), self.in_mm)


def _settings(noise: Noise | Mapping[str, Any]) -> Noise:
    if isinstance(noise, Noise):
        return noise
    unknown = sorted(set(noise) - set(Noise.__dataclass_fields__))
    if unknown:
        raise InputError(
            f"noise has no setting {', '.join(unknown)}; it has {', '.join(Noise.__dataclass_fields__)}."
        )
    return Noise(**{name: tuple(value) if name == "sizes" else value for name, value in noise.items()})


def _with_noise(
    data: Mapping[Hashable, Any], keys: Any, drawn: tuple[str, Corruption], in_mm: bool
) -> dict[Hashable, Any]:
    sample = dict(data)
    case, corruption = drawn
    for key in keys:
        label = torch.as_tensor(sample[key])
        axes = label.ndim - 1
        if in_mm and not isinstance(label, MetaTensor):
            raise InputError(
                f"'{key}' of case '{case}' has no voxel size; load it with LoadImaged or set in_mm to false."
            )
        spacing = [float(step) for step in label.pixdim[:axes]] if in_mm else [1.0] * axes
        given = label.as_tensor() if isinstance(label, MetaTensor) else label
        unknown = torch.isnan(given.float()).reshape(given.shape[0], -1).any(1)
        mask = (given.nan_to_num() > 0.5).numpy()
        noisy, record = corrupt(case, corruption, mask, spacing)
        values = torch.from_numpy(noisy).to(given.dtype)
        values[unknown] = given[unknown]
        sample[key] = MetaTensor(values, meta=label.meta) if isinstance(label, MetaTensor) else values
        sample["noisy"] = int(record.noisy)
        sample["noise_record"] = record.to_json()
    return sample
