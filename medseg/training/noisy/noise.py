"""Label noise made on purpose: drawn parameters, a deterministic twin that applies them, and a record that
replays.

Labels are bool arrays (C, *spatial). Sizes are in mm where a spacing is given and in pixels with a spacing of
1. Outward and inward moves follow the Euclidean distance transform (EDT), the law of the code that the
authors of QAM published: dilate by n adds voxels with 0 < distance to the structure < n; erode by n keeps
those at least n deep, where a voxel's depth is the distance to the nearest voxel outside. So n = 1 pixel
changes nothing and n = 1.1 moves the outline by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, generate_binary_structure
from scipy.ndimage import label as connected

from medseg.errors import InputError


@dataclass(frozen=True)
class Corruption:
    """What is done to one case's label: a key of CORRUPTIONS and its parameters, plain numbers only."""

    kind: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CorruptionRecord:
    """A realised corruption: enough to make it again, and how far the label moved.

    label_dice: per channel, of the corrupted to the given label; nan where not contoured or empty before and
    after. emptied: channels that lost their last voxel.
    """

    case: str
    corruption: Corruption
    label_dice: tuple[float, ...]
    emptied: tuple[int, ...]

    @property
    def noisy(self) -> bool:
        return self.corruption.kind != "clean"

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> CorruptionRecord:
        read = json.loads(text)
        return cls(
            read["case"], Corruption(**read["corruption"]), tuple(read["label_dice"]), tuple(read["emptied"])
        )


