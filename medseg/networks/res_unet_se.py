"""Five-resolution U-Net with residual units and squeeze-and-excitation, in 2D or 3D."""

from collections.abc import Sequence

import torch
from monai.networks.blocks import ChannelSELayer, Convolution, UpSample
from monai.networks.layers.factories import Pool
from monai.networks.layers.utils import get_act_layer
from torch import nn

from medseg.errors import InputError

INSTANCE_NORM = ("INSTANCE", {"affine": True})
LEAKY_RELU = ("LEAKYRELU", {"negative_slope": 0.01})


class ConvUnit(nn.Module):
    """Two 3x3(x3) convolutions, each with norm and activation.

    `residual` adds the input (through a 1x1 convolution when the channel counts differ) before the last
    activation; `squeeze_excitation` rescales the channels of the convolution branch (Hu et al., CVPR 2018)
    before that sum.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        residual: bool,
        squeeze_excitation: bool,
        norm: str | tuple,
        activation: str | tuple,
        dropout: float,
    ) -> None:
        super().__init__()
        ordering = "NDA" if dropout > 0 else "NA"
        self.first = Convolution(
            spatial_dims,
            in_channels,
            out_channels,
            norm=norm,
            act=activation,
            dropout=dropout,
            adn_ordering=ordering,
        )
        self.second = Convolution(spatial_dims, out_channels, out_channels, norm=norm, adn_ordering="N")
        self.excite = ChannelSELayer(spatial_dims, out_channels) if squeeze_excitation else nn.Identity()
        self.shortcut: nn.Module | None = None
        if residual and in_channels != out_channels:
            self.shortcut = Convolution(
                spatial_dims, in_channels, out_channels, kernel_size=1, conv_only=True
            )
        elif residual:
            self.shortcut = nn.Identity()
        self.activation = get_act_layer(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.excite(self.second(self.first(x)))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.activation(y)


class ResUNetSE(nn.Module):
    """U-Net with residual units, squeeze-and-excitation and concatenated skips; (B, C_in, *spatial) ->
    logits.

    `channels` holds one width per resolution; `strides` one step per descent, an int or one int per axis, so
    that (2, 2, 1) keeps the slices of a thick-slice CT. With `residual=False` and `squeeze_excitation=False`
    it is the plain U-Net baseline (Ronneberger 2015, Cicek 2016).

    The size of the input must be a multiple of `size_multiple` on every axis; any other size raises
    InputError that names the size to pad to (SlidingWindowInferer with a fitting roi_size pads by itself).
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 96, 128),
        strides: Sequence[int | Sequence[int]] = (2, 2, 2, 2),
        residual: bool = True,
        squeeze_excitation: bool = True,
        norm: str | tuple = INSTANCE_NORM,
        activation: str | tuple = LEAKY_RELU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        steps = [_per_axis(stride, spatial_dims) for stride in strides]
        if len(steps) != len(channels) - 1:
            raise InputError(
                f"ResUNetSE got {len(channels)} channels and {len(steps)} strides; "
                f"give one stride fewer than channels ({len(channels) - 1})."
            )
        self.size_multiple = tuple(
            int(torch.tensor([s[axis] for s in steps]).prod()) for axis in range(spatial_dims)
        )

        def unit(n_in: int, n_out: int) -> ConvUnit:
            return ConvUnit(
                spatial_dims,
                n_in,
                n_out,
                residual=residual,
                squeeze_excitation=squeeze_excitation,
                norm=norm,
                activation=activation,
                dropout=dropout,
            )

        self.encoders = nn.ModuleList(
            [unit(a, b) for a, b in zip([in_channels, *channels[:-1]], channels, strict=True)]
        )
        pool = Pool[Pool.MAX, spatial_dims]
        self.pools = nn.ModuleList([pool(kernel_size=step, stride=step) for step in steps])
        self.upsamples = nn.ModuleList()
        self.decoders = nn.ModuleList()
        for level in reversed(range(len(steps))):
            above, here = channels[level + 1], channels[level]
            self.upsamples.append(
                UpSample(spatial_dims, above, here, scale_factor=steps[level], mode="deconv")
            )
            self.decoders.append(unit(2 * here, here))
        self.head = Convolution(spatial_dims, channels[0], out_channels, kernel_size=1, conv_only=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._check_size(x)
        skips = []
        x = self.encoders[0](x)
        for pool, encoder in zip(self.pools, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(pool(x))
        for upsample, decoder in zip(self.upsamples, self.decoders, strict=True):
            x = decoder(torch.cat([skips.pop(), upsample(x)], dim=1))
        return self.head(x)

    def _check_size(self, x: torch.Tensor) -> None:
        size = tuple(x.shape[2:])
        needed = tuple(-(-n // m) * m for n, m in zip(size, self.size_multiple, strict=True))
        if size != needed:
            raise InputError(
                f"ResUNetSE got an input of spatial size {size}; each axis must be a multiple of "
                f"{self.size_multiple}. Pad to {needed}, for example with DivisiblePad."
            )


def _per_axis(stride: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    step = (stride,) * spatial_dims if isinstance(stride, int) else tuple(stride)
    if len(step) != spatial_dims:
        raise InputError(f"Stride {tuple(step)} has {len(step)} axes; the network has {spatial_dims}.")
    return step
