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
    counts all alike. A target with NaN is a case without a label and gives 0. InputError for other shapes.
    """

    def __init__(self, class_weights: list[float] | None = None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def per_channel(self, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1) twice: the classes of a sample are one decision."""
        classes = None if self.class_weights is None else len(self.class_weights)
        if logits.shape != target.shape or logits.ndim != 2 or classes not in (None, logits.shape[1]):
            wanted = "(B, C) both" if classes is None else f"(B, {classes}) both, as there are weights"
            raise InputError(
                f"the loss got logits of shape {tuple(logits.shape)} and labels of shape "
                f"{tuple(target.shape)}; expected {wanted}."
            )
        labelled = ~torch.isnan(target).any(1, keepdim=True)
        chances = F.log_softmax(logits.float(), dim=1)
        target = torch.nan_to_num(target.float(), nan=0.0)
        if self.class_weights is not None:
            target = target * self.class_weights
        return -(target * chances).sum(1, keepdim=True), labelled