def apply(corruption: Corruption, label: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The corrupted label, bool (C, *spatial); `label` itself is not changed. The same call gives the same
    answer.

    spacing: voxel size along each spatial axis, in mm, or ones. InputError for an unknown kind and a wrong
    spacing.
    """
    if corruption.kind not in CORRUPTIONS:
        raise InputError(f"unknown corruption '{corruption.kind}'; it is one of {', '.join(CORRUPTIONS)}.")
    if label.dtype != bool or len(spacing) != label.ndim - 1:
        raise InputError(
            f"a label of type {label.dtype} and shape {label.shape} with spacing {tuple(spacing)}; expected "
            "bool (channels, *spatial) and one spacing per spatial axis."
        )
    return CORRUPTIONS[corruption.kind](label.copy(), tuple(spacing), **corruption.parameters)


def corrupt(
    case: str, corruption: Corruption, label: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, CorruptionRecord]:
    """apply() and the record of it."""
    noisy = apply(corruption, label, spacing)
    dice, emptied = [], []
    for channel, (before, after) in enumerate(zip(label, noisy, strict=True)):
        both = int(before.sum()) + int(after.sum())
        dice.append(2 * int((before & after).sum()) / both if both else float("nan"))
        if before.any() and not after.any():
            emptied.append(channel)
    return noisy, CorruptionRecord(case, corruption, tuple(dice), tuple(emptied))


# ---- the deterministic twins -------------------------------------------------------------------------------


def clean(label: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    return label


def dilate(label: np.ndarray, spacing: tuple[float, ...], size: float) -> np.ndarray:
    """Every structure grows by `size`; an empty one stays empty."""
    return np.stack([mask | (_distance_to(mask, spacing) < size) for mask in label])


def erode(label: np.ndarray, spacing: tuple[float, ...], size: float) -> np.ndarray:
    """Every structure shrinks by `size`; one that is nowhere that deep becomes empty. The image border is no
    outline."""
    return np.stack([mask & (_distance_to(~mask, spacing) >= size) for mask in label])


def style(label: np.ndarray, spacing: tuple[float, ...], bias: float, smoothness: float) -> np.ndarray:
    """An annotator's habit: outlines moved out by `bias` (negative: in) after smoothing with a Gaussian of
    sigma `smoothness`, both in the unit of spacing. Signed distances are measured to voxel centres half-way
    across an edge."""
    styled = []
    for mask in label:
        if not mask.any() or mask.all():
            styled.append(mask)
            continue
        # Distance to the outline, which runs half a voxel outside the last voxel's centre: inside positive.
        half = min(spacing) / 2
        signed = np.where(mask, _distance_to(~mask, spacing) - half, half - _distance_to(mask, spacing))
        if smoothness > 0:
            signed = gaussian_filter(signed, [smoothness / step for step in spacing])
        styled.append(signed > -bias)
    return np.stack(styled)


def walk(
    label: np.ndarray, spacing: tuple[float, ...], size: float, outward: float, flip: float, seed: int
) -> np.ndarray:
    """A random walk of the outline: `size` / voxel steps; each goes out with probability `outward`, else in,
    and moves every voxel along the outline with probability `flip`. Steps build on each other, so errors are
    correlated in space. Source: the Markov noise of Yao et al., ICLR 2023 (Spatial Correction); equal to it
    in kind, not in every constant."""
    rng = np.random.default_rng(seed)
    cross = generate_binary_structure(label.ndim - 1, 1)
    for _ in range(round(size / min(spacing))):
        goes_out = rng.random() < outward
        moved = rng.random(label.shape[1:]) < flip
        for channel, mask in enumerate(label):
            shell = binary_dilation(mask if goes_out else ~mask, cross) & (~mask if goes_out else mask)
            label[channel] = (mask | (shell & moved)) if goes_out else (mask & ~(shell & moved))
    return label


def shift(label: np.ndarray, spacing: tuple[float, ...], offset: Sequence[float]) -> np.ndarray:
    """All structures moved by `offset` along each axis, rounded to voxels; what leaves the image is lost."""
    steps = [round(distance / step) for distance, step in zip(offset, spacing, strict=True)]
    moved = np.zeros_like(label)
    source = tuple(
        slice(max(0, -n), max(0, size - max(0, n))) for n, size in zip(steps, label.shape[1:], strict=True)
    )
    target = tuple(
        slice(max(0, n), max(0, size + min(0, n))) for n, size in zip(steps, label.shape[1:], strict=True)
    )
    moved[(slice(None), *target)] = label[(slice(None), *source)]
    return moved


def wrong_organ(label: np.ndarray, spacing: tuple[float, ...], channel: int, other: int) -> np.ndarray:
    """Structure `channel` gets the mask of structure `other`; with one structure only, its mirror image along
    axis 0."""
    label[channel] = label[other] if other != channel else label[channel][::-1]
    return label


def drop_slices(
    label: np.ndarray, spacing: tuple[float, ...], channel: int, axis: int, first: float, last: float
):
    """Structure `channel` loses its slices from share `first` to `last` of its extent along `axis`."""
    occupied = np.flatnonzero(label[channel].any(axis=tuple(a for a in range(label.ndim - 1) if a != axis)))
    if occupied.size:
        low, extent = occupied[0], occupied[-1] - occupied[0] + 1
        span = slice(low + int(np.floor(first * extent)), low + int(np.ceil(last * extent)))
        label[(channel, *[slice(None)] * axis, span)] = False
    return label


def drop_component(label: np.ndarray, spacing: tuple[float, ...], channel: int) -> np.ndarray:
    """Structure `channel` loses its largest connected piece (all of it when it is one piece)."""
    pieces, count = connected(label[channel])
    if count:
        largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        label[channel] &= pieces != largest
    return label


def swap(label: np.ndarray, spacing: tuple[float, ...], channel: int, other: int) -> np.ndarray:
    """Structures `channel` and `other` exchange their masks, as where left and right are taken for each
    other."""
    label[[channel, other]] = label[[other, channel]]
    return label


def stray_piece(
    label: np.ndarray, spacing: tuple[float, ...], offset: Sequence[float], radius: float
) -> np.ndarray:
    """Every structure gains a ball of `radius` whose centre lies `offset` from the centre of its own voxels;
    what leaves the image is lost, an empty structure stays empty."""
    for mask in label:
        if mask.any():
            centre = [float(axis.mean()) * step for axis, step in zip(np.nonzero(mask), spacing, strict=True)]
            away = [
                np.arange(size) * step - middle - moved
                for size, step, middle, moved in zip(mask.shape, spacing, centre, offset, strict=True)
            ]
            squares = np.ix_(*[axis**2 for axis in away])
            mask |= sum(squares) <= radius**2
    return label


def each(label: np.ndarray, spacing: tuple[float, ...], steps: Sequence[dict[str, Any]]) -> np.ndarray:
    """One corruption after another, each a dict of `channel`, `kind` and `parameters`, put on that structure
    alone; a `swap` exchanges it with its `other`."""
    for step in steps:
        channel, parameters = step["channel"], step["parameters"]
        if step["kind"] == "swap":
            label = swap(label, spacing, channel, **parameters)
        else:
            label[channel] = CORRUPTIONS[step["kind"]](label[[channel]], spacing, **parameters)[0]
    return label


CORRUPTIONS: dict[str, Callable[..., np.ndarray]] = {
    "clean": clean,
    "dilate": dilate,
    "erode": erode,
    "style": style,
    "walk": walk,
    "shift": shift,
    "wrong_organ": wrong_organ,
    "drop_slices": drop_slices,
    "drop_component": drop_component,
    "swap": swap,
    "stray_piece": stray_piece,
    "each": each,
}


def _distance_to(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance of each voxel outside `mask` to its nearest voxel, 0 inside; infinite for an empty mask."""
    return distance_transform_edt(~mask, sampling=spacing) if mask.any() else np.full(mask.shape, np.inf)
