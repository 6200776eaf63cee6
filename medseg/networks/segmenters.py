"""Networks for photographs by name, behind one contract: (B, 3, H, W) -> logits (B, C, H, W) of the same
size.

The five of the eye-lesion comparison, each in its published widths and once ``_narrow``: every width of the
stages a quarter, the depth unchanged, so that one learns in minutes on a processor and its weights fit 10 MB
in half precision.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabV3
from torchvision.models.segmentation.fcn import FCN, FCNHead

from medseg.errors import BundleError, InputError, unusable
from medseg.networks.fitting import unfitting
from medseg.networks.segnet import SegNet

NARROW = 4
RESNET101 = (3, 4, 23, 3)
RESNET_CHANNELS, ASPP_CHANNELS = 2048, 256


@dataclass(frozen=True)
class Architecture:
    """``build(out_channels)`` gives the network. ``multiple``: both sides of what it is shown are padded to a
    multiple of this. ``encoder``: the attribute that pretrained weights fill, "" where no library publishes
    any; ``made_for``: whose weights those are."""

    build: Callable[[int], nn.Module]
    multiple: int = 1
    encoder: str = ""
    made_for: str = ""


class _Quarter(ResNet):
    """ResNet whose four stages have a quarter of the usual widths; the stem keeps its 64."""

    def _make_layer(self, block, planes, *args, **kwargs):
        return super()._make_layer(block, planes // NARROW, *args, **kwargs)


def _dilated_resnet101(narrowing: int) -> nn.Module:
    """ResNet-101 at an eighth of the resolution, its last feature map under "out"."""
    resnet = (ResNet if narrowing == 1 else _Quarter)(
        Bottleneck, list(RESNET101), replace_stride_with_dilation=[False, True, True]
    )
    return IntermediateLayerGetter(resnet, return_layers={"layer4": "out"})


def _fcn(out_channels: int, narrowing: int = 1) -> nn.Module:
    head = FCNHead(RESNET_CHANNELS // narrowing, out_channels)
    return FCN(_dilated_resnet101(narrowing), head)


def _deeplabv3(out_channels: int, narrowing: int = 1) -> nn.Module:
    """torchvision's, whose DeepLabHead has one width only; hence its parts."""
    width = ASPP_CHANNELS // narrowing
    head = nn.Sequential(
        ASPP(RESNET_CHANNELS // narrowing, (12, 24, 36), width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, out_channels, 1),
    )
    return DeepLabV3(_dilated_resnet101(narrowing), head)


def _deeplabv3plus(out_channels: int, encoder: str, decoder_channels: int = ASPP_CHANNELS, **widths):
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise InputError(
            "deeplabv3plus needs segmentation-models-pytorch: pip install 'medseg[eye]', or choose another "
            "architecture."
        ) from error
    return smp.DeepLabV3Plus(
        encoder, encoder_weights=None, decoder_channels=decoder_channels, classes=out_channels, **widths
    )


def _unet(out_channels: int, narrowing: int = 1) -> nn.Module:
    features = [n // narrowing for n in (64, 128, 256, 512, 1024, 64)]
    return BasicUNet(2, 3, out_channels, features, norm=("batch", {}), act=("relu", {"inplace": True}))


ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture(_unet),
    "unet_narrow": Architecture(lambda c: _unet(c, NARROW)),
    "fcn_resnet101": Architecture(_fcn, encoder="backbone", made_for="torchvision resnet101"),
    "fcn_resnet101_narrow": Architecture(lambda c: _fcn(c, NARROW)),
    "segnet": Architecture(SegNet, encoder="encoder", made_for="torchvision vgg16_bn"),
    "segnet_narrow": Architecture(lambda c: SegNet(c, NARROW)),
    "deeplabv3": Architecture(_deeplabv3, encoder="backbone", made_for="torchvision resnet101"),
    "deeplabv3_narrow": Architecture(lambda c: _deeplabv3(c, NARROW)),
    "deeplabv3plus": Architecture(
        lambda c: _deeplabv3plus(c, "resnet101"), 16, "encoder", "torchvision resnet101"
    ),
    "deeplabv3plus_xception": Architecture(
        lambda c: _deeplabv3plus(c, "tu-xception65"), 16, "encoder.model", "timm xception65"
    ),
    "deeplabv3plus_narrow": Architecture(
        lambda c: _deeplabv3plus(c, "tu-resnet101", ASPP_CHANNELS // NARROW, channels=(16, 32, 64, 128)), 16
    ),
}
"""By name. FCN, DeepLabv3 and the ResNet are torchvision's, the U-Net MONAI's, DeepLabv3+ that of
segmentation-models-pytorch, with Xception65 from timm. No kept library has DRN."""

CLASSIFIER_KEYS = ("fc.", "classifier.", "head.")
"""The part of a classification network that a segmentation network has no use for."""


class Segmenter(nn.Module):
    """One of :data:`ARCHITECTURES`: (B, 3, H, W) float -> logits (B, out_channels, H, W), whatever H and W.

    Sides that do not divide are padded by repeating the border, and cut off again. Weights are drawn at
    random. Batch norm of what is pooled to a single pixel is left out: over a batch of 1 it has nothing to
    normalise, and over a batch of 2 it gives nothing but +1 and -1. InputError for an unknown name and for an
    input of other channels.
    """

    def __init__(self, architecture: str, out_channels: int = 1) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise InputError(
                f"unknown architecture {architecture!r}; choose one of {', '.join(ARCHITECTURES)}."
            )
        self.architecture = architecture
        self.multiple = ARCHITECTURES[architecture].multiple
        self.network = ARCHITECTURES[architecture].build(out_channels)
        _free_single_pixels(self.network)

    def with_backbone(self, pretrained: str | os.PathLike[str] | None) -> Segmenter:
        """This network, its backbone filled from a local file: a plain state dict such as torchvision's
        resnet101, read with ``weights_only``; None leaves it as it is. Nothing is ever downloaded.
        InputError for a file that is missing and an architecture without a published backbone, BundleError
        for a file that does not fit."""
        if pretrained is not None:
            _load_backbone(self.network, self.architecture, Path(pretrained))
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise InputError(
                f"{self.architecture} got an input of shape {tuple(x.shape)}; expected (B, 3, H, W), colours "
                "as channels."
            )
        rows, columns = x.shape[-2:]
        below, right = -rows % self.multiple, -columns % self.multiple
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        answer = self.network(x)
        logits = answer["out"] if isinstance(answer, dict) else answer
        return logits[..., :rows, :columns]


def _free_single_pixels(network: nn.Module) -> None:
    """Take batch norm out of the branches that pool the image to one pixel."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential) or not len(module):
            continue
        if isinstance(module[0], nn.AdaptiveAvgPool2d) and module[0].output_size in (1, (1, 1)):
            for place, layer in enumerate(module):
                if isinstance(layer, nn.BatchNorm2d):
                    module[place] = nn.Identity()


def _load_backbone(network: nn.Module, architecture: str, path: Path) -> None:
    known = ARCHITECTURES[architecture]
    if not known.encoder:
        raise InputError(
            f"architecture {architecture} has no backbone that anybody publishes weights of; leave "
            "`pretrained` out."
        )
    if not path.is_file():
        raise unusable(path, f"weights of {known.made_for}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        weights = {
            name.removeprefix("features."): tensor
            for name, tensor in weights.items()
            if not name.startswith(CLASSIFIER_KEYS)
        }
    except Exception as error:  # torch raises whatever a damaged or foreign file leads to
        raise BundleError(
            f"{path}: not a plain state dict ({type(error).__name__}); expected weights of {known.made_for}."
        ) from error
    backbone = network.get_submodule(known.encoder)
    unfit = unfitting(backbone, weights)
    if unfit:
        raise BundleError(
            f"{path} does not fit the backbone of {architecture}: {len(unfit)} tensors, first {unfit[0]}; "
            f"expected weights of {known.made_for}."
        )
    backbone.load_state_dict(weights)
