"""Mirror augmentation that never turns a left organ into a right one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Flip, InvertibleTransform, MapTransform, RandomizableTransform

from medseg.cases.radiograph import open_radiograph
from medseg.errors import GeometryError, InputError


class RandFlipSidesd(RandomizableTransform, MapTransform):
    """With probability ``prob``, mirror all keys left to right and swap the label channels of paired organs.

    A patient who is mirrored has his left parotid where the right one was; a flip that does not rename it
    teaches the network that sides mean nothing. ``pairs``: label channels to swap, such as ((2, 3),) for
    Parotid_R and Parotid_L; it may be empty when no structure has a side. Channels of NaN (not contoured) are
    swapped like the others.

    Images are (C, x, y, z) MetaTensors whose axis ``axis`` runs left-right, else GeometryError. The affine
    stays: what is mirrored is the patient, not the order of the voxels. Channels outside the label, or named
    twice, raise InputError.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        pairs: Sequence[Sequence[int]],
        prob: float = 0.5,
        axis: int = 0,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        swapped = [channel for pair in pairs for channel in pair]
        if (
            any(len(pair) != 2 for pair in pairs)
            or len(set(swapped)) != len(swapped)
            or min(swapped, default=0) < 0
        ):
            raise InputError(
                f"pairs are {list(pairs)}; expected pairs of different label channels, each named once."
            )
        self.label_key = label_key
        self.pairs = tuple((int(a), int(b)) for a, b in pairs)
        self.axis = axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return sample
        for key in self.key_iterator(sample):
            self._require_left_right(sample[key], str(key))
            sample[key] = torch.flip(sample[key], dims=[1 + self.axis])
        sample[self.label_key] = self._swap(sample[self.label_key])
        return sample

    def _swap(self, label: torch.Tensor) -> torch.Tensor:
        order = list(range(label.shape[0]))
        for a, b in self.pairs:
            if max(a, b) >= len(order):
                raise InputError(
                    f"pairs name channel {max(a, b)}; '{self.label_key}' has {len(order)} channels."
                )
            order[a], order[b] = b, a
        return label[order]

    def _require_left_right(self, image: torch.Tensor, key: str) -> None:
        direction = np.abs(np.asarray(image.affine)[:3, self.axis])
        if direction.argmax() != 0:
            raise GeometryError(
                f"axis {self.axis} of '{key}' does not run left-right; reorient it first (Orientationd RAS)."
            )


class MirrorRightd(MapTransform, InvertibleTransform):
    """Mirror radiographs of a right side, so that a network sees left ones alone; MONAI's Invertd turns them
    back.

    The side is ``side`` where that is L or R, else ``item[side_key]`` where there is one, else what the DICOM
    file says (ImageLaterality, Laterality). InputError where nobody says it: a guess would cost nothing here
    and everything in the report. Images are (C, row, column) MetaTensors of
    :class:`medseg.transforms.LoadRadiographd`.
    """

    def __init__(self, keys: KeysCollection = "image", side: str | None = None, side_key: str = "side"):
        MapTransform.__init__(self, keys)
        if side not in (None, "L", "R"):
            raise InputError(f"side {side!r}: expected L or R, or null for what each image says.")
        self.side, self.side_key = side, side_key
        self.flip = Flip(spatial_axis=1)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.side_of(d, d[key]) == "R":
                d[key] = self.flip(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            done = d[key].applied_operations
            if done and done[-1]["class"] == type(self.flip).__name__:
                d[key] = self.flip.inverse(d[key])
        return d

    def side_of(self, data: Mapping[Hashable, Any], image: MetaTensor) -> str:
        """ "L" or "R"."""
        said = side_told(image, self.side or data.get(self.side_key))
        if said not in ("L", "R"):
            raise InputError(
                f"{image.meta['filename_or_obj']}: nobody says which side this is (seen: {said or 'nothing'})"
                "; set `side` to L or R, or Laterality in the file."
            )
        return str(said)


def side_told(image: MetaTensor, side: str | None = None) -> Any:
    """``side`` where it is given, else what the DICOM file of a radiograph says (ImageLaterality,
    Laterality); None or "" where it says nothing."""
    if side:
        return side
    stored = open_radiograph(image.meta["filename_or_obj"]).stored
    header = {} if stored is None else stored.header
    return header.get("ImageLaterality") or header.get("Laterality")
