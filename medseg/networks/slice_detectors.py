"""Mask R-CNN (He et al., ICCV 2017) on the slices of a volume, each seen with the one below and above it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import masks_to_boxes

from medseg.errors import InputError
from medseg.networks.detectors import (
    BACKBONES,
    LOSSES,
    STRIDES,
    AsTheyAre,
    Seen,
    answer_rows,
    check_names,
    pyramid_of,
)
from medseg.networks.pretrained import load_backbone

FINDING = 1
"""torchvision's number of the one class; 0 is the background."""

RULES = (
    "rpn_fg_iou_thresh",
    "rpn_batch_size_per_image",
    "box_fg_iou_thresh",
    "box_bg_iou_thresh",
    "box_batch_size_per_image",
)
"""Arguments of torchvision's MaskRCNN: the overlap (IoU) from which an anchor and a proposal lie on a
finding, and how many of a slice are judged. Few lie on one, and the loss is the mean of all that are judged:
the more, the less the findings count in it."""


def _anchors(sides: Sequence[float] | Sequence[Sequence[float]]) -> AnchorGenerator:
    """Of one side a square and two oblongs, of several their squares. InputError for another number of levels
    and for levels that have not as many sides as the first."""
    levels = [(side,) if isinstance(side, (int, float)) else tuple(side) for side in sides]
    if len(levels) != len(STRIDES) or len({len(level) for level in levels}) != 1 or not levels[0]:
        raise InputError(
            f"anchor sides {list(sides)}; expected {len(STRIDES)} levels, each with as many as the others."
        )
    ratios = (0.5, 1.0, 2.0) if len(levels[0]) == 1 else (1.0,)
    return AnchorGenerator(tuple(levels), (ratios,) * len(levels))


def paste_masks(masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """float32 (N, 1, H, W): what a mask head sees (N, 1, M, M) in boxes (N, 4), low x and y, high x and y
    from the outer corner of the first pixel, put where it was cut out of images of ``size``.

    torchvision cuts them for training half a pixel further on than the box, and pastes them over one pixel
    more than it: what is 6 pixels wide comes back half a pixel too low and half as large again.
    """
    places = [torch.arange(n, device=boxes.device) + 0.5 for n in reversed(size)]
    inside, grids = [], []
    for axis, middles in enumerate(places):
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        inside.append((middles >= low) & (middles < high))
        grids.append((middles - 0.5 - low) / (high - low).clamp(min=1e-3) * 2 - 1)
    shape = (len(boxes), *size)
    grid = torch.stack([grids[0][:, None].expand(shape), grids[1][:, :, None].expand(shape)], dim=-1)
    values = functional.grid_sample(masks.to(boxes), grid, padding_mode="border", align_corners=False)
    return values * (inside[0][:, None] & inside[1][:, :, None])[:, None]


class _MasksInPlace(AsTheyAre):
    """Pastes by :func:`paste_masks`."""

    def postprocess(self, result, image_shapes, original_image_sizes):
        if not self.training:
            for found, size in zip(result, original_image_sizes, strict=True):
                found["masks"] = paste_masks(found["masks"], found["boxes"], size)
        return result


class SliceDetector(nn.Module):
    """Slices (B, 3, H, W), 0 to 1, the channels a slice and its neighbours below and above, to boxes with
    masks of one class.

    In evaluation the answer is a list with, of each slice, ``{"rows": float32 (N, 6), "masks": bool (N, H,
    W)}``: low row, low column, high row, high column, score, class (0), best first, and what belongs to each.
    In training it is what was :class:`medseg.networks.detectors.Seen`, judged by label maps (B, 1, H, W): the
    numbers of the findings that the middle slice cuts, 0 elsewhere.

    ``anchor_sides``: of the boxes that each level of the pyramid begins with, one side of three shapes, as of
    :class:`medseg.networks.Detector`, or several of squares, for what is round and small: squares of 4, 6
    and 8 pixels, four pixels apart, meet more of it. ``rules``: those of torchvision's that RULES names,
    other than its own. ``overlap``, ``score_from`` and ``proposals``: see Detector. InputError for an unknown
    name, anchors that do not fit and for other input.
    """

    target_shape = (1, "H", "W")

    def __init__(
        self,
        backbone: str = "resnext101_32x8d",
        most: int = 20,
        anchor_sides: Sequence[float] | Sequence[Sequence[float]] = (8, 16, 32, 64, 128),
        score_from: float = 0.05,
        overlap: float = 0.5,
        proposals: int = 1000,
        rules: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        rules = dict(rules or {})
        check_names((backbone, BACKBONES), *((name, dict.fromkeys(RULES)) for name in rules))
        self.backbone_name, self.most = backbone, most
        pyramid = pyramid_of(backbone)
        width = pyramid.out_channels
        self.model = MaskRCNN(
            pyramid,
            box_head=TwoMLPHead(width * 7**2, 4 * width),  # torchvision's 1024 of 256
            box_predictor=FastRCNNPredictor(4 * width, FINDING + 1),
            mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(width, width, FINDING + 1),
            rpn_pre_nms_top_n_train=2 * proposals,
            rpn_pre_nms_top_n_test=2 * proposals,
            rpn_post_nms_top_n_train=proposals,
            rpn_post_nms_top_n_test=proposals,
            rpn_anchor_generator=_anchors(anchor_sides),
            box_score_thresh=score_from,
            box_nms_thresh=overlap,
            box_detections_per_img=most,
            **{"box_batch_size_per_image": max(proposals // 2, 1), **rules},
        )
        self.model.transform = _MasksInPlace()

    def with_backbone(self, pretrained: str | os.PathLike[str] | None) -> SliceDetector:
        """See :meth:`medseg.networks.Detector.with_backbone`."""
        if pretrained is not None:
            made_for = f"torchvision {self.backbone_name}"
            load_backbone(self.model.backbone.body, Path(pretrained), made_for, ("fc.",))
        return self

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]] | Seen:
        if x.ndim != 4 or x.shape[1] != 3:
            raise InputError(f"input of shape {tuple(x.shape)}; expected (B, 3, H, W).")
        slices = list(x.as_subclass(torch.Tensor))
        if not self.training:
            return [self._answer(found) for found in self.model(slices)]
        images, _ = self.model.transform(slices)
        return Seen(self, images, self.model.backbone(images.tensors))

    def losses(self, seen: Seen, number: int, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """{part: ()} of slice ``number`` against the numbers (1, H, W) of the findings that it cuts."""
        labels = labels.as_subclass(torch.Tensor)
        masks = (labels == labels[labels > 0].unique()[:, None, None]).to(torch.uint8)
        boxes = (
            masks_to_boxes(masks) + masks.new_tensor([0, 0, 1, 1]) if len(masks) else labels.new_zeros(0, 4)
        )
        target = {
            "boxes": boxes.float(),
            "masks": masks,
            "labels": torch.full((len(masks),), FINDING, device=labels.device),
        }
        one = slice(number, number + 1)
        image = ImageList(seen.images.tensors[one], seen.images.image_sizes[one])
        features = {name: maps[one] for name, maps in seen.features.items()}
        proposals, first = self.model.rpn(image, features, [target])
        _, second = self.model.roi_heads(features, proposals, image.image_sizes, [target])
        return {LOSSES[name]: loss for name, loss in {**second, **first}.items()}

    def _answer(self, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        corners, scores = found["boxes"][:, [1, 0, 3, 2]], found["scores"]
        rows = answer_rows(corners, scores, found["labels"] - FINDING, len(scores))
        return {"rows": rows, "masks": found["masks"][:, 0] >= 0.5}
