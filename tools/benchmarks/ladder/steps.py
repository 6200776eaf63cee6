"""The steps of the ladder and the networks beside it, each by the loss it is trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from monai.networks.nets import DynUNet, MedNeXt, SegResNet
from torch import nn

from medseg.losses import BCEPerSample, DiceBCEPerSample, PerSampleLoss
from medseg.networks import CycleNet, ResUNetSE

CHANNELS = (8, 16, 32, 64, 128)
"""Widths of the U-Nets, from the finest of five resolutions to the coarsest."""


@dataclass(frozen=True)
class Step:
    """``build``: input and output channels to a network that answers logits. ``before``: the step that this
    one is compared with."""

    build: Callable[[int, int], nn.Module]
    loss: Callable[[], PerSampleLoss]
    before: str | None


def _u_net(residual: bool, squeeze_excitation: bool) -> Callable[[int, int], nn.Module]:
    def build(inputs: int, outputs: int) -> nn.Module:
        return ResUNetSE(
            3, inputs, outputs, CHANNELS, residual=residual, squeeze_excitation=squeeze_excitation
        )

    return build


def _cycle(cycles: int) -> Callable[[int, int], nn.Module]:
    def build(inputs: int, outputs: int) -> nn.Module:
        return CycleNet(ResUNetSE(3, inputs + outputs, outputs, CHANNELS), outputs, cycles)

    return build


def _dyn_u_net(inputs: int, outputs: int) -> nn.Module:
    """nnU-Net's network, as MONAI keeps it."""
    strides = (1, 2, 2, 2, 2)
    return DynUNet(3, inputs, outputs, (3,) * 5, strides, strides[1:], filters=CHANNELS)


def _seg_res_net(inputs: int, outputs: int) -> nn.Module:
    return SegResNet(3, 8, inputs, outputs)


def _med_next(inputs: int, outputs: int) -> nn.Module:
    """MedNeXt-S with a quarter of its 32 filters, which brings it to the size of the others."""
    return MedNeXt(3, 8, inputs, outputs, deep_supervision=False)


STEPS = {
    "U-Net": Step(_u_net(False, False), BCEPerSample, None),
    "Res-U-Net": Step(_u_net(True, False), BCEPerSample, "U-Net"),
    "Res-U-Net + SE": Step(_u_net(True, True), BCEPerSample, "Res-U-Net"),
    "+ Cycle, K = 2": Step(_cycle(2), BCEPerSample, "Res-U-Net + SE"),
    "+ Cycle, K = 3": Step(_cycle(3), BCEPerSample, "+ Cycle, K = 2"),
    "+ Cycle, K = 2, BCE + Dice": Step(_cycle(2), DiceBCEPerSample, "+ Cycle, K = 2"),
    "Res-U-Net + SE, BCE + Dice": Step(_u_net(True, True), DiceBCEPerSample, "Res-U-Net + SE"),
    "DynUNet, BCE + Dice": Step(_dyn_u_net, DiceBCEPerSample, "Res-U-Net + SE, BCE + Dice"),
    "SegResNet, BCE + Dice": Step(_seg_res_net, DiceBCEPerSample, "Res-U-Net + SE, BCE + Dice"),
    "MedNeXt, BCE + Dice": Step(_med_next, DiceBCEPerSample, "Res-U-Net + SE, BCE + Dice"),
}
"""By the name that the tables show. The seed's ladder was cross-entropy up to the last step."""
