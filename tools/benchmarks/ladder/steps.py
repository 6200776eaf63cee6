"""The steps of the ladder and the networks beside it, each with the losses it is trained by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from monai.networks.nets import DynUNet, MedNeXt, SegResNet
from torch import nn

from medseg.networks import CycleNet, FoldedNet, ResUNetSE


@dataclass(frozen=True)
class Step:
    """``body``: (input channels, output channels, widths of the resolutions) to a network that answers
    logits. ``dice``: whether it learns by the Dice loss as well. ``before``: the steps that it is compared
    with, the first of them that was trained. ``cycles``: how often image and answer go through it. ``folds``:
    whether it can work on folded voxels.
    """

    body: Callable[[int, int, Sequence[int]], nn.Module]
    dice: bool
    before: tuple[str, ...] = ()
    cycles: int = 1
    folds: bool = True

    def network(
        self, inputs: int, outputs: int, widths: Sequence[int], fold: int, start: float = 0.0
    ) -> nn.Module:
        """Logits (B, outputs, *spatial) of images (B, inputs, *spatial), about ``start`` before training."""
        fold = fold if self.folds else 1
        taken = inputs + (outputs if self.cycles > 1 else 0)
        body = self.body(taken * fold**3, outputs * fold**3, widths)
        whole = FoldedNet(body, 3, fold) if fold > 1 else body
        whole = Shifted(whole, start) if start else whole
        return CycleNet(whole, outputs, self.cycles) if self.cycles > 1 else whole


class Shifted(nn.Module):
    """Logits that begin at ``by``: of rare structures, no step is spent on learning that they are rare."""

    def __init__(self, network: nn.Module, by: float) -> None:
        super().__init__()
        self.network, self.by = network, by

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image) + self.by


def _u_net(residual: bool, squeeze_excitation: bool) -> Callable[[int, int, Sequence[int]], nn.Module]:
    def body(inputs: int, outputs: int, widths: Sequence[int]) -> nn.Module:
        strides = (2,) * (len(widths) - 1)
        return ResUNetSE(
            3, inputs, outputs, widths, strides, residual=residual, squeeze_excitation=squeeze_excitation
        )

    return body


def _dyn_u_net(inputs: int, outputs: int, widths: Sequence[int]) -> nn.Module:
    """nnU-Net's network, as MONAI keeps it."""
    strides = (1, *(2,) * (len(widths) - 1))
    return DynUNet(3, inputs, outputs, (3,) * len(widths), strides, strides[1:], filters=list(widths))


def _seg_res_net(inputs: int, outputs: int, widths: Sequence[int]) -> nn.Module:
    down, up = (1, 2, 2, 4)[: len(widths)], (1,) * (min(len(widths), 4) - 1)
    return SegResNet(3, widths[0], inputs, outputs, blocks_down=down, blocks_up=up)


def _med_next(inputs: int, outputs: int, widths: Sequence[int]) -> nn.Module:
    """MedNeXt-S with a quarter of its 32 filters, which brings it to the size of the others; its five
    resolutions are fixed, so it sees unfolded voxels."""
    return MedNeXt(3, 8, inputs, outputs, deep_supervision=False)


RES_SE, CYCLE = "Res-U-Net + SE", "+ Cycle, K = 2"
BOTH = "Res-U-Net + SE, BCE + Dice"

STEPS = {
    "U-Net": Step(_u_net(False, False), False),
    "Res-U-Net": Step(_u_net(True, False), False, ("U-Net",)),
    RES_SE: Step(_u_net(True, True), False, ("Res-U-Net",)),
    CYCLE: Step(_u_net(True, True), False, (RES_SE,), cycles=2),
    "+ Cycle, K = 3": Step(_u_net(True, True), False, (CYCLE,), cycles=3),
    "U-Net, BCE + Dice": Step(_u_net(False, False), True, ("U-Net",)),
    "Res-U-Net, BCE + Dice": Step(_u_net(True, False), True, ("U-Net, BCE + Dice",)),
    BOTH: Step(_u_net(True, True), True, (RES_SE, "Res-U-Net, BCE + Dice")),
    f"{CYCLE}, BCE + Dice": Step(_u_net(True, True), True, (CYCLE, BOTH), cycles=2),
    "+ Cycle, K = 3, BCE + Dice": Step(_u_net(True, True), True, (f"{CYCLE}, BCE + Dice",), cycles=3),
    "DynUNet, BCE + Dice": Step(_dyn_u_net, True, (BOTH,)),
    "SegResNet, BCE + Dice": Step(_seg_res_net, True, (BOTH,)),
    "MedNeXt, BCE + Dice": Step(_med_next, True, (BOTH,), folds=False),
}
"""By the name that the tables show. The seed's ladder was cross-entropy up to the last step; organs of a few
hundred voxels stay empty so, and the steps are climbed with both losses there."""


def compared_with(name: str, trained: Collection[str]) -> str | None:
    """The step that ``name`` is compared with, of those that were ``trained``."""
    return next((step for step in STEPS[name].before if step in trained), None)
