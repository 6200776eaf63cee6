"""A network that looks at an image and its label together and scores the label: used in training, dropped
afterwards."""

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from torch import nn

from medseg.errors import InputError

BACKBONES: dict[str, tuple[tuple[int, ...], ...]] = {
    "small": ((16,), (32,), (64, 64), (64, 64)),
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}
"""Channels of the 3x3(x3) convolutions of each stage; every stage ends in a 2x2(x2) max-pooling (Simonyan
2015)."""

NOT_CONTOURED = -1.0
"""What the module sees in a label channel of NaN: a value that no contour has."""


class QualityModule(nn.Module):
    """VGG-like encoder on image and label channels with a signed score as its answer.

    Input (B, C_image + C_label, *spatial), at least 2^stages voxels along each axis; a label channel of NaN
    is a structure that was not contoured. Returns float32 scores (B, `scores`): one per sample, or one per
    structure.

    The last ReLU is followed by a 1x1 convolution and the mean over all positions, so that scores take both
    signs: with a ReLU at the end two weights could never differ by more than e^lambda. (Both steps are
    linear, so the mean is taken first and the convolution is a linear layer.) `zero_init` starts it at zero,
    so training starts with equal weights. `norm` is None by default: batch statistics would mix the samples
    that are to be told apart, and instance norm hides how large a structure is.

    Source: QAM of Zhu, Shi and Wu, MICCAI 2019, arXiv 1907.11835, section 2.1 ("VGG based", no further detail
    there).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        scores: int = 1,
        backbone: str | Sequence[Sequence[int]] = "small",
        norm: str | tuple | None = None,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(backbone, str) and backbone not in BACKBONES:
            raise InputError(
                f"QualityModule has no backbone '{backbone}'; choose one of {', '.join(BACKBONES)}."
            )
        stages = (
            BACKBONES[backbone] if isinstance(backbone, str) else tuple(tuple(stage) for stage in backbone)
        )
        self.smallest_size = 2 ** len(stages)
        layers: list[nn.Module] = []
        width = in_channels
        for stage in stages:
            for channels in stage:
                layers.append(Conv[Conv.CONV, spatial_dims](width, channels, kernel_size=3, padding=1))
                if norm is not None:
                    layers.append(get_norm_layer(norm, spatial_dims=spatial_dims, channels=channels))
                layers.append(nn.ReLU(inplace=True))
                width = channels
            layers.append(Pool[Pool.MAX, spatial_dims](kernel_size=2))
        self.features = nn.Sequential(*layers)
        for module in self.features:
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        self.head = nn.Linear(width, scores)
        if zero_init:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[2:]) < self.smallest_size:
            raise InputError(
                f"QualityModule got an input of spatial size {tuple(x.shape[2:])}; its stages halve it, so "
                f"each axis "
                f"needs at least {self.smallest_size}."
            )
        features = self.features(torch.nan_to_num(x, nan=NOT_CONTOURED))
        # Half precision has steps of 0.02 near 3; scores are compared, so they are made in float32.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(features.float().flatten(2).mean(-1))
