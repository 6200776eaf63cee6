"""SegNet: an encoder-decoder that remembers where each maximum stood, not whole feature maps."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from medseg.errors import InputError

DESCENTS = 5


class SegNet(nn.Module):
    """The 13 convolutions of VGG16 with batch norm, mirrored; the decoder puts every value back where its
    maximum was pooled. (B, 3, H, W) -> logits (B, out_channels, H, W), any H and W from 32 on.

    ``narrowing`` divides every width. ``encoder`` has the layers and names of torchvision's
    ``vgg16_bn().features``. Source: Badrinarayanan, Kendall and Cipolla, IEEE TPAMI 39:2481-2495, 2017; no
    library that is kept has it.
    """

    def __init__(self, out_channels: int = 1, narrowing: int = 1) -> None:
        super().__init__()
        widths = [n if n == "M" else n // narrowing for n in cfgs["D"]]
        self.encoder = make_layers(widths, batch_norm=True)
        self.decoder = nn.ModuleList(_mirrored(widths))
        last = widths[0]
        self.head = nn.Conv2d(last, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[-2:]) < 2**DESCENTS:
            raise InputError(
                f"SegNet got {x.shape[-2]} x {x.shape[-1]} pixels; it halves {DESCENTS} times and needs "
                f"{2**DESCENTS} or more each way."
            )
        places = []
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                size = x.shape
                x, indices = F.max_pool2d(x, 2, stride=2, return_indices=True)
                places.append((indices, size))
            else:
                x = layer(x)
        for stage in self.decoder:
            indices, size = places.pop()
            x = stage(F.max_unpool2d(x, indices, 2, stride=2, output_size=size[-2:]))
        return self.head(x)


def _mirrored(widths: list) -> list[nn.Sequential]:
    """One stage of convolutions per descent, deepest first; each ends with the width of the stage above."""
    stages: list[list[int]] = [[]]
    for width in widths:
        if width == "M":
            stages.append([])
        else:
            stages[-1].append(width)
    stages = stages[:-1]
    found = []
    for level in reversed(range(len(stages))):
        here = stages[level]
        above = stages[level - 1][-1] if level else here[0]
        outs = [*reversed(here[:-1]), above]
        ins = [here[-1], *outs[:-1]]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(ins, outs, strict=True):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        found.append(nn.Sequential(*layers))
    return found
