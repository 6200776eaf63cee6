"""Networks that draw boxes, by name, behind one contract: torchvision's detectors over feature pyramids.

torchvision's detectors give the mean loss of a batch. Here the backbone sees the batch and what comes behind
it sees one image at a time, so that every image has losses of its own: those of torchvision for a batch of
one (Ren et al., NeurIPS 2015; Lin et al., ICCV 2017; Tian et al., ICCV 2019).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet18, resnet50, resnext101_32x8d
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import ResNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from medseg.errors import InputError
from medseg.networks.classifiers import NarrowResNet
from medseg.networks.pretrained import load_backbone

GREY_MEAN, GREY_STD = 0.449, 0.226
"""Of the colours of ImageNet together, which published backbones were normalised by."""

LEVELS = ("layer1", "layer2", "layer3", "layer4")
STRIDES = (4, 8, 16, 32, 64)

LOSSES = {
    "loss_classifier": "classification",
    "loss_box_reg": "box regression",
    "loss_objectness": "RPN objectness",
    "loss_rpn_box_reg": "RPN box",
    "classification": "classification",
    "bbox_regression": "box regression",
    "bbox_ctrness": "centre-ness",
    "box_regression": "box regression",
    "loss_mask": "mask",
}
"""torchvision's and MONAI's names of the parts of a loss to ours."""


@dataclass(frozen=True)
class Seen:
    """What a detector in training saw of a batch: its ``features``, from which ``losses`` follow once the
    true boxes are known."""

    detector: nn.Module
    images: ImageList | torch.Tensor
    features: Mapping[str, torch.Tensor]

    def detach(self) -> Seen:
        return replace(self, features={name: maps.detach() for name, maps in self.features.items()})

    def losses(self, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """{part: (B,)} against ``target``, of each image what its detector's ``losses`` take. InputError for
        a target of another shape than ``(B, *target_shape)``, where a name stands for any number."""
        expected = self.detector.target_shape
        if target.ndim != 1 + len(expected) or any(
            isinstance(n, int) and n != size for n, size in zip(expected, target.shape[1:], strict=True)
        ):
            names = ", ".join(map(str, ("B", *expected)))
            raise InputError(f"boxes of shape {tuple(target.shape)}; expected ({names}).")
        rows = [self.detector.losses(self, number, boxes) for number, boxes in enumerate(target)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def answer_rows(corners: torch.Tensor, scores: torch.Tensor, classes: torch.Tensor, most: int):
    """float32 (most, 2 D + 2) of boxes (N, 2 D): corners, score, class; NaN behind the last."""
    found = torch.cat([corners, scores[:, None], classes[:, None].to(corners)], dim=1)[:most]
    rows = found.new_full((most, found.shape[1]), torch.nan)
    rows[: len(found)] = found
    return rows


class AsTheyAre(GeneralizedRCNNTransform):
    """torchvision's preparation of images without its resizing: they come in the network's size."""

    def __init__(self) -> None:
        super().__init__(0, 0, [GREY_MEAN] * 3, [GREY_STD] * 3)

    def resize(self, image, target=None):
        return image, target


def _grouped(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


def _narrow() -> ResNet:
    return NarrowResNet([2, 2, 2, 2], norm_layer=_grouped)


def _fine() -> ResNet:
    """For findings of a few pixels: no stride in the first convolution, so that the finest level of the
    pyramid is two pixels coarse instead of four."""
    network = NarrowResNet([2, 2, 2, 2])
    network.conv1.stride = (1, 1)
    return network


BACKBONES: dict[str, tuple[Callable[[], ResNet], tuple[int, ...], int]] = {
    "resnext101_32x8d": (
        partial(resnext101_32x8d, norm_layer=FrozenBatchNorm2d),
        (256, 512, 1024, 2048),
        256,
    ),
    "resnet50": (partial(resnet50, norm_layer=FrozenBatchNorm2d), (256, 512, 1024, 2048), 256),
    "resnet18": (partial(resnet18, norm_layer=FrozenBatchNorm2d), (64, 128, 256, 512), 256),
    "resnet18_narrow": (_narrow, (16, 32, 64, 128), 64),
    "resnet18_fine": (_fine, (16, 32, 64, 128), 32),
}
"""{name: (how it is built, channels of its four levels, channels of the pyramid)}. The first three take
published weights from a local file, and their normalisation stays what it was there; the last two start from
nothing. The narrow one normalises by groups, since a batch of whole images is small; the fine one by batch,
since it learns from patches, whose own mean is not that of a whole slice."""


def check_names(*chosen: tuple[str, Mapping[str, object]]) -> None:
    """InputError for a name that is not in its table."""
    for name, known in chosen:
        if name not in known:
            raise InputError(f"unknown {name!r}; choose one of {', '.join(known)}.")


def pyramid_of(backbone: str) -> nn.Module:
    """The feature pyramid over one of BACKBONES: five levels, ``out_channels`` each."""
    build, channels, width = BACKBONES[backbone]
    levels = {name: str(n) for n, name in enumerate(LEVELS)}
    return BackboneWithFPN(build(), levels, channels, width, LastLevelMaxPool())


def _faster_rcnn(pyramid: nn.Module, classes: int, anchors: tuple, **options: object) -> nn.Module:
    width = 4 * pyramid.out_channels  # torchvision's 1024 of 256
    return FasterRCNN(
        pyramid,
        box_head=TwoMLPHead(pyramid.out_channels * 7**2, width),
        box_predictor=FastRCNNPredictor(width, classes + 1),
        rpn_pre_nms_top_n_train=2 * options["proposals"],
        rpn_pre_nms_top_n_test=2 * options["proposals"],
        rpn_post_nms_top_n_train=options["proposals"],
        rpn_post_nms_top_n_test=options["proposals"],
        box_batch_size_per_image=max(options["proposals"] // 2, 1),
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in anchors), ((0.5, 1.0, 2.0),) * 5),
        box_score_thresh=options["score_from"],
        box_nms_thresh=options["overlap"],
        box_detections_per_img=options["most"],
    )


def _retinanet(pyramid: nn.Module, classes: int, anchors: tuple, **options: object) -> nn.Module:
    sizes = tuple(tuple(s * 2 ** (n / 3) for n in range(3)) for s in anchors)
    return RetinaNet(
        pyramid,
        num_classes=classes,
        anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
        score_thresh=options["score_from"],
        nms_thresh=options["overlap"],
        detections_per_img=options["most"],
    )


def _fcos(pyramid: nn.Module, classes: int, anchors: tuple, **options: object) -> nn.Module:
    return FCOS(
        pyramid,
        num_classes=classes,
        anchor_generator=AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * 5),
        score_thresh=options["score_from"],
        nms_thresh=options["overlap"],
        detections_per_img=options["most"],
    )


def _two_stages(model: nn.Module, images: ImageList, features: dict, target: dict) -> dict:
    proposals, first = model.rpn(images, features, [target])
    _, second = model.roi_heads(features, proposals, images.image_sizes, [target])
    return {**second, **first}


def _one_stage(model: nn.Module, images: ImageList, features: dict, target: dict) -> dict:
    maps = list(features.values())
    found, anchors = model.head(maps), model.anchor_generator(images, maps)
    counts = [[m.shape[2] * m.shape[3] for m in maps]] if isinstance(model, FCOS) else []
    return model.compute_loss([target], found, anchors, *counts)


ARCHITECTURES = {
    "faster_rcnn": (_faster_rcnn, _two_stages, 1),
    "retinanet": (_retinanet, _one_stage, 0),
    "fcos": (_fcos, _one_stage, 0),
}
"""{name: (how it is built, how it is judged, torchvision's number of our class 0)}: of the first, 0 is the
background."""


class Detector(nn.Module):
    """Grey images (B, 1, H, W), 0 to 1, to boxes.

    In evaluation the answer is float32 (B, ``most``, 6): low row, low column, high row, high column, score,
    class (counted from 0), best first, rows of NaN behind the last box; pixels are counted from the upper
    left corner of the first one. In training it is what was :class:`Seen`, and
    :class:`medseg.losses.BoxesPerSample` judges it by targets (B, rows, 5): a box's corners and its class,
    NaN where there is none. An image without a box is a normal one and trains too.

    ``anchor_sides``: sides in pixels of the boxes that the five levels of the pyramid begin with (FCOS has
    none). Boxes of one class that overlap by more than ``overlap`` (IoU) with a better one are left out, and
    those that score below ``score_from``. ``proposals``: boxes that the first stage of Faster R-CNN hands on;
    half of them are judged in training. Weights are drawn at random; see :meth:`with_backbone`. InputError
    for an unknown name and for other input.
    """

    target_shape = ("rows", 5)

    def __init__(
        self,
        architecture: str = "faster_rcnn",
        backbone: str = "resnet50",
        classes: int = 1,
        most: int = 100,
        anchor_sides: tuple[float, ...] = (32, 64, 128, 256, 512),
        score_from: float = 0.01,
        overlap: float = 0.5,
        proposals: int = 1000,
    ) -> None:
        super().__init__()
        check_names((architecture, ARCHITECTURES), (backbone, BACKBONES))
        if classes < 1 or len(anchor_sides) != len(STRIDES):
            raise InputError(
                f"{classes} classes and {len(anchor_sides)} anchor sides; expected 1 or more and "
                f"{len(STRIDES)}."
            )
        self.backbone_name, self.most = backbone, most
        pyramid = pyramid_of(backbone)
        create, self._judge, self.first_class = ARCHITECTURES[architecture]
        limits = {"score_from": score_from, "overlap": overlap, "most": most, "proposals": proposals}
        self.model = create(pyramid, classes, anchor_sides, **limits)
        self.model.transform = AsTheyAre()

    def with_backbone(self, pretrained: str | os.PathLike[str] | None) -> Detector:
        """This network, its backbone filled from a local file: torchvision's plain state dict of the ResNet,
        read with ``weights_only``; None leaves it as it is. Nothing is ever downloaded."""
        if pretrained is not None:
            made_for = f"torchvision {self.backbone_name}"
            load_backbone(self.model.backbone.body, Path(pretrained), made_for, ("fc.",))
        return self

    @property
    def maps(self) -> str:
        """The layer whose maps :mod:`medseg.inference.box_maps` draws: a sixteenth of the image's sides,
        since the last one is too coarse for small findings."""
        return "model.backbone.body.layer3"

    def forward(self, x: torch.Tensor) -> torch.Tensor | Seen:
        if x.ndim != 4 or x.shape[1] != 1:
            raise InputError(f"input of shape {tuple(x.shape)}; expected (B, 1, H, W).")
        films = list(x.expand(-1, 3, -1, -1))
        if not self.training:
            return torch.stack([self._rows(found) for found in self.model(films)])
        images, _ = self.model.transform(films)
        return Seen(self, images, self.model.backbone(images.tensors))

    def losses(self, seen: Seen, number: int, boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """{part: ()} of image ``number`` against the rows (rows, 5) of its boxes."""
        known = boxes[~boxes.isnan().any(dim=1)]
        target = {
            "boxes": known[:, [1, 0, 3, 2]],
            "labels": known[:, 4].long() + self.first_class,
        }
        one = slice(number, number + 1)
        image = ImageList(seen.images.tensors[one], seen.images.image_sizes[one])
        features = {name: maps[one] for name, maps in seen.features.items()}
        return {LOSSES[name]: loss for name, loss in self._judge(self.model, image, features, target).items()}

    def _rows(self, found: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(most, 6) of torchvision's answer about one image."""
        classes = found["labels"] - self.first_class
        return answer_rows(found["boxes"][:, [1, 0, 3, 2]], found["scores"], classes, self.most)
