"""Segmentation losses that return one value per sample, shape (B,).

Plain training takes their mean (MONAI's trainers call `.mean()`); label-quality weighting takes a weighted
sum. Channels are independent structures (sigmoid, not softmax), because structures overlap: a GTV lies inside
its CTV.

A structure that was not contoured in a case is not an empty structure. Mark it by filling its label channel
with NaN: the channel then gives no loss and no gradient, and the sample's loss is the mean over the channels
that remain (0 when none remains).
"""

import torch
import torch.nn.functional as F
from torch import nn

from medseg.errors import InputError


class PerSampleLoss(nn.Module):
    """A loss that knows its value for every structure of every sample. A subclass defines
    `channel_losses`.

    `parts`: {name: (B,)} that the values of the last call are made of, without gradient, of a loss that says
    so; the trainer logs the mean of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, torch.Tensor] = {}

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return (B,) from logits and target (0..1, NaN channel = not labelled), both (B, C, *spatial)."""
        per_channel, labelled = self.per_channel(logits, target)
        return (per_channel * labelled).sum(1) / labelled.sum(1).clamp(min=1)

    def per_channel(self, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of each channel and whether it was labelled (bool), both (B, C), from the same
        inputs."""
        logits, target, labelled = prepare(logits, target)
        return self.channel_losses(logits.flatten(2), target.flatten(2)), labelled

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return (B, C) from float32 logits and target without NaN, both (B, C, voxels)."""
        raise NotImplementedError


class BCEPerSample(PerSampleLoss):
    """Binary cross-entropy, averaged over voxels, then over the sample's labelled channels."""

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1)


class SizedBCEPerSample(PerSampleLoss):
    """Binary cross-entropy summed over the voxels, over those of label and soft prediction together (and
    ten), averaged over labelled channels.

    A mean over the whole volume hardly changes when a structure of a few hundred voxels among hundreds of
    thousands is drawn wrong; this judges every structure by its own size. Ten voxels keep an empty label
    with an empty prediction near 0.
    """

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
        return entropy / (torch.sigmoid(logits).sum(-1) + target.sum(-1) + 10)


class DicePerSample(PerSampleLoss):
    """Soft Dice loss 1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s) per channel, averaged over labelled
    channels.

    `smooth` (s, in voxels, above 0) decides the empty case on purpose: with an empty truth the loss is 1 - s
    / (sum(p) + s), so it is 0 for an empty prediction and rises towards 1 with every voxel predicted in
    error.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        if smooth <= 0:
            raise InputError(
                f"DicePerSample got smooth={smooth}; it must be above 0, or an empty truth divides by 0."
            )
        self.smooth = smooth

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        probability = torch.sigmoid(logits)
        overlap = 2 * (probability * target).sum(-1) + self.smooth
        total = probability.sum(-1) + target.sum(-1) + self.smooth
        return 1 - overlap / total


class DiceBCEPerSample(PerSampleLoss):
    """Plain sum of DicePerSample and `bce_weight` times BCEPerSample."""

    def __init__(self, bce_weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__()
        self.bce_weight = bce_weight
        self.bce = BCEPerSample()
        self.dice = DicePerSample(smooth)

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.dice.channel_losses(logits, target) + self.bce_weight * self.bce.channel_losses(
            logits, target
        )


def prepare(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return float32 logits, the target with NaN channels zeroed, and `labelled`, bool (B, C)."""
    if logits.shape != target.shape:
        raise InputError(
            f"The loss got logits of shape {tuple(logits.shape)} and a label of shape {tuple(target.shape)}; "
            "they must be equal, one label channel per structure."
        )
    # Half-precision sums over a volume lose the small structures, so the loss is always computed in float32.
    logits, target = logits.float(), target.float()
    labelled = ~torch.isnan(target).flatten(2).any(-1)
    return logits, torch.nan_to_num(target, nan=0.0), labelled
