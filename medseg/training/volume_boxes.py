"""How good boxes and masks of volumes are, after every epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from ignite.metrics import Metric
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou

from medseg.errors import InputError

MEASURES = ("AP", "AR")
MOST = 100


class VolumePrecision(Metric):
    """A metric of a MONAI evaluator: average precision ("AP") or recall ("AR") of boxes of volumes, by
    MONAI's COCO metric, over all classes.

    ``output_transform`` gives, of one batch, the answers (rows, 8) and the targets (rows, 7) of each image,
    as :class:`medseg.networks.VolumeDetector` says. ``by_masks``: two more follow, int maps (1, x, y, z) of
    each image, n + 1 in the voxels of row n of the answer, and k in those of true finding k; what counts is
    the overlap (IoU) of masks, of one class. ``overlap``: from which IoU a finding counts as found. nan where
    no image has one. InputError for another measure.
    """

    def __init__(
        self, output_transform, measure: str = "AP", overlap: float = 0.1, by_masks: bool = False
    ) -> None:
        if measure not in MEASURES:
            raise InputError(f"measure {measure!r}: expected one of {', '.join(MEASURES)}.")
        self.measure, self.overlap, self.by_masks = measure, overlap, by_masks
        super().__init__(output_transform, skip_unrolling=True)

    def reset(self) -> None:
        self.images: list[dict] = []

    def update(self, output: Sequence[Sequence[torch.Tensor]]) -> None:
        for parts in zip(*output, strict=True):
            answer, target = (_known(rows) for rows in parts[:2])
            if self.by_masks:
                found, truth, iou = _mask_overlaps(*parts[2:4], len(answer))
                row = (found, np.zeros(len(found), int), answer[:, 6], truth, np.zeros(len(truth), int))
                table = iou
            else:
                row = (
                    answer[:, :6],
                    answer[:, 7].astype(int),
                    answer[:, 6],
                    target[:, :6],
                    target[:, 6].astype(int),
                )
                table = None
            self.images += self._match(row, table)

    def _match(self, row: tuple, table: np.ndarray | None) -> list[dict]:
        def overlaps(found: np.ndarray, true: np.ndarray) -> np.ndarray:
            if not len(found) or not len(true):
                return np.zeros((len(found), len(true)))
            if table is not None:
                return table[np.ix_(found[:, 0], true[:, 0])]
            return np.asarray(box_iou(found.astype(np.float64), true.astype(np.float64)))

        return matching_batch(overlaps, [self.overlap], *([part] for part in row), max_detections=MOST)

    def compute(self) -> float:
        names = [str(n) for n in range(1 + max((int(n) for image in self.images for n in image), default=0))]
        only = (self.overlap, self.overlap, 1.0)  # COCO's range of one overlap
        coco = COCOMetric(names, [self.overlap], only, max_detection=(MOST,), per_class=True)
        logging.disable(logging.WARNING)  # MONAI says of every class that it has no finding
        try:
            values, _ = coco(self.images)
        finally:
            logging.disable(logging.NOTSET)
        start = f"_{self.measure}_IoU_{self.overlap:.2f}_"
        found = [values[key] for name in names for key in values if key.startswith(name + start)]
        known = [float(value) for value in found if value >= 0]  # -1 is a class without a finding
        return float(np.mean(known)) if known else float("nan")


def _known(rows: torch.Tensor) -> np.ndarray:
    rows = torch.as_tensor(rows).detach().cpu().double().numpy()
    return rows[~np.isnan(rows).any(axis=1)]


def _mask_overlaps(
    found: torch.Tensor, truth: torch.Tensor, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (N, 1) of ``count`` rows and (M, 1) of the true findings, and the IoU (N, M) of their voxels in
    two maps."""
    a, b = (torch.as_tensor(labels).cpu().long().numpy().ravel() for labels in (found, truth))
    numbers = np.unique(b[b > 0])
    place = np.zeros(int(b.max(initial=0)) + 1, dtype=int)
    place[numbers] = np.arange(1, len(numbers) + 1)
    width = len(numbers) + 1
    shared = np.bincount(a * width + place[b], minlength=(count + 1) * width).reshape(-1, width)
    whole = shared.sum(axis=1)[1:, None] + shared.sum(axis=0)[None, 1:]
    iou = shared[1:, 1:] / np.maximum(whole - shared[1:, 1:], 1)
    return np.arange(count)[:, None], np.arange(len(numbers))[:, None], iou
