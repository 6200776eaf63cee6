"""A network that looks at an image and its label together and scores the label: used in training, dropped
afterwards."""

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from torch import nn
from torch.nn import functional

from medseg.errors import InputError

BACKBONES: dict[str, tuple[tuple[int, ...], ...]] = {
    "small": ((16,), (32,), (64, 64), (64, 64)),
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}
"""Channels of the 3x3(x3) convolutions of each stage; every stage ends in a 2x2(x2) max-pooling (Simonyan
2015)."""

EPSILON = 1e-8
"""Pooled features differ by a few hundredths between labels; the usual 1e-5 would damp half of them."""

NOT_CONTOURED = -1.0
"""What the module sees in a label channel of NaN: a value that no contour has."""


class QualityModule(nn.Module):
    """VGG-like encoder on image and label channels with a signed score as its answer.

    Input (B, C_image + C_label, *spatial), at least 2^stages voxels along each axis; a label channel of NaN
    is a structure that was not contoured. Returns float32 scores (B, `scores`): one per sample, or one per
    structure; with `as_features` the pooled features (B, F) that `score` makes them of.

    The last ReLU is followed by the mean over all positions and a linear layer, so that scores take both
    signs: with a ReLU at the end two weights could never differ by more than e^lambda. `zero_init` starts
    that layer at zero, so training starts with equal weights.

    `standardise` subtracts each pooled feature's mean over the score pool and divides by its standard
    deviation before the linear layer. Without it the features of all samples share one large direction, the
    area of the label, and a score that is driven by a weighted sum of losses settles on it whatever the
    losses say. In training the statistics are those of the features that `score` is given, which is why
    pools hand it all of theirs at once; a single sample, and every one in evaluation, meets the running ones.
    `norm` inside the encoder is None by default: batch norm there would mix samples within micro-batches, and
    instance norm hides how large a structure is.

    Source: QAM of Zhu, Shi and Wu, MICCAI 2019, arXiv 1907.11835, section 2.1 ("VGG based", no further detail
    there); standardising is ours.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        scores: int = 1,
        backbone: str | Sequence[Sequence[int]] = "small",
        norm: str | tuple | None = None,
        zero_init: bool = True,
        standardise: bool = True,
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
        self.scores = scores
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
        self.statistics = nn.BatchNorm1d(width, eps=EPSILON, affine=False) if standardise else None
        self.head = nn.Linear(width, scores)
        if zero_init:
            _set_to_zero(self.head)

    def forward(self, x: torch.Tensor, as_features: bool = False) -> torch.Tensor:
        if min(x.shape[2:]) < self.smallest_size:
            raise InputError(
                f"QualityModule got an input of spatial size {tuple(x.shape[2:])}; its stages halve it, so "
                f"each axis needs at least {self.smallest_size}."
            )
        cells = self.features(torch.nan_to_num(x, nan=NOT_CONTOURED)).float()
        features = self.pooled(cells, x)
        return features if as_features else self.score(features)

    def pooled(self, cells: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(B, F): what `score` is given, of the encoder's answer (B, channels, *cells) to the input `x`."""
        del x  # StructureQualityModule looks where its labels are
        return cells.flatten(2).mean(-1)

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Scores float32 (N, `scores`) of pooled features (N, F), which in training are one whole pool."""
        # Half precision has steps of 0.02 near 3; scores are compared, so they are made in float32.
        with torch.autocast(features.device.type, enabled=False):
            return self.head(self._standardised(features.float()))

    def _standardised(self, features: torch.Tensor) -> torch.Tensor:
        norm = self.statistics
        if norm is None:
            return features
        if len(features) > 1:
            return norm(features)
        return functional.batch_norm(features, norm.running_mean, norm.running_var, eps=norm.eps)


class StructureQualityModule(QualityModule):
    """A QualityModule with a score for each structure, made of what it sees around that structure's label.

    The last `structures` channels of the input are the labels. The encoder's answer is averaged over the
    cells that a label touches and those beside them, standardised over the pool, and scored by a linear layer
    of that structure's own. For volumes: in the mean over all positions a structure of a few hundred voxels
    is lost among hundreds of thousands.

    A structure without a label voxel scores 0 and leaves the statistics of the others alone. Ours.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        structures: int,
        backbone: str | Sequence[Sequence[int]] = "small",
        zero_init: bool = True,
    ) -> None:
        super().__init__(spatial_dims, in_channels, structures, backbone)
        width = structures * self.head.in_features
        self.statistics = nn.BatchNorm1d(width, eps=EPSILON, affine=False)
        self.head = nn.Conv1d(width, structures, kernel_size=1, groups=structures)
        self.widen = Pool[Pool.MAX, spatial_dims](kernel_size=3, stride=1, padding=1)
        self.touched = Pool[Pool.ADAPTIVEMAX, spatial_dims]
        if zero_init:
            _set_to_zero(self.head)

    def pooled(self, cells: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(B, structures * (channels + 1)): for each structure the means around its label, and 1 where it has
        a voxel."""
        labels = (torch.nan_to_num(x[:, -self.scores :]) > 0).float()
        around = self.widen(self.touched(cells.shape[2:])(labels)).flatten(2)
        size = around.sum(-1, keepdim=True)
        with torch.autocast(x.device.type, enabled=False):
            means = around @ cells.flatten(2).mT / size.clamp(min=1)
        return torch.cat([means, (size > 0).float()], -1).flatten(1)

    def score(self, features: torch.Tensor) -> torch.Tensor:
        """Scores float32 (N, structures) of the pooled features of one whole pool."""
        with torch.autocast(features.device.type, enabled=False):
            split = features.float().unflatten(1, (self.scores, -1))
            means, drawn = split[..., :-1], split[..., -1:]
            # At the mean of those that have one, an absent structure moves nobody and stands at 0 itself.
            usual = (means * drawn).sum(0) / drawn.sum(0).clamp(min=1)
            if not self.training or len(features) == 1:
                usual = self.statistics.running_mean.reshape(usual.shape)
            filled = torch.where(drawn > 0, means, usual)
            scores = self.head(self._standardised(filled.flatten(1)).unsqueeze(-1)).squeeze(-1)
            return scores * drawn.squeeze(-1)


def _set_to_zero(layer: nn.Module) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
