"""nnU-Net's checkpoint files: weights and a few plain values, read without executing anything."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.errors import BundleError

if TYPE_CHECKING:
    import torch

FILE = "checkpoint_final.pth"

NUMPY_SCALARS = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
"""nnU-Net logs its losses and scores as numpy numbers of these types."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What counts of one fold's file. ``weights``: {name: tensor}. ``configuration``: what was trained, ""
    when the file does not say. ``mirror_axes``: of the patch, () for none."""

    path: Path
    weights: dict[str, torch.Tensor]
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file. BundleError for a file that is damaged, that names anything to be called
    (nothing is), that holds no weights, or weights that no training ends with."""
    from medseg.bundles.weights import untrained
    from medseg.training.checkpoints import load_checkpoint

    try:
        with _numpy_scalars_allowed():
            content = load_checkpoint(path)
    except BundleError as error:
        cause = error.__cause__
        if isinstance(cause, pickle.UnpicklingError):
            named = re.search(r"GLOBAL (\S+)|Unsupported (?:global|class) (\S+)", str(cause))
            what = next(filter(None, named.groups()), "code") if named else "code"
            raise BundleError(
                f"{path}: names {what}, which reading it would call; expected tensors and plain values, as "
                "nnU-Net writes them. Nothing of it was run: ask for the file's origin."
            ) from error
        raise
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise BundleError(f"{path}: holds no network_weights; expected a checkpoint of nnU-Net v2.")
    weights = {_plain(str(name)): tensor for name, tensor in weights.items()}
    wrong = untrained(weights)
    if wrong:
        raise BundleError(f"{path}: {wrong}; train it or restore the file.")
    return Checkpoint(
        path,
        weights,
        str(_inner(content, "init_args").get("configuration", "")),
        str(content.get("trainer_name", "")),
        _axes(path, content.get("inference_allowed_mirroring_axes")),
    )


def _inner(content: dict[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _axes(path: Path, value: Any) -> tuple[int, ...]:
    axes = tuple(value) if isinstance(value, list | tuple) else None if value is not None else ()
    if axes is None or not {*axes} <= {0, 1, 2} or len({*axes}) < len(axes):
        raise BundleError(f"{path}: mirror axes {value!r}; expected some of 0, 1, 2, or none.")
    return axes


def _plain(name: str) -> str:
    """The name of a tensor as the network has it: without what data parallel and compiling put before it."""
    return name.removeprefix("module.").removeprefix("_orig_mod.")


@contextmanager
def _numpy_scalars_allowed() -> Iterator[None]:
    """Within the block torch reads numpy's scalars too, under the names of old and new numpy; nothing
    else."""
    import torch

    scalar = np.float64(0).__reduce__()[0]
    names = [f"numpy.{package}.multiarray.scalar" for package in ("core", "_core")]
    types = [type(np.dtype(name)) for name in NUMPY_SCALARS]
    with torch.serialization.safe_globals([*((scalar, name) for name in names), np.dtype, *types]):
        yield
