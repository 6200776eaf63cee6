"""One network of an nnU-Net model: what its plans say of the image it sees and of the answer it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import ndimage

from medseg.errors import InputError
from medseg.inference.resampling import Resampling, new_shape, resampled, resampled_labels

SCHEMES = ("ct", "z_score", "none", "zero_to_one", "rgb")
"""How a channel is normalised: clipped and scaled by the training's intensities, by its own mean and spread,
not at all, by its own range, or divided by 255."""

SMALLEST = 1e-8
"""Least spread that nnU-Net divides by."""


@dataclass(frozen=True)
class Scheme:
    """The normalisation of one channel. ``inside_only``: of z_score, only the voxels of the patient count and
    change. ``low``, ``high``, ``mean``, ``spread``: of ct, from the training."""

    kind: str
    inside_only: bool = False
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    spread: float = 1.0

    def __post_init__(self):
        if self.kind not in SCHEMES:
            raise InputError(f"normalisation {self.kind!r}: expected one of {', '.join(SCHEMES)}.")

    def applied(self, channel: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
        """float32 of the same shape; ``inside``: bool, where the patient is."""
        if self.kind == "ct":
            channel = np.clip(channel, self.low, self.high)
            channel -= self.mean
            channel /= max(self.spread, SMALLEST)
        elif self.kind == "z_score" and self.inside_only and inside is not None:
            known = channel[inside]
            channel = channel.copy()
            channel[inside] = (known - known.mean()) / max(known.std(), SMALLEST)
        elif self.kind == "z_score":
            channel = (channel - channel.mean()) / max(channel.std(), SMALLEST)
        elif self.kind == "zero_to_one":
            channel = channel - channel.min()
            channel /= max(channel.max(), SMALLEST)
        elif self.kind == "rgb":
            channel = channel / np.float32(255.0)
        return channel.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Stage:
    """One network (or the folds of one) and its plans.

    Axes are those of the stored image, [slice, row, column], put into the order ``transpose``. ``spacing_mm``
    and ``patch_size``: three numbers, or two of a network of slices. ``normalisation``: fields of a
    :class:`Scheme` per channel. ``image``, ``logits``, ``labels``: fields of a :class:`Resampling`.
    ``mirror_axes``: of the patch. ``classes``: how many labels the network tells apart, 0 among them; or
    ``regions``: the label that each of its channels writes, in order. ``previous``: the number of the stage
    whose labels it sees. ``keep_largest``: sets of labels of which the largest piece is kept, in order.
    ``merge``: {its label: label of the result}, as text keys; None: its labels are the result's. ``result``:
    False of a stage that only serves others. ``around``: {"stage": number, "labels": [...], "margin_mm": mm}:
    it looks only at the box of these labels of an earlier stage.
    """

    transpose: Sequence[int]
    spacing_mm: Sequence[float]
    patch_size: Sequence[int]
    normalisation: Sequence[Mapping[str, Any]]
    image: Mapping[str, Any]
    logits: Mapping[str, Any]
    labels: Mapping[str, Any]
    mirror_axes: Sequence[int] = ()
    classes: int = 0
    regions: Sequence[int] = ()
    previous: int | None = None
    keep_largest: Sequence[Sequence[int]] = ()
    merge: Mapping[str, int] | None = None
    result: bool = True
    around: Mapping[str, Any] | None = None

    def __post_init__(self):
        if sorted(self.transpose) != [0, 1, 2]:
            raise InputError(f"transpose {list(self.transpose)}: expected an order of the axes 0, 1, 2.")
        if len(self.spacing_mm) != len(self.patch_size) or len(self.patch_size) not in (2, 3):
            raise InputError(
                f"spacing_mm {list(self.spacing_mm)} and patch_size {list(self.patch_size)}: expected two or "
                "three numbers each."
            )
        if bool(self.classes) == bool(self.regions):
            raise InputError("a stage answers with `classes` or with `regions`; give one of them.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Stage:
        """From the fields of a bundle's config. InputError for one that it has not."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            known = ", ".join(field.name for field in fields(cls))
            raise InputError(f"stage: unknown field {unknown[0]!r}; expected some of {known}.")
        return cls(**values)

    @property
    def heads(self) -> int:
        """Channels of the network's answer."""
        return self.classes or len(self.regions)

    @property
    def of_slices(self) -> bool:
        """True of a network of two dimensions, which sees one slice after the other."""
        return len(self.patch_size) == 2


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as a stage's network sees it, and how to go back.

    ``image``: float32 (channels, *shape), axes in the stage's order. ``cropped``: shape of the crop before
    resampling; ``box``: where it lies among ``whole``, the transposed image. ``apart``: see Resampling.
    """

    image: np.ndarray
    cropped: tuple[int, ...]
    box: tuple[slice, ...]
    whole: tuple[int, ...]
    apart: int | None

    def restored(self, labels: np.ndarray, stage: Stage) -> np.ndarray:
        """A label map of the crop, on the stored image's axes; 0 outside."""
        result = np.zeros(self.whole, dtype=labels.dtype)
        result[self.box] = labels
        return np.ascontiguousarray(result.transpose(np.argsort(stage.transpose)))


