"""Instance and group norms whose sums keep their digits where OpenVINO computes them.

OpenVINO adds up a channel's voxels one after the other in float32. Over the 589,824 voxels of a patch of
64 x 96 x 96 that costs three of seven digits, in every layer anew; torch loses none. Means of parts are made
first instead, and then the mean of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn.functional import avg_pool1d, avg_pool2d, avg_pool3d

PART = 16
"""A part has at most so many voxels along an axis."""


@contextmanager
def norms_in_parts(network: nn.Module) -> Iterator[None]:
    """While it lasts, the network's instance and group norms compute their means part by part, for tracing:
    the same numbers but for the last digits. Norms that use statistics of the training are left alone."""
    changed = [module for module in network.modules() if _of_the_image(module)]
    for module in changed:
        module.forward = partial(_normalised, module)  # hides the class's own
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _of_the_image(module: nn.Module) -> bool:
    if isinstance(module, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)):
        return not module.track_running_stats
    return isinstance(module, nn.GroupNorm)


def _normalised(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """As the norm's own forward, of (B, C, *spatial)."""
    if not 3 <= x.ndim <= 5:
        return type(norm).forward(norm, x)
    batch, channels, axes = *x.shape[:2], tuple(range(2, x.ndim))
    groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else channels
    pool = (avg_pool1d, avg_pool2d, avg_pool3d)[len(axes) - 1]
    part = [max(side for side in range(1, PART + 1) if n % side == 0) for n in map(int, x.shape[2:])]

    def mean(values: torch.Tensor) -> torch.Tensor:
        means = pool(values, part).mean(axes, keepdim=True)
        if groups == channels:
            return means
        of_groups = means.reshape(batch, groups, channels // groups).mean(2, keepdim=True)
        return of_groups.expand(batch, groups, channels // groups).reshape(means.shape)

    apart = x - mean(x)
    factor = torch.rsqrt(mean(apart * apart) + norm.eps)
    each = (1, channels, *(1 for _ in axes))
    if norm.weight is not None:
        factor = factor * norm.weight.reshape(each)
    # In one step: tracing runs the network, and each array of a full patch counts in its peak of memory.
    return apart * factor if norm.bias is None else torch.addcmul(norm.bias.reshape(each), apart, factor)
