"""A network that draws boxes in volumes: MONAI's 3D RetinaNet, by its public recipe for nodules of the lung.

The recipe is that of MONAI's LUNA16 detector: two levels of a ResNet and a coarser one, three shapes of
anchors, ATSS to match them (Zhang et al., CVPR 2020) and hard negatives (Baumgartner et al., MICCAI 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from monai.apps.detection.utils.detector_utils import preprocess_images
from monai.networks.blocks.backbone_fpn_utils import BackboneWithFPN
from monai.networks.blocks.feature_pyramid_network import LastLevelMaxPool
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from medseg.errors import InputError
from medseg.networks.detectors import LOSSES, Seen, answer_rows, check_names

LEVELS = ("layer1", "layer2")


@dataclass(frozen=True)
class VolumeBackbone:
    """``build``: the ResNet; ``channels`` of its first two levels; ``width``: channels of the pyramid;
    ``head_steps``: convolutions of each head before its last."""

    build: Callable[..., nn.Module]
    channels: tuple[int, int]
    width: int
    head_steps: int


VOLUME_BACKBONES = {
    "resnet50": VolumeBackbone(
        partial(ResNet, ResNetBottleneck, [3, 4, 6, 3], [64, 128, 256, 512], conv1_t_size=7),
        (256, 512),
        width=256,
        head_steps=4,
    ),
    "resnet10_narrow": VolumeBackbone(
        partial(ResNet, ResNetBlock, [1, 1, 1, 1], [16, 32, 64, 128], conv1_t_size=3),
        (16, 32),
        width=16,
        head_steps=2,
    ),
}
"""The first is the public recipe's, the second learns on one core. Both normalise by batch: the mean over a
patch around a nodule is another than that over a window of lung, and groups would be normalised by it."""


class FocalOverPositives(nn.Module):
    """The focal loss (Lin et al., ICCV 2017) of logits and targets (N, classes): (), summed over all
    anchors and divided by how many lie on a finding, by one where none does."""

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = sigmoid_focal_loss(logits, targets, alpha=0.5, gamma=2.0, reduction="sum")
        return total / targets.sum().clamp(min=1.0)


class VolumeDetector(nn.Module):
    """Grey volumes (B, 1, x, y, z), 0 to 1, to boxes.

    In evaluation the answer is float32 (B, ``most``, 8): low x, y, z, high x, y, z, score, class (counted
    from 0), best first, rows of NaN behind the last box; voxels are counted from the outer corner of the
    first one. ``windows``, a MONAI inferer, runs the network over a large volume;
    :class:`medseg.inference.BoxWindows` hands one over. In training it is what was Seen, as of
    :class:`medseg.networks.Detector`, judged by targets (B, rows, 7): a box's corners and its class, NaN
    where there is none.

    ``anchor_shapes``: sides in voxels of the boxes that the finest of the three levels begins with; they
    double from level to level. ``first_stride``: of the first convolution along x, y and z; the finest level
    is twice as coarse. ``overlap``: see Detector. ``judged``: anchors of an image that count in its loss, at
    most 3 in 10 of them on a finding, the others drawn among the hardest (MONAI's recipe); None: all, by
    :class:`FocalOverPositives`, by which a small network learns sooner. Weights are drawn at random.
    InputError for an unknown name, another input and sides that are not positive.
    """

    target_shape = ("rows", 7)

    def __init__(
        self,
        backbone: str = "resnet50",
        classes: int = 1,
        most: int = 100,
        anchor_shapes: Sequence[Sequence[float]] = ((6, 8, 4), (8, 6, 5), (10, 10, 6)),
        first_stride: Sequence[int] = (2, 2, 1),
        score_from: float = 0.02,
        overlap: float = 0.22,
        judged: int | None = 64,
    ) -> None:
        super().__init__()
        check_names((backbone, VOLUME_BACKBONES))
        shapes = [tuple(float(side) for side in shape) for shape in anchor_shapes]
        if classes < 1 or not shapes or any(len(s) != 3 or min(s) <= 0 for s in shapes):
            raise InputError(
                f"{classes} classes and anchors of {shapes}; expected 1 or more, and three positive sides."
            )
        self.most = most
        chosen = VOLUME_BACKBONES[backbone]
        body = chosen.build(
            spatial_dims=3, n_input_channels=1, conv1_t_stride=tuple(first_stride), feed_forward=False
        )
        pyramid = BackboneWithFPN(
            body,
            {name: str(n) for n, name in enumerate(LEVELS)},
            list(chosen.channels),
            chosen.width,
            spatial_dims=3,
            extra_blocks=LastLevelMaxPool(3),
        )
        coarsest = [stride * 2 ** (len(LEVELS) + 1) for stride in first_stride]
        network = RetinaNet(3, classes, len(shapes), pyramid, coarsest)
        for head in (network.classification_head, network.regression_head):
            head.conv = head.conv[: 3 * chosen.head_steps]  # of a convolution, its normalisation and a ReLU
        anchors = AnchorGeneratorWithAnchorShape((1, 2, 4), tuple(shapes))
        self.model = RetinaNetDetector(network, anchors, spatial_dims=3, num_classes=classes)
        self.model.set_atss_matcher(num_candidates=4, center_in_gt=False)
        if judged is None:
            self.model.set_cls_loss(FocalOverPositives())
        else:
            self.model.set_hard_negative_sampler(judged, positive_fraction=0.3, pool_size=20, min_neg=16)
        self.model.set_box_selector_parameters(
            score_thresh=score_from,
            topk_candidates_per_level=1000,
            nms_thresh=overlap,
            detections_per_img=most,
        )
        self.model.set_target_keys(box_key="boxes", label_key="labels")

    def forward(self, x: torch.Tensor, windows: Callable | None = None) -> torch.Tensor | Seen:
        if x.ndim != 5 or x.shape[1] != 1:
            raise InputError(f"input of shape {tuple(x.shape)}; expected (B, 1, x, y, z).")
        x = x.as_subclass(torch.Tensor)
        if not self.training:
            self.model.inferer = windows
            with torch.no_grad():  # MONAI copies what it found, which gradients forbid
                found = self.model(x, use_inferer=windows is not None)
            return torch.stack([self._rows(image) for image in found])
        images, _ = preprocess_images(x, 3, self.model.size_divisible)
        maps = self.model.network(images)
        features = {f"{key} {n}": m for key, several in maps.items() for n, m in enumerate(several)}
        return Seen(self, images, features)

    def losses(self, seen: Seen, number: int, boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """{part: ()} of image ``number`` against the rows (rows, 7) of its boxes."""
        known, one, model = boxes[~boxes.isnan().any(dim=1)], slice(number, number + 1), self.model
        target = {"boxes": known[:, :6], "labels": known[:, 6].long()}
        maps = {
            key: [m[one] for name, m in seen.features.items() if name.startswith(key)]
            for key in (model.cls_key, model.box_reg_key)
        }
        anchors = model.anchor_generator(seen.images[one], maps[model.cls_key])
        levels = [m.shape[2:].numel() for m in maps[model.cls_key]]
        outputs = {key: model._reshape_maps(several) for key, several in maps.items()}
        found = model.compute_loss(outputs, [target], anchors, levels)
        return {LOSSES[name]: loss.to(seen.images.device) for name, loss in found.items()}

    def _rows(self, found: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(most, 8) of MONAI's answer about one image."""
        scores = found[self.model.pred_score_key]
        order = scores.argsort(descending=True, stable=True)
        return answer_rows(found["boxes"][order], scores[order], found["labels"][order], self.most)
