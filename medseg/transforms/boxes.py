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
    lies inside.

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
        points_mm, to_mm = self._points_mm((label > 0).any(dim=0).cpu().numpy(), voxel_mm)
        points = points_mm / voxel_mm
        to_index = torch.from_numpy(np.diag([*(1 / voxel_mm), 1.0]) @ to_mm)
        # grid_sample counts from -1 to 1 between the outer edges, and the last axis first.
        relative = (2 * points + 1) / np.array(label.shape[1:]) - 1
        grid = torch.from_numpy(relative[..., ::-1].astype(np.float32))[None].to(label.device)
        for key in self.key_iterator(sample):
            values = functional.grid_sample(
                torch.as_tensor(sample[key])[None].float(), grid, padding_mode="border", align_corners=False
            )[0]
            if key == self.source_key:
                values = (values >= 0.5).float()
            affine = sample[key].affine @ to_index.to(sample[key].affine)
            sample[key] = MetaTensor(values, affine=affine, meta=_meta(sample[key]))
        return sample

    def _points_mm(self, inside: np.ndarray, voxel_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(float64 (*size, 3): where each voxel of the box lies, in mm along the image's axes; 4x4 that takes
        an index of the box there, before it is bent)"""
        if not inside.any():
            raise InputError(f"'{self.source_key}' has no voxel to draw a box around.")
        turn = _turn(np.radians(self.R.uniform(-1, 1, size=3) * self.turn_deg))
        margins_mm = self.R.uniform(*self.margin_mm, size=(2, 3))
        mirrored = (self.R.random(3) < 0.5) & self.flip
        bend_mm = self.R.uniform(-1, 1, size=(3, *[BENDS] * 3)) * self.bend_mm
        turned = (np.argwhere(inside) * voxel_mm) @ turn.T
        low = turned.min(0) - voxel_mm / 2 - margins_mm[0]
        high = turned.max(0) + voxel_mm / 2 + margins_mm[1]
        step = (high - low) / self.size * np.where(mirrored, -1, 1)
        first = np.where(mirrored, high, low) + step / 2
        points = np.stack(np.meshgrid(*map(np.arange, self.size), indexing="ij"), axis=-1) * step + first
        to_mm = np.eye(4)
        to_mm[:3, :3], to_mm[:3, 3] = turn.T * step, turn.T @ first
        if self.bend_mm:
            smooth = functional.interpolate(
                torch.from_numpy(bend_mm)[None], size=self.size, mode="trilinear", align_corners=True
            )
            points = points + np.moveaxis(smooth[0].numpy(), 0, -1)
        return points @ turn, to_mm  # the inverse of a rotation is its transpose


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
