"""MONAI inferers that find boxes in volumes: a 3D detector over windows, a detector of slices and what links
its findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer, SlidingWindowInferer
from torch import nn
from torch.nn import functional

from medseg.errors import InputError
from medseg.inference.linking import SliceFindings, draw, link_slices


class BoxWindows(Inferer):
    """A :class:`medseg.networks.VolumeDetector` over windows of ``roi_size`` voxels that overlap by
    ``overlap``; what it sees in them is put together before boxes are chosen. A volume no larger than a
    window is seen at once. ``progress``: a bar of the windows."""

    def __init__(
        self, roi_size: Sequence[int], overlap: float = 0.25, batch_size: int = 1, progress: bool = False
    ) -> None:
        super().__init__()
        self.roi_size = tuple(roi_size)
        self.windows = SlidingWindowInferer(
            self.roi_size, batch_size, overlap, mode="constant", progress=progress
        )

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        fits = all(n <= side for n, side in zip(inputs.shape[2:], self.roi_size, strict=True))
        return network(inputs, None if fits else self.windows)


class LinkedSlices(Inferer):
    """A :class:`medseg.networks.SliceDetector` on every slice across the last axis, and its findings linked.

    ``network``'s input is (1, 1, x, y, z); the neighbours of the first and the last slice are these
    themselves. The answer is {"rows": float32 (1, ``most``, 8), as of VolumeDetector, "masks": int16 (1, 1,
    x, y, z)}, n + 1 in the voxels of row n. ``batch_size``: slices at once. ``overlap``, ``gap`` and
    ``whole_from``: see :func:`medseg.inference.linking.link_slices`. InputError for more than one volume.
    """

    def __init__(
        self, most: int = 100, batch_size: int = 8, overlap: float = 0.1, gap: int = 1, whole_from: int = 2
    ) -> None:
        super().__init__()
        self.most, self.batch_size = most, batch_size
        self.links = {"overlap": overlap, "gap": gap, "whole_from": whole_from}

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> dict:
        if inputs.ndim != 5 or inputs.shape[:2] != (1, 1):
            raise InputError(f"input of shape {tuple(inputs.shape)}; expected (1, 1, x, y, z), one volume.")
        volume = inputs[0, 0].as_subclass(torch.Tensor).movedim(-1, 0)
        around = functional.pad(volume[None, None], (0, 0, 0, 0, 1, 1), mode="replicate")[0, 0]
        slices = []
        for first in range(0, len(volume), self.batch_size):
            levels = range(first, min(first + self.batch_size, len(volume)))
            for found in network(torch.stack([around[level : level + 3] for level in levels])):
                scores, masks = found["rows"][:, 4], found["masks"]
                slices.append(SliceFindings(scores.cpu().numpy(), masks.cpu().numpy()))
        findings = link_slices(slices, **self.links)[: self.most]
        boxes, labels = draw(slices, findings, tuple(inputs.shape[2:]))
        rows = torch.full((1, self.most, 8), torch.nan)
        rows[0, : len(findings), :6] = torch.from_numpy(boxes).float()
        rows[0, : len(findings), 6] = torch.tensor([finding.score for finding in findings])
        rows[0, : len(findings), 7] = 0
        return {"rows": rows.to(inputs.device), "masks": torch.from_numpy(labels)[None, None]}
