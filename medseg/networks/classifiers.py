"""Networks for whole images by name, behind one contract: (B, 1 + covariates, H, W) -> logits (B, classes).

The backbones are torchvision's, in their published widths; those called ``_narrow`` have a quarter of the
widths, for a processor and a file of 10 MB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torchvision import models
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import cfgs, make_layers

from medseg.errors import InputError
from medseg.networks.pretrained import load_backbone


@dataclass(frozen=True)
class Backbone:
    """``build()`` gives torchvision's network; ``head``: its last linear layer, whose input are the features;
    ``maps``: the layer whose maps a class activation map is drawn of."""

    build: Callable[[], nn.Module]
    head: str
    maps: str


NARROWER = 4


class NarrowResNet(ResNet):
    """ResNet of a quarter of the usual widths, the stem apart."""

    def __init__(self, layers: list[int], **kwargs) -> None:
        super().__init__(BasicBlock, layers, **kwargs)
        self.fc = nn.Linear(512 // NARROWER, 1000)

    def _make_layer(self, block, planes, *args, **kwargs):
        return super()._make_layer(block, planes // NARROWER, *args, **kwargs)


def _narrow_googlenet() -> nn.Module:
    def conv(channels: int, out: int, **kwargs) -> nn.Module:
        return BasicConv2d(3 if channels == 3 else channels // NARROWER, out // NARROWER, **kwargs)

    inception = partial(Inception, conv_block=conv)
    network = models.GoogLeNet(aux_logits=False, init_weights=True, blocks=[conv, inception, InceptionAux])
    network.fc = nn.Linear(1024 // NARROWER, 1000)
    return network


def _narrow_densenet() -> nn.Module:
    return models.DenseNet(32 // NARROWER, (6, 12, 24, 16), 64 // NARROWER)


def _narrow_vgg() -> nn.Module:
    widths = [width if width == "M" else width // NARROWER for width in cfgs["D"]]
    network = models.VGG(make_layers(widths))
    hidden = 4096 // NARROWER
    network.classifier = nn.Sequential(
        nn.Linear(512 // NARROWER * 49, hidden),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(hidden, 1000),
    )
    return network


BACKBONES: dict[str, Backbone] = {
    "resnet18": Backbone(models.resnet18, "fc", "layer4"),
    "resnet18_narrow": Backbone(lambda: NarrowResNet([2, 2, 2, 2]), "fc", "layer4"),
    "resnet34": Backbone(models.resnet34, "fc", "layer4"),
    "resnet50": Backbone(models.resnet50, "fc", "layer4"),
    "googlenet": Backbone(lambda: models.googlenet(aux_logits=False, init_weights=True), "fc", "inception5b"),
    "densenet121": Backbone(models.densenet121, "classifier", "features"),
    "vgg16": Backbone(models.vgg16, "classifier.6", "features"),
    "efficientnet_b0": Backbone(models.efficientnet_b0, "classifier.1", "features"),
    "resnet34_narrow": Backbone(lambda: NarrowResNet([3, 4, 6, 3]), "fc", "layer4"),
    "googlenet_narrow": Backbone(_narrow_googlenet, "fc", "inception5b"),
    "densenet121_narrow": Backbone(_narrow_densenet, "classifier", "features"),
    "vgg16_narrow": Backbone(_narrow_vgg, "classifier.6", "features"),
}
"""By name; all but the narrow ones take torchvision's published weights from a local file."""


class Classifier(nn.Module):
    """A radiograph, and numbers about the patient, to logits of classes.

    The first channel is the image, 0 to 1, given three times to a backbone that learned from colours; each
    further channel is a covariate, the same number in all pixels (age, height …, scaled to about -1 to 1),
    that joins the features behind the backbone. ``covariates`` says how many; 0 is the image alone.
    ``numbers``: outputs behind the logits, (B, classes + numbers), which learn standardised numbers. Weights
    are drawn at random. InputError for an unknown backbone, fewer than two classes, and an input of other
    channels.
    """

    def __init__(
        self, backbone: str = "resnet18", classes: int = 2, covariates: int = 0, numbers: int = 0
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise InputError(f"unknown backbone {backbone!r}; choose one of {', '.join(BACKBONES)}.")
        if classes < 2 or covariates < 0 or numbers < 0:
            raise InputError(
                f"{classes} classes, {covariates} covariates and {numbers} numbers: expected at least 2, 0 "
                "and 0."
            )
        self.name, self.covariates = backbone, covariates
        self.backbone = BACKBONES[backbone].build()
        owner, _, place = BACKBONES[backbone].head.rpartition(".")
        head = self.backbone.get_submodule(BACKBONES[backbone].head)
        setattr(self.backbone.get_submodule(owner), place, nn.Identity())
        self.head = nn.Linear(head.in_features + covariates, classes + numbers)

    @property
    def maps(self) -> str:
        """The layer of this network whose maps :mod:`medseg.inference.cams` draws."""
        return f"backbone.{BACKBONES[self.name].maps}"

    def with_backbone(self, pretrained: str | os.PathLike[str] | None) -> Classifier:
        """This network, its backbone filled from a local file: torchvision's plain state dict, read with
        ``weights_only``; None leaves it as it is. Nothing is ever downloaded. InputError for a missing file,
        BundleError for one that does not fit."""
        if pretrained is not None:
            without = (f"{BACKBONES[self.name].head}.", "aux1.", "aux2.")
            load_backbone(self.backbone, Path(pretrained), f"torchvision {self.name}", without)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1] != 1 + self.covariates:
            raise InputError(
                f"{self.name} got an input of shape {tuple(x.shape)}; expected (B, {1 + self.covariates}, H, "
                "W)."
            )
        features = self.backbone(x[:, :1].expand(-1, 3, -1, -1))
        return self.head(torch.cat([features, x[:, 1:, 0, 0]], dim=1))
