"""A published backbone from a local file into a network of ours; nothing is ever downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from medseg.errors import BundleError, unusable
from medseg.networks.fitting import unfitting


def load_backbone(backbone: nn.Module, path: Path, made_for: str, without: tuple[str, ...]) -> None:
    """Fill ``backbone`` from a plain state dict such as torchvision publishes, read with ``weights_only``.

    ``without``: how the names begin that are passed over, those of the classifier of 1000 classes.
    ``features.`` before a name goes where the backbone has no such part. ``made_for``: what the weights
    should be of, for messages. InputError for a file that is missing, BundleError for one that does not fit.
    """
    if not path.is_file():
        raise unusable(path, f"weights of {made_for}")
    prefix = "" if any(name.startswith("features.") for name in backbone.state_dict()) else "features."
    try:
        weights = {
            name.removeprefix(prefix): tensor
            for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()
            if not name.startswith(without)
        }
    except Exception as error:  # torch raises whatever a damaged or foreign file leads to
        raise BundleError(
            f"{path}: not a plain state dict ({type(error).__name__}); expected weights of {made_for}."
        ) from error
    unfit = unfitting(backbone, weights)
    if unfit:
        raise BundleError(
            f"{path} does not fit the backbone: {len(unfit)} tensors, first {unfit[0]}; expected weights of "
            f"{made_for}."
        )
    backbone.load_state_dict(weights)
