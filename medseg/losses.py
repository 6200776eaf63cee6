"""Segmentation losses that return one value per sample, shape (B,).

Plain training takes their mean (MONAI's trainers call `.mean()`); label-quality weighting takes a weighted sum.
Channels are independent structures (sigmoid, not softmax), because structures overlap: a GTV lies inside its CTV.

A structure that was not contoured in a case is not an empty structure. Mark it by filling its label channel with NaN:
the channel then gives no loss and no gradient, and the sample's loss is the mean over the channels that remain
(0 when none remains).
"""

import torch
import torch.nn.functional as F
from torch import nn

from medseg.errors import InputError


class BCEPerSample(nn.Module):
    """Binary cross-entropy, averaged over voxels, then over the sample's labelled channels."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return (B,) from logits and target (0..1, NaN channel = not labelled), both (B, C, *spatial)."""
        logits, target, labelled = _prepare(logits, target)
        per_channel = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(2).mean(-1)
        return _mean_over_labelled(per_channel, labelled)


class DicePerSample(nn.Module):
    """Soft Dice loss 1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s) per channel, averaged over labelled channels.

    `smooth` (s, in voxels, above 0) decides the empty case on purpose: with an empty truth the loss is
    1 - s / (sum(p) + s), so it is 0 for an empty prediction and rises towards 1 with every voxel predicted in error.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        if smooth <= 0:
            raise InputError(f"DicePerSample got smooth={smooth}; it must be above 0, or an empty truth divides by 0.")
        self.smooth = smooth

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return (B,) from logits and target (0..1, NaN channel = not labelled), both (B, C, *spatial)."""
        logits, target, labelled = _prepare(logits, target)
        probability, target = torch.sigmoid(logits).flatten(2), target.flatten(2)
        overlap = 2 * (probability * target).sum(-1) + self.smooth
        total = probability.sum(-1) + target.sum(-1) + self.smooth
        return _mean_over_labelled(1 - overlap / total, labelled)


class DiceBCEPerSample(nn.Module):
    """Plain sum of DicePerSample and `bce_weight` times BCEPerSample."""

    def __init__(self, bce_weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__()
        self.bce_weight = bce_weight
        self.bce = BCEPerSample()
        self.dice = DicePerSample(smooth)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return (B,) from logits and target (0..1, NaN channel = not labelled), both (B, C, *spatial)."""
        return self.dice(logits, target) + self.bce_weight * self.bce(logits, target)


def _prepare(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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


def _mean_over_labelled(per_channel: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    return (per_channel * labelled).sum(1) / labelled.sum(1).clamp(min=1)
