"""What makes a resumed training the same training: its cases, batches, seed and learning rate."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine

CHANGED = "changed"
"""As `resume`: go on although the settings are others."""


VARIANT = "variant"
"""The setting that no training changes on its way: another recipe's optimizer has another state."""


def settings_of(
    engine: Engine, optimizer: torch.optim.Optimizer, seed: int, variant: str | None = None
) -> dict[str, Any]:
    """What :func:`differences` compares, as plain values; what the trainer does not tell is left out."""
    loader = getattr(engine, "data_loader", None)
    settings: dict[str, Any] = {"seed": seed, VARIANT: variant or "none"}
    if "lr" in optimizer.defaults:
        settings["learning rate"] = float(optimizer.defaults["lr"])
    if isinstance(getattr(loader, "batch_size", None), int):
        settings["batch size"] = loader.batch_size
    data = getattr(getattr(loader, "dataset", None), "data", None)
    if isinstance(data, Sequence):
        settings["cases"] = len(data)
        settings["datalist"] = _digest(data)
    return settings


def _digest(items: Sequence[Any]) -> str:
    """Hex digest of the cases in their order. Where their files lie does not enter, so that data may move."""
    texts = [text for item in items for text in _texts(item) if os.path.isabs(text)]
    root = os.path.commonpath(texts) if texts else ""

    def moved(value: Any) -> Any:
        if isinstance(value, str) and os.path.isabs(value):
            return os.path.relpath(value, root)
        return [moved(part) for part in value] if isinstance(value, list | tuple) else value

    rows = [
        {key: moved(value) for key, value in item.items()} if isinstance(item, Mapping) else str(item)
        for item in items
    ]
    return hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()


def _texts(item: Any) -> list[str]:
    values = item.values() if isinstance(item, Mapping) else []
    flat = [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
    return [value for value in flat if isinstance(value, str)]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line per setting that is another one now: "seed 1, now 2"; [] when nothing is known of before."""
    lines = []
    for name, value in now.items():
        if name not in before or before[name] == value:
            continue
        if name != "datalist":
            lines.append(f"{name} {before[name]}, now {value}")
        elif before.get("cases") == now.get("cases"):
            lines.append("other cases in the datalist, or in another order")
    return lines


LENGTHS = ("total_steps", "t_total", "T_max", "total_iters")
"""What the schedules of torch and MONAI call the number of steps that they are laid out for."""


def load_optimizer(
    state: Mapping[str, Any], schedule: Mapping[str, Any], optimizer: torch.optim.Optimizer, scheduler: Any
) -> bool:
    """Bring an optimizer and its schedule (or None) to where a checkpoint's ``state`` and ``schedule`` left
    them. Whether the schedule is laid out for another number of steps now, as more epochs make it: then the
    new one is gone through up to that step, since the old one would end in the middle of the training, or
    raise an error, as OneCycleLR does."""
    own = [
        {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    if scheduler is None or not schedule:
        return False
    now = vars(scheduler)
    if all(name not in schedule or now.get(name) == schedule[name] for name in LENGTHS):
        scheduler.load_state_dict(schedule)
        return False
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        for _ in range(schedule["last_epoch"] - now["last_epoch"]):
            scheduler.step()
    return True


def take_new_learning_rate(
    before: Mapping[str, Any], now: Mapping[str, Any], optimizer: torch.optim.Optimizer, scheduler: Any
) -> None:
    """Scale the learning rates that a checkpoint brought by what the setting changed, so that the new setting
    is obeyed and the schedule goes on where it was. Does nothing where the setting is the same."""
    name = "learning rate"
    if not before.get(name) or name not in now or before[name] == now[name]:
        return
    factor = now[name] / before[name]
    for group in optimizer.param_groups:
        for key in ("lr", "initial_lr", "max_lr", "min_lr"):  # the last two are OneCycleLR's
            if key in group:
                group[key] *= factor
    for key in ("base_lrs", "_last_lr"):
        if hasattr(scheduler, key):
            setattr(scheduler, key, [rate * factor for rate in getattr(scheduler, key)])