def prepare(
    volume: np.ndarray, spacing_mm: Sequence[float], stage: Stage, earlier: np.ndarray | None = None
) -> Prepared:
    """What nnU-Net makes of an image before its network: axes in order, cut to what is not 0, normalised,
    resampled.

    ``volume``: float32 (channels, slice, row, column). ``spacing_mm``: of these axes. ``earlier``: labels of
    the stage's ``previous`` on the image's grid; a channel per label follows the image's. InputError for
    another number of channels than the plans have.
    """
    if len(volume) != len(stage.normalisation):
        raise InputError(
            f"an image of {len(volume)} channels for a network of {len(stage.normalisation)}; give one "
            "series for each."
        )
    volume = volume.transpose(0, *(axis + 1 for axis in stage.transpose))
    own_mm = [float(spacing_mm[axis]) for axis in stage.transpose]
    box = _box(volume)
    cropped = volume[(slice(None), *box)]
    wanted_mm = [own_mm[0], *stage.spacing_mm] if stage.of_slices else list(stage.spacing_mm)
    shape = new_shape(cropped.shape[1:], own_mm, wanted_mm)
    if min(shape) < 1:
        raise InputError(f"{own_mm} mm voxels of {cropped.shape[1:]} are none at {wanted_mm} mm.")
    how = Resampling(**stage.image)
    inside = _inside(cropped, stage)
    schemes = [Scheme(**fields) for fields in stage.normalisation]
    channels = [
        resampled(scheme.applied(channel, inside), shape, how, how.axis_apart(own_mm, wanted_mm))
        for scheme, channel in zip(schemes, cropped, strict=True)
    ]
    if earlier is not None:
        labels = _with_outside(earlier.transpose(stage.transpose)[box], cropped)
        channels += _label_channels(labels, shape, stage, (own_mm, wanted_mm))
    back = Resampling(**stage.logits).axis_apart(wanted_mm, own_mm)
    return Prepared(np.stack(channels), cropped.shape[1:], box, volume.shape[1:], back)


def _box(volume: np.ndarray) -> tuple[slice, ...]:
    """The box of everything that is not 0 in some channel; the whole image when all is 0."""
    found = (volume != 0).any(axis=0)
    box = []
    for axis in range(3):
        used = np.flatnonzero(found.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, found.shape[axis]))
    return tuple(box)


def _inside(cropped: np.ndarray, stage: Stage) -> np.ndarray | None:
    """bool: what is not 0, holes filled; None where no channel asks for it."""
    if not any(fields.get("inside_only") for fields in stage.normalisation):
        return None
    return _filled(cropped)


def _filled(cropped: np.ndarray) -> np.ndarray:
    return ndimage.binary_fill_holes((cropped != 0).any(axis=0))


def _with_outside(labels: np.ndarray, cropped: np.ndarray) -> np.ndarray:
    """int32: -1 where there is neither a label nor patient, a value of its own when labels are resampled."""
    return np.where((labels == 0) & ~_filled(cropped), -1, labels.astype(np.int32))


def _label_channels(
    labels: np.ndarray, shape: tuple[int, ...], stage: Stage, grids_mm: tuple[list[float], list[float]]
) -> list[np.ndarray]:
    """A channel of 0 and 1 for every label of the stage before."""
    how = Resampling(**stage.labels)
    labels = resampled_labels(labels, shape, how, how.axis_apart(*grids_mm))
    known = range(1, stage.classes) if stage.classes else sorted(set(stage.regions))
    return [(labels == label).astype(np.float32) for label in known]
