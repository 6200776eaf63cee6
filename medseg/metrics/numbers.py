"""How well numbers of whole images fit: error, agreement, and how far a new one may be off."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from medseg.errors import InputError


class Agreement(NamedTuple):
    """Bland and Altman (Lancet 1986): ``bias``, the mean of said less true, and the limits between which 95 %
    of the differences lie if they are normal, bias -/+ 1.96 SD."""

    bias: float
    low: float
    high: float


def mean_absolute_error(said: np.ndarray, true: np.ndarray) -> float:
    """Mean of what the numbers (N,) are off, in their unit; nan without images."""
    said, true = _pair(said, true)
    return float(np.abs(said - true).mean()) if len(said) else math.nan


def agreement(said: np.ndarray, true: np.ndarray) -> Agreement:
    """Bias and limits of agreement of numbers (N,), in their unit; nan with fewer than two images."""
    said, true = _pair(said, true)
    if len(said) < 2:
        return Agreement(math.nan, math.nan, math.nan)
    off = said - true
    bias, reach = float(off.mean()), 1.96 * float(off.std(ddof=1))
    return Agreement(bias, bias - reach, bias + reach)


def determination(said: np.ndarray, true: np.ndarray) -> float:
    """R2: 1 less the squared errors over the squared distances of the truth from its own mean. 1 is perfect,
    0 what saying the mean gives, below 0 worse; nan where the truth is the same for all."""
    said, true = _pair(said, true)
    spread = float(((true - true.mean()) ** 2).sum()) if len(true) else 0.0
    return 1 - float(((said - true) ** 2).sum()) / spread if spread > 0 else math.nan


def conformal_ends(off: np.ndarray, share: float = 0.95) -> tuple[float, float]:
    """(least, most) that a new number may be off: at least ``share`` of new images keep to it, whatever the
    network is like (split conformal prediction: Vovk et al. 2005; Lei et al., JASA 2018), half of the others
    at each end.

    ``off``: (N,), said less true, of images like the new one that were not trained on. Infinite where N is
    too small for that share: below 39 for 0.95.
    """
    off = np.sort(np.asarray(off, float))
    place = math.ceil((len(off) + 1) * (1 + share) / 2)
    return (float(off[-place]), float(off[place - 1])) if place <= len(off) else (-math.inf, math.inf)


def _pair(said: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    said, true = np.asarray(said, float), np.asarray(true, float)
    if said.shape != true.shape or said.ndim != 1:
        raise InputError(f"{said.shape} numbers said and {true.shape} true: expected (N,) both.")
    return said, true
