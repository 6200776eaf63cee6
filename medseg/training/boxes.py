"""How good boxes are, after every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ignite.metrics import Metric

from medseg.errors import InputError

MEASURES = ("map", "map_50", "map_75", "mar_1", "mar_10", "mar_100")


class BoxPrecision(Metric):
    """A metric of a MONAI evaluator: average precision ("map…") or recall ("mar…") of boxes by torchmetrics,
    with pycocotools behind it.

    ``output_transform`` gives, of one batch, the answers (rows, 6) and the targets (rows, 5) of each image,
    as :class:`medseg.networks.Detector` says. ``measure``: one of MEASURES, averaged over classes.
    ``overlaps``: from which IoU a box counts as found, None for COCO's 0.5 to 0.95. nan where no image has a
    true box. InputError for another measure.
    """

    def __init__(
        self, output_transform, measure: str = "map", overlaps: Sequence[float] | None = None
    ) -> None:
        if measure not in MEASURES:
            raise InputError(f"measure {measure!r}: expected one of {', '.join(MEASURES)}.")
        self.measure, self.overlaps = measure, overlaps
        super().__init__(output_transform)

    def reset(self) -> None:
        from torchmetrics.detection import MeanAveragePrecision

        overlaps = None if self.overlaps is None else list(self.overlaps)
        self.found = MeanAveragePrecision(backend="pycocotools", iou_thresholds=overlaps)
        self.found.warn_on_many_detections = False

    def update(self, output: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]) -> None:
        answers, targets = output
        for answer, target in zip(answers, targets, strict=True):
            answer, target = (_known(rows) for rows in (answer, target))
            self.found.update(
                [{"boxes": answer[:, :4], "scores": answer[:, 4], "labels": answer[:, 5].long()}],
                [{"boxes": target[:, :4], "labels": target[:, 4].long()}],
            )

    def compute(self) -> float:
        value = float(self.found.compute()[self.measure])
        return float("nan") if value < 0 else value


def _known(rows: torch.Tensor) -> torch.Tensor:
    rows = torch.as_tensor(rows).detach().cpu().float()
    rows = rows.as_tensor() if hasattr(rows, "as_tensor") else rows
    return rows[~rows.isnan().any(dim=1)]
