"""The mean answer to an image and its mirror images."""

import itertools

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn

from medseg.errors import InputError


class FlipAverage(Inferer):
    """Run `inferer` on the image and its mirror images along `axes` (spatial, from 0) and return the mean
    logits.

    Three axes make eight passes. For networks that were trained with flips on these axes; where left and
    right are structures of their own, their axis must not be among them.
    """

    def __init__(self, inferer: Inferer | None = None, axes: tuple[int, ...] = (0, 1, 2)) -> None:
        self.inferer = inferer or SimpleInferer()
        self.axes = tuple(axes)
        if len(set(self.axes)) != len(self.axes) or any(axis < 0 for axis in self.axes):
            raise InputError(f"axes are {self.axes}; expected different spatial axes, counted from 0.")

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args, **kwargs) -> torch.Tensor:
        total, count = 0.0, 0
        for length in range(len(self.axes) + 1):
            for flipped in itertools.combinations([axis + 2 for axis in self.axes], length):
                turned = torch.flip(inputs, flipped) if flipped else inputs
                answer = self.inferer(turned, network, *args, **kwargs)
                total = total + (torch.flip(answer, flipped) if flipped else answer)
                count += 1
        return total / count
