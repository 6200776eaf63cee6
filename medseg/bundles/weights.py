"""A bundle's models/model.pt: read without executing anything, refused when it is not what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.bundles.find import Bundle
from medseg.bundles.trust import WEIGHTS_KEY
from medseg.errors import BundleError

if TYPE_CHECKING:
    import torch


def read_weights(bundle: Bundle, device: Any = "cpu") -> dict[str, torch.Tensor]:
    """{name: tensor} of the bundle's weights on ``device``.

    BundleError when the file is missing, holds anything but tensors, is damaged (the checksums that the file
    itself carries, or the digest under ``weights_sha256`` in metadata.json), or holds weights that no
    training ends with: NaN, infinity, a whole layer of zeros.
    """
    require_digest(bundle)
    return {name: tensor.to(device) for name, tensor in read_state(bundle.weights).items()}


def require_digest(bundle: Bundle) -> None:
    """BundleError when there are no weights, or metadata.json names the SHA-256 of others; without torch."""
    found, expected = bundle.weights_sha256, bundle.metadata.get(WEIGHTS_KEY)
    if expected is not None and expected != found:
        raise BundleError(
            f"bundle {bundle.name}: {bundle.weights} has SHA-256 {found[:12]}…, and metadata.json names "
            f"{str(expected)[:12]}…: the file was damaged or replaced. Restore it; or, if other weights are "
            f"meant, write their SHA-256 under {WEIGHTS_KEY}."
        )


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """{name: tensor} of a file of weights on the processor; refused as by :func:`read_weights`, which knows
    more of a bundle's own."""
    from medseg.training.checkpoints import load_checkpoint

    if not path.is_file():
        raise BundleError(f"{path}: no such file of weights; train them or name another folder.")
    state = load_checkpoint(path)
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):  # some of MONAI's zoo
        state = state["model"]
    wrong = untrained(state)
    if wrong:
        raise BundleError(f"{path}: {wrong}; train it or restore the file.")
    return state


def untrained(state: Mapping[str, Any]) -> str | None:
    """Why these cannot be the weights of a trained network, None when they may be.

    Vectors may be zeros (a bias before its first step, running means); a matrix or kernel of zeros answers
    the same whatever it is shown.
    """
    import torch

    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        return "holds other things than named tensors"
    if not state:
        return "holds no tensor"
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return f"{name} is not finite (NaN or infinity)"
        if tensor.is_floating_point() and tensor.ndim >= 2 and not bool(tensor.any()):
            return f"{name} is all zeros"
    return None
