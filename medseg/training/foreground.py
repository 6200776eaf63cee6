"""Does the network still answer? Guards for small lesions: masks that come out black or constant, and a
validation set in which nothing can be found."""

from __future__ import annotations

import logging

import torch
from ignite.engine import Engine, Events
from monai.metrics import CumulativeIterationMetric
from monai.utils.enums import CommonKeys as Keys

from medseg.errors import InputError
from medseg.training.noisy.pools import of_all_processes

_logger = logging.getLogger(__name__)

SMALLEST_SPREAD = 1e-3
"""Probabilities of an image that lie closer together than this are one constant."""


class PixelAveragePrecision(CumulativeIterationMetric):
    """MONAI metric: the area under each image's precision-recall curve of pixels (AUPR), exact, ties and all.

    ``y_pred``: probabilities or logits, ``y``: 0, 1, NaN (channel not annotated), both (B, C, *spatial).
    :meth:`aggregate` is the mean over images and channels that have lesions; nan where none has. The same as
    medseg.metrics.pixels.average_precision, in torch and on the device.
    """

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs) -> torch.Tensor:
        if y is None or y_pred.shape != y.shape:
            raise InputError("average precision needs a label of the prediction's shape.")
        rows = zip(y_pred.flatten(2), y.flatten(2), strict=True)
        return torch.stack([torch.stack(list(map(_average_precision, *row))) for row in rows])

    def aggregate(self) -> float:
        found = self.get_buffer()
        known = found[~torch.isnan(found)] if found is not None else torch.empty(0)
        return float(known.mean()) if known.numel() else float("nan")


def _average_precision(scores: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Of one channel, both (pixels,); nan where it has no lesion."""
    positive = torch.nan_to_num(truth) > 0
    total = positive.sum()
    if not total:
        return torch.tensor(torch.nan, dtype=torch.double)  # as below: processes exchange them as they are
    ordered, place = scores.flatten().sort(descending=True)
    found = positive[place].cumsum(0)
    last = torch.ones_like(positive)
    last[:-1] = ordered[1:] != ordered[:-1]  # equal scores share one threshold
    above = torch.arange(1, len(ordered) + 1, device=found.device)[last]
    found = found[last].double()
    gained = torch.diff(found, prepend=found.new_zeros(1))
    return ((gained / total) * (found / above)).sum().cpu()


class ForegroundWatch:
    """A trainer handler that watches what the validation answers.

    Before the first step it raises InputError when no label of the validation set has a lesion: no score
    would then tell which epoch is best, and no weights would ever be kept. After every validation
    ``evaluator.state.metrics`` gets ``predicted_share`` and ``true_share``, the shares of pixels in lesions,
    and a warning is logged when every image got one constant value, when no pixel of any image reaches 0.5
    although there are lesions (the black masks of unbalanced losses, and of batch norm over batches too
    small for its running statistics), and when more than half of all pixels do.
    """

    def __init__(self, evaluator: Engine) -> None:
        self.evaluator = evaluator
        self._reset()

    def attach(self, engine: Engine) -> None:
        """MONAI's call to every handler of a trainer."""
        engine.add_event_handler(Events.STARTED, self._require_lesions)
        self.evaluator.add_event_handler(Events.EPOCH_STARTED, self._reset)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._look)
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._judge)

    def _reset(self) -> None:
        self.pixels, self.predicted, self.true, self.spread = 0, 0, 0, 0.0

    def _require_lesions(self) -> None:
        loader = getattr(self.evaluator, "data_loader", ())
        own = any(bool((torch.nan_to_num(batch[Keys.LABEL]) > 0).any()) for batch in loader)
        # Each of several processes has a share of the set, which may be without one.
        if not of_all_processes([torch.tensor([own])])[0].any():
            raise InputError(
                "no label of the validation set has a lesion, so nothing can tell which epoch is best; put "
                "cases with lesions into `validation`."
            )

    def _look(self) -> None:
        for item in self.evaluator.state.output:
            chances, truth = item[Keys.PRED], torch.nan_to_num(item[Keys.LABEL])
            self.pixels += truth.numel()
            self.predicted += int((chances >= 0.5).sum())
            self.true += int((truth > 0).sum())
            self.spread = max(self.spread, float(chances.max() - chances.min()))
        # After every image, since handlers that print the metrics run before those added later.
        predicted, true = self._shares()
        self.evaluator.state.metrics |= {"predicted_share": predicted, "true_share": true}

    def _shares(self) -> tuple[float, float]:
        return self.predicted / max(self.pixels, 1), self.true / max(self.pixels, 1)

    def _judge(self) -> None:
        predicted, true = self._shares()
        if self.spread < SMALLEST_SPREAD:
            _logger.warning(
                "the network gives every pixel of an image the same probability; it has learnt nothing. Look "
                "at the learning rate, and at batch norm where batches are small."
            )
        elif not self.predicted and self.true:
            _logger.warning(
                "no pixel reaches a probability of 0.5, so every mask is empty, while %.2g %% of the pixels "
                "are lesions. Early on that is usual; later try another `loss` (dice_bce, tversky) or a "
                "lower learning rate.",
                100 * true,
            )
        elif predicted > 0.5:
            _logger.warning("%.0f %% of all pixels are taken for lesions.", 100 * predicted)
