"""Training boxes drawn around a tumour, turned, bent and brought to one size in a single interpolation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable
from torch.nn import functional

from medseg.errors import InputError

BENDS = 4
"""Control points of the bending along each side of the box."""


class RandBoxGridd(Randomizable, MapTransform):
    """Sample a box around the labelled voxels on a grid of `size`, as a user who draws one makes it.

    The patient is turned by up to `turn_deg` about each axis, then the upright bounding box of `source_key`
    is widened by a margin for each of its six sides, uniform in `margin_mm`; with `flip` every axis is
    mirrored half of the time. `bend_mm`: the largest displacement along an axis of a smooth bending of what
    lies inside. It works on the device of its images.

    Turning, cutting and resizing are one linear interpolation: RandAffined, RandRegionCropd and Resized in a
    row interpolate twice, on the whole image, and take 20 to 50 times as long. Beyond the image its border
    goes on. Labels come out as 0 and 1. The affine is that of the box as it was before bending. Images are
    channel-first (C, x, y, z) MetaTensors of one size whose axes are upright in space. With `turn_deg` and
    `bend_mm` 0 and one margin the result is not random. Raises InputError when keys differ in size and for a
    label without a voxel.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int],
        margin_mm: Sequence[float],
        source_key: str = "label",
        turn_deg: Sequence[float] = (0.0, 0.0, 0.0),
        bend_mm: float = 0.0,
        flip: bool = False,
    ) -> None:
        super().__init__(keys)
        low, high = margin_mm
        if not 0 <= low <= high:
            raise InputError(
                f"margin_mm is {tuple(margin_mm)}; it must be (smallest, largest), neither negative."
            )
        self.size, self.margin_mm, self.source_key = tuple(size), (float(low), float(high)), source_key
        self.turn_deg, self.bend_mm, self.flip = tuple(turn_deg), float(bend_mm), flip

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        sample = dict(data)
        label = sample[self.source_key]
        for key in self.key_iterator(sample):
            if sample[key].shape[1:] != label.shape[1:]:
                raise InputError(
                    f"'{key}' has size {tuple(sample[key].shape[1:])}, '{self.source_key}' has "
                    f"{tuple(label.shape[1:])}."
                )
        voxel_mm = np.asarray(label.pixdim[:3], dtype=np.float64)
        inside = (label > 0).any(dim=0).cpu().numpy()
        to_mm, bend_mm = self._drawn(inside, voxel_mm)
        to_index = np.diag([*(1 / voxel_mm), 1.0]) @ to_mm
        grid = sampled_at(to_index, self.size, label.shape[1:], label.device)
        if self.bend_mm:  # from mm to what grid_sample counts in, the last axis first
            bend = (bend_mm * (2 / voxel_mm / inside.shape)[:, None, None, None])[::-1].astype(np.float32)
            smooth = functional.interpolate(
                torch.from_numpy(bend[None].copy()).to(label.device),
                size=self.size,
                mode="trilinear",
                align_corners=True,
            )
            grid = grid + smooth.movedim(1, -1)
        for key in self.key_iterator(sample):
            values = functional.grid_sample(
                torch.as_tensor(sample[key])[None].float(), grid, padding_mode="border", align_corners=False
            )[0]
            if key == self.source_key:
                values = (values >= 0.5).float()
            affine = sample[key].affine @ torch.from_numpy(to_index).to(sample[key].affine)
            sample[key] = MetaTensor(values, affine=affine, meta=_meta(sample[key]))
        return sample

    def _drawn(self, inside: np.ndarray, voxel_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """4x4 that takes an index of the box to mm along the image's axes, before it is bent; and how far
        it is bent, mm along the same axes, (3, BENDS, BENDS, BENDS)."""
        if not inside.any():
            raise InputError(f"'{self.source_key}' has no voxel to draw a box around.")
        turn = _turn(np.radians(self.R.uniform(-1, 1, size=3) * self.turn_deg))
        margins_mm = self.R.uniform(*self.margin_mm, size=(2, 3))
        mirrored = (self.R.random(3) < 0.5) & self.flip
        bend_mm = self.R.uniform(-1, 1, size=(3, *[BENDS] * 3)) * self.bend_mm
        turned = (_ends(inside) * voxel_mm) @ turn.T
        low = turned.min(0) - voxel_mm / 2 - margins_mm[0]
        high = turned.max(0) + voxel_mm / 2 + margins_mm[1]
        step = (high - low) / self.size * np.where(mirrored, -1, 1)
        first = np.where(mirrored, high, low) + step / 2
        to_mm = np.eye(4)  # the inverse of a rotation is its transpose
        to_mm[:3, :3], to_mm[:3, 3] = turn.T * step, turn.T @ first
        return to_mm, np.tensordot(turn.T, bend_mm, axes=1)


def _ends(inside: np.ndarray) -> np.ndarray:
    """First and last voxel of every column along the last axis, (n, 3): no other voxel reaches further,
    whichever way they are turned."""
    columns = np.argwhere(inside.any(2))
    held = inside[columns[:, 0], columns[:, 1]]
    first, last = held.argmax(1), held.shape[1] - 1 - held[:, ::-1].argmax(1)
    return np.concatenate([np.c_[columns, first], np.c_[columns, last]])


def sampled_at(
    to_index: np.ndarray, size: Sequence[int], shape: Sequence[int], device: torch.device | None = None
) -> torch.Tensor:
    """The grid of torch's grid_sample, (1, *size, 3), for a 4x4 matrix from indices of the result to those of
    an image of ``shape``."""
    # affine_grid counts from -1 to 1 between the outer edges, and the last axis first.
    index_of = np.eye(4)
    index_of[:3, :3] = np.diag(np.array(size) / 2)
    index_of[:3, 3] = np.array(size) / 2 - 0.5
    relative = np.eye(4)
    relative[:3, :3] = np.diag(2 / np.array(shape))
    relative[:3, 3] = 1 / np.array(shape) - 1
    theta = (relative @ to_index @ index_of)[:3]
    theta = np.concatenate([theta[::-1, 2::-1], theta[::-1, 3:]], axis=1)
    return functional.affine_grid(
        torch.from_numpy(theta[None].astype(np.float32)).to(device), [1, 1, *size], align_corners=False
    )


def _turn(angles: np.ndarray) -> np.ndarray:
    """3x3 rotation about the first, then the second, then the third axis."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = step @ turn
    return turn


def _meta(image: torch.Tensor) -> dict:
    return {key: value for key, value in image.meta.items() if key != "affine"}
