"""Training windows cut out of whole volumes by one interpolation, on any device."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from scipy.spatial.transform import Rotation
from torch.nn import functional

from medseg.errors import GeometryError, InputError
from medseg.transforms.boxes import sampled_at

BITS = 8
"""Channels that one byte holds."""

KNOWN = "known"
"""Where a sample says which channels were contoured."""


class PackChannelsd(MapTransform):
    """Up to eight label channels (C, x, y, z) of 0, 1 and NaN (not contoured) as one of uint8, bit c for
    channel c; the sample's "known" gets which channels were contoured, bool (C,).

    A case kept in memory takes a 32nd of the float channels, and one interpolation turns all of them.
    InputError for more channels, and for one that is NaN in part.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.key_iterator(sample):
            label = sample[key]
            if label.shape[0] > BITS:
                raise InputError(f"'{key}' has {label.shape[0]} channels; a byte holds {BITS}.")
            unknown = torch.isnan(_plain(label)).flatten(1)
            if bool((unknown.any(1) != unknown.all(1)).any()):
                raise InputError(f"'{key}' has a channel that is NaN in part: contoured or not, not both.")
            field = torch.zeros_like(label[:1], dtype=torch.uint8)
            for channel in range(label.shape[0]):
                field |= (label[channel : channel + 1] > 0.5).to(torch.uint8) << channel
            sample[key], sample[KNOWN] = field, ~unknown.any(1).cpu()
        return sample


class RandWindowd(Randomizable, MapTransform):
    """A window of ``size`` voxels around a random voxel, turned, scaled, moved and perhaps mirrored.

    ``keys`` are the image (C, x, y, z), interpolated linearly, and the label that :class:`PackChannelsd`
    packed, taken from the nearest voxel and unpacked to float32 channels, NaN where "known" says that nobody
    contoured. Beyond the volume both are 0. The window's middle is one of the flat indices under
    ``indices_key`` + "_fg_indices" with probability ``foreground_share``, else one under "_bg_indices"
    (MONAI's FgBgToIndicesd writes both); where there are none, any voxel. Then it is moved by up to ``move``
    voxels along each axis, turned by up to ``turn_deg`` about each and scaled by up to ``scale`` (0.15: 85 to
    115 %). ``mirror``: the probability that the patient is mirrored left to right; ``side_pairs`` are the
    channels that then change places, as :class:`medseg.transforms.RandFlipSidesd` does.

    Cutting, RandAffined and a flip in a row interpolate every label channel on a larger window, which took
    most of the time of a training step on a processor. The affine of the result is that of the
    unmirrored window. Random numbers are this transform's own, set by ``set_random_state``.

    InputError for sizes that differ and pairs out of range; GeometryError when the first axis does not run
    left-right and ``mirror`` is asked for.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        *,
        indices_key: str = "label",
        foreground_share: float = 0.8,
        move: Sequence[float] = (0.0, 0.0, 0.0),
        turn_deg: Sequence[float] = (0.0, 0.0, 0.0),
        scale: float = 0.0,
        mirror: float = 0.0,
        side_pairs: Sequence[Sequence[int]] = (),
    ) -> None:
        MapTransform.__init__(self, keys)
        if len(self.keys) != 2:
            raise InputError(f"keys are {self.keys}; expected the image's and the label's.")
        self.size, self.move, self.turn_deg = tuple(size), tuple(move), tuple(turn_deg)
        if not 0 <= scale < 1:
            raise InputError(f"scale is {scale}; expected a share below 1, such as 0.15.")
        self.side_pairs = tuple((int(a), int(b)) for a, b in side_pairs)
        self.indices_key, self.foreground_share = indices_key, foreground_share
        self.scale, self.mirror = scale, mirror

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        image_key, label_key = self.keys
        image, field, known = sample[image_key], sample[label_key], sample[KNOWN]
        if image.shape[1:] != field.shape[1:]:
            raise InputError(
                f"'{image_key}' has size {tuple(image.shape[1:])}, '{label_key}' has "
                f"{tuple(field.shape[1:])}."
            )
        to_index, mirrored = self._drawn(sample, image)
        grid = sampled_at(to_index, self.size, image.shape[1:], image.device)
        window = functional.grid_sample(_plain(image)[None].float(), grid, align_corners=False)[0]
        packed = functional.grid_sample(
            _plain(field)[None].float(), grid, mode="nearest", align_corners=False
        )
        label = self._unpacked(packed[0].to(torch.uint8), known, mirrored)
        if mirrored:  # what lies where is the patient's matter; the window's own place stays
            to_index = to_index.copy()
            to_index[:3, 3] += to_index[:3, 0] * (self.size[0] - 1)
            to_index[:3, 0] *= -1
        affine = image.affine @ torch.from_numpy(to_index).to(image.affine)
        meta = {key: value for key, value in image.meta.items() if key != "affine"}
        sample[image_key] = MetaTensor(window, affine=affine, meta=meta)
        sample[label_key] = MetaTensor(label, affine=affine)
        return sample

    def _drawn(self, sample: Mapping[Hashable, Any], image: MetaTensor) -> tuple[np.ndarray, bool]:
        """4x4 that takes an index of the window to one of the volume, and whether it mirrors."""
        shape = tuple(image.shape[1:])
        middle = np.array(self._middle(sample, shape), dtype=float)
        middle += self.R.uniform(-1, 1, size=3) * self.move
        turn = Rotation.from_euler("xyz", self.R.uniform(-1, 1, size=3) * self.turn_deg, degrees=True)
        step = turn.as_matrix() * (1 + self.R.uniform(-1, 1, size=3) * self.scale)
        mirrored = bool(self.R.random() < self.mirror)
        if mirrored:
            if np.abs(np.asarray(image.affine)[:3, 0]).argmax() != 0:
                raise GeometryError("the first axis of 'image' does not run left-right; reorient it first.")
            step[:, 0] *= -1
        to_index = np.eye(4)
        to_index[:3, :3] = step
        to_index[:3, 3] = middle - step @ ((np.array(self.size) - 1) / 2)
        return to_index, mirrored

    def _middle(self, sample: Mapping[Hashable, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
        kind = "fg" if self.R.random() < self.foreground_share else "bg"
        found = sample.get(f"{self.indices_key}_{kind}_indices")
        if found is None or len(found) == 0:
            return tuple(int(self.R.randint(n)) for n in shape)
        flat = int(found[int(self.R.randint(len(found)))])
        return tuple(int(place) for place in np.unravel_index(flat, shape))

    def _unpacked(self, field: torch.Tensor, known: torch.Tensor, mirrored: bool) -> torch.Tensor:
        order = list(range(len(known)))
        for a, b in self.side_pairs if mirrored else ():
            if max(a, b) >= len(order):
                raise InputError(f"side_pairs name channel {max(a, b)}; 'label' has {len(order)} channels.")
            order[a], order[b] = b, a
        label = torch.cat([(field >> channel & 1).float() for channel in order])
        label[~known[order].to(label.device)] = torch.nan
        return label


def _plain(image: torch.Tensor) -> torch.Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else image
