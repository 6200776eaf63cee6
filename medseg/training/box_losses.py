"""What a detector's loss says of every image's own boxes: the way to labels that are wrong."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from medseg.losses.boxes import BoxesPerSample


def image_losses(
    network: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], draws: int = 1, seed: int = 0
) -> dict[str, torch.Tensor]:
    """{"loss" and each part: float (N,)} of images and their targets, as :class:`medseg.networks.Detector`
    takes them, without a step of training. High values first are the labels to look at.

    ``draws``: Faster R-CNN draws the boxes that it judges; the mean of so many draws is steadier. Weights,
    mode and torch's own draws are left as they were.
    """
    loss, was_training = BoxesPerSample(), network.training
    found: dict[str, list[torch.Tensor]] = {}
    network.train()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for images, target in batches:
            several: dict[str, list[torch.Tensor]] = {}
            for _ in range(draws):
                values = {"loss": loss(network(images), target), **loss.parts}
                for name, value in values.items():
                    several.setdefault(name, []).append(value.float().cpu())
            for name, drawn in several.items():
                found.setdefault(name, []).append(torch.stack(drawn).mean(dim=0))
    network.train(was_training)
    return {name: torch.cat(values) for name, values in found.items()}
