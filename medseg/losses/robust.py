"""Losses that promise to bear wrong labels, each with one value per sample, shape (B,), and per channel, (B,
C).

Structures are independent sigmoid channels, so every formula is applied to one binary channel; a NaN channel
was not contoured and gives no loss (see medseg.losses.per_sample). Plain cross-entropy is BCEPerSample there,
Dice + CE DiceBCEPerSample.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from medseg.errors import InputError
from medseg.losses.per_sample import PerSampleLoss


class InverseFrequencyBCE(PerSampleLoss):
    """Cross-entropy in which a channel's foreground weighs 1 / max(foreground / background, `floor`) per
    voxel.

    The voxels' weighted mean, as in torch's weighted cross-entropy: foreground and background then have equal
    say, so label noise that is symmetric in the outline turns into over-segmentation. The weights are taken
    from each sample's own label, noise included; a label without foreground has nothing to weight and gives
    plain cross-entropy. Source: class weights of the code that the authors of QAM published later
    (zhuhd15/Quality-Awareness-Module).
    """

    def __init__(self, floor: float = 0.001) -> None:
        super().__init__()
        self.floor = floor

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        foreground = target.sum(-1, keepdim=True)
        ratio = foreground / (target.shape[-1] - foreground).clamp(min=1)
        weight = 1 + target * (1 / ratio.clamp(min=self.floor) - 1)
        voxels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (weight * voxels).sum(-1) / weight.sum(-1)


class GeneralisedCE(PerSampleLoss):
    """(1 - p_y^q) / q, averaged over voxels, p_y the probability of the label; q -> 0 is cross-entropy, q = 1
    MAE.

    Source: Zhang and Sabuncu, NeurIPS 2018, arXiv 1805.07836, the loss L_q.
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise InputError(f"GeneralisedCE got q={q}; it must be above 0 and at most 1.")
        self.q = q

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # log p_y = -BCE holds for labels of 0 and 1 and keeps its gradient where p_y itself would round to 0.
        log_likelihood = -F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return ((1 - torch.exp(self.q * log_likelihood)) / self.q).mean(-1)


class NoiseRobustDice(PerSampleLoss):
    """sum |p - y|^gamma / (sum p + sum y + smooth); gamma = 2 behaves like Dice, gamma = 1 like MAE.

    An empty truth gives sum p^gamma / (sum p + smooth): 0 for an empty prediction.
    Source: Wang et al. (COPLE-Net), IEEE TMI 2020, with the plain sums of the denominator in PyMIC's code.
    """

    def __init__(self, gamma: float = 1.5, smooth: float = 1e-5) -> None:
        super().__init__()
        if not 1 <= gamma <= 2:
            raise InputError(f"NoiseRobustDice got gamma={gamma}; the paper's range is 1 to 2.")
        self.gamma, self.smooth = gamma, smooth

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        probability = torch.sigmoid(logits)
        # The gradient of |x|^1.5 is finite at 0, that of abs() and pow() in a row is not.
        difference = (probability - target).abs().clamp(min=1e-7)
        return difference.pow(self.gamma).sum(-1) / (probability.sum(-1) + target.sum(-1) + self.smooth)


class TLoss(PerSampleLoss):
    """Negative log-likelihood of a Student-t distribution of the whole channel's error image, divided by its
    voxels.

    With D voxels, error d = p - y and degrees of freedom nu = exp(log_nu), learnt along with the network:
    ((nu + D) / 2) log(1 + |d|^2 / nu) + (D / 2) log(pi nu) + lgamma(nu / 2) - lgamma((nu + D) / 2).
    The logarithm makes a very wrong label count little *as a whole*: a closed-form rival of quality weights.
    The loss has a parameter: it must reach an optimizer (NoisyLabelTrainer sees to it).
    Source: Gonzalez-Jimenez et al., MICCAI 2023, arXiv 2306.00753, scale matrix = identity.
    """

    def __init__(self, log_nu: float = 0.0) -> None:
        super().__init__()
        self.log_nu = nn.Parameter(torch.tensor(float(log_nu)))

    def channel_losses(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        size = target.shape[-1]
        squared = (torch.sigmoid(logits) - target).square().sum(-1).double()
        # In float32 the two log-gammas of a large image cancel to nothing.
        nu = self.log_nu.double().exp()
        constant = (
            torch.lgamma(nu / 2) - torch.lgamma((nu + size) / 2) + size / 2 * (math.log(math.pi) + nu.log())
        )
        return ((constant + (nu + size) / 2 * torch.log1p(squared / nu)) / size).float()
