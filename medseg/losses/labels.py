"""The loss of labels of whole images, one value per sample, shape (B,)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from medseg.errors import InputError
from medseg.losses.per_sample import PerSampleLoss


class LabelCEPerSample(PerSampleLoss):
    """Cross-entropy of classes that exclude each other: logits (B, C) and target (B, C), one-hot or
    probabilities, to (B,).

    ``class_weights``: C factors for what a class counts, its share in training turned over for example; None
    counts all alike. ``numbers``: so many of the channels, the last, are standardised numbers; what they are
    off (Huber's loss from 1 on: squared below, straight above, halved) is added, ``number_weight`` times. A
    target with NaN is a case without a label, or without that number, and gives 0. InputError for other
    shapes.
    """

    def __init__(
        self, class_weights: list[float] | None = None, numbers: int = 0, number_weight: float = 1.0
    ) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)
        self.numbers, self.number_weight = numbers, number_weight

    def per_channel(self, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1) twice: the classes of a sample are one decision."""
        classes = None if self.class_weights is None else len(self.class_weights) + self.numbers
        if logits.shape != target.shape or logits.ndim != 2 or classes not in (None, logits.shape[1]):
            wanted = "(B, C) both" if classes is None else f"(B, {classes}) both, as there are weights"
            raise InputError(
                f"the loss got logits of shape {tuple(logits.shape)} and labels of shape "
                f"{tuple(target.shape)}; expected {wanted}."
            )
        known = ~torch.isnan(target)
        logits, target = logits.float(), torch.nan_to_num(target.float(), nan=0.0)
        last = logits.shape[1] - self.numbers
        labelled = known[:, :last].all(1, keepdim=True)
        chances = F.log_softmax(logits[:, :last], dim=1)
        wanted = target[:, :last] if self.class_weights is None else target[:, :last] * self.class_weights
        loss = -(wanted * chances).sum(1, keepdim=True) * labelled
        off = F.smooth_l1_loss(logits[:, last:], target[:, last:], reduction="none") * known[:, last:]
        loss = loss + self.number_weight * off.sum(1, keepdim=True)
        return loss, known[:, last:].any(1, keepdim=True) | labelled
