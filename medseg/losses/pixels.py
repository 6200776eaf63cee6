"""Losses for small lesions among much background, each with one value per sample, shape (B,), and the table
of those that a config names.

Focal loss is torchvision's, Tversky MONAI's; here they get the shape and the NaN channels of
:mod:`medseg.losses.per_sample`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.losses import TverskyLoss
from torchvision.ops import sigmoid_focal_loss

from medseg.errors import InputError
from medseg.losses.per_sample import (
    BCEPerSample,
    DiceBCEPerSample,
    DicePerSample,
    PerSampleLoss,
    prepare,
)


class FocalPerSample(PerSampleLoss):
    """(1 - p_y)^gamma times the cross-entropy, foreground times ``alpha`` and background times 1 - alpha,
    averaged over pixels; alpha below 0 weighs both alike, and gamma = 0 then is cross-entropy.

    Source: Lin et al., ICCV 2017, through torchvision.ops.sigmoid_focal_loss.
    """

    def __init__(self, gamma: float = 2.0, alpha: float = 0.25) -> None:
        super().__init__()
        if gamma < 0 or alpha > 1:
            raise InputError(
                f"FocalPerSample got gamma={gamma}, alpha={alpha}; expected gamma >= 0, alpha <= 1."
            )
        self.gamma, self.alpha = gamma, alpha

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return sigmoid_focal_loss(logits, target, self.alpha, self.gamma, reduction="none").mean(-1)


class TverskyPerSample(PerSampleLoss):
    """1 - (TP + s) / (TP + ``false_positives`` FP + ``false_negatives`` FN + s) with soft counts.

    With 0.5 and 0.5 it is soft Dice; more weight on false negatives finds more of small lesions. An empty
    truth gives false_positives * sum(p) / (false_positives * sum(p) + s): 0 for an empty prediction. Source:
    Salehi, Erdogmus and Gholipour, MLMI 2017, through monai.losses.TverskyLoss.
    """

    def __init__(
        self, false_positives: float = 0.3, false_negatives: float = 0.7, smooth: float = 1.0
    ) -> None:
        super().__init__()
        if min(false_positives, false_negatives) < 0 or smooth <= 0:
            raise InputError(
                f"TverskyPerSample got weights {false_positives} and {false_negatives}, smooth={smooth}; "
                "expected weights from 0 and smooth above 0, or an empty truth divides by 0."
            )
        self.loss = TverskyLoss(
            sigmoid=True,
            alpha=false_positives,
            beta=false_negatives,
            smooth_nr=smooth,
            smooth_dr=smooth,
            reduction="none",
        )

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.loss(logits, target).flatten(1)


class SoftmaxCEPerSample(PerSampleLoss):
    """Cross-entropy over the channels and a background of logit 0, one of which every pixel belongs to.

    For lesions of kinds that exclude each other. With a single channel the softmax over (0, z) is the sigmoid
    of z, so there it is the very same as BCEPerSample: the source's per-pixel softmax differs from its BCE in
    nothing. A channel of NaN was not annotated and is no candidate; the others answer for themselves. Every
    labelled channel reports the sample's one loss. InputError for channels that overlap.
    """

    def per_channel(self, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, target, labelled = prepare(logits, target)
        logits, target = logits.flatten(2), target.flatten(2)
        if bool((target.sum(1) > 1).any()):
            raise InputError("softmax_ce: channels of the label overlap; use a loss of independent channels.")
        known = logits.masked_fill(~labelled[..., None], -torch.inf)
        chances = F.log_softmax(torch.cat([torch.zeros_like(known[:, :1]), known], dim=1), dim=1)
        background = 1 - target.sum(1)
        found = torch.where(target > 0, chances[:, 1:] * target, 0.0).sum(1) + chances[:, 0] * background
        return -found.mean(-1, keepdim=True).expand(-1, logits.shape[1]), labelled


PIXEL_LOSSES: dict[str, Callable[[], PerSampleLoss]] = {
    "bce": BCEPerSample,
    "softmax_ce": SoftmaxCEPerSample,
    "dice": DicePerSample,
    "dice_bce": DiceBCEPerSample,
    "focal": FocalPerSample,
    "tversky": TverskyPerSample,
}
"""What a config may ask for by name."""


def loss_named(name: str) -> PerSampleLoss:
    """The loss of that name in :data:`PIXEL_LOSSES`; InputError that lists the names when there is none."""
    if name not in PIXEL_LOSSES:
        raise InputError(f"unknown loss {name!r}; choose one of {', '.join(PIXEL_LOSSES)}.")
    return PIXEL_LOSSES[name]()
