"""Whether weights are a network's own, told before any of them is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


def unfitting(network: nn.Module, weights: Mapping[str, Any]) -> list[str]:
    """A clause for every tensor of a state dict that does not fit, the missing ones first; [] when all do."""
    own = network.state_dict()
    found = [f"'{name}' is missing" for name in own if name not in weights]
    found += [f"'{name}' is unknown to the network" for name in weights if name not in own]
    found += [
        f"'{name}' is {tuple(weights[name].shape)}, the network has {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    return found
