"""Which cases of a datalist are drawn how often: classes or groups that are rare brought up to the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import WeightedRandomSampler

from medseg.errors import InputError


def undersampled(
    cases: Sequence[Mapping[str, Any]], wanted: bool = True, seed: int = 0, key: str = "label"
) -> list[Mapping[str, Any]]:
    """As many cases of each class, under ``key``, as of the rarest, drawn once with ``seed``, in their old
    order; all of them when not ``wanted``. The same arguments give the same cases."""
    if not wanted:
        return list(cases)
    classes = np.array([str(case[key]) for case in cases])
    fewest = min(Counter(classes).values(), default=0)
    draw = np.random.default_rng(seed)
    kept = [draw.permutation(np.flatnonzero(classes == name))[:fewest] for name in np.unique(classes)]
    return [cases[number] for number in sorted(np.concatenate(kept))] if kept else []


def group_weights(cases: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> np.ndarray:
    """float64 (N,), of mean 1: how often each case is drawn so that all groups, the combinations of
    ``fields`` that occur, are drawn alike. InputError for a case that lacks a field."""
    for case in cases:
        lacking = [name for name in fields if name not in case]
        if lacking:
            raise InputError(f"{case.get('case_id')} has no {lacking[0]!r}, by which groups are balanced.")
    groups = [tuple(str(case[name]) for name in fields) for case in cases]
    counts = Counter(groups)
    return np.array([len(cases) / len(counts) / counts[group] for group in groups])


def group_sampler(
    cases: Sequence[Mapping[str, Any]], fields: Sequence[str], processes: int = 1
) -> WeightedRandomSampler | None:
    """A sampler of as many draws as there are cases, with :func:`group_weights`; None without ``fields``,
    when a loader draws as it does by itself. It draws from torch's own generator, whose state checkpoints
    keep, so that a resumed training goes on with other draws than it began with. ``processes``: how many
    share the draws of an epoch; each draws from all cases, and all draw as many.

    With ("label", "device") a class is no longer tied to a machine: the few sick films of the machine of the
    sound count as much as all others. They are then seen many times, which is little to learn from.
    """
    if not fields:
        return None
    return WeightedRandomSampler(group_weights(cases, fields), math.ceil(len(cases) / processes))
