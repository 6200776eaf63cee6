"""Repeated segmentation with one network: image and previous result go back in."""

import torch
from torch import nn

from medseg.errors import InputError


class CycleNet(nn.Module):
    """Run `network` `cycles` times on the image and its own previous prediction, with shared weights.

    `network` takes C_image + `out_channels` input channels and returns logits with `out_channels` channels.
    The first pass sees an all-zero prediction, later ones the sigmoid probabilities of the pass before;
    gradients flow through all passes. Returns the logits of the last pass, so any loss and any inferer work
    unchanged. `cycles=1` is the plain network on image and zeros. The number of parameters does not depend on
    `cycles`.

    Use a norm without batch statistics: the first pass and the later ones see different inputs.
    Source: Mosinska et al., CVPR 2018, arXiv 1712.02190, without its weighting of earlier passes.
    """

    def __init__(self, network: nn.Module, out_channels: int, cycles: int = 2) -> None:
        super().__init__()
        if cycles < 1:
            raise InputError(f"CycleNet got cycles={cycles}; it needs at least 1 pass.")
        self.network = network
        self.out_channels = out_channels
        self.cycles = cycles

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(torch.cat([x, x.new_zeros(x.shape[0], self.out_channels, *x.shape[2:])], dim=1))
        for _ in range(self.cycles - 1):
            logits = self.network(torch.cat([x, torch.sigmoid(logits)], dim=1))
        return logits
