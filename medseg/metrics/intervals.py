"""95 % intervals by drawing patients, the only bootstrap of the house.

Images of one patient resemble each other, so an interval over images would be too narrow: patients are drawn,
each with all of their images (DiCiccio and Efron, Statist Sci 11:189-228, 1996: the percentile interval).

``scipy.stats.bootstrap`` draws single numbers. It can be handed sums and counts of patients in pairs, which
gives the very same interval of a mean (a test shows it), but it refuses a single patient and answers nan as
soon as one draw holds no value; and it holds all draws at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 10_000
DRAWS_AT_ONCE = 1000
"""So many draws are held in memory; the figures do not depend on it."""


class Interval(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def mean_interval(values: np.ndarray, patients: Sequence[str] | None = None, *, seed: int = 0) -> Interval:
    """Mean of values (n,) of images, and its 95 % interval over patients; nan (not known) is left out.

    ``patients``: whose image each is; None: every value is of a patient of its own. For the difference of two
    methods on the same images, give the differences. Without a known value all three are nan; with a single
    patient the interval is nan, because nothing is known about others. ValueError where ``patients`` has
    another length.
    """
    values = np.asarray(values, dtype=np.float64)
    members = _members(len(values), patients)
    known = ~np.isnan(values)
    if not known.any():
        return Interval(*[float("nan")] * 3)
    sums = np.array([values[rows][known[rows]].sum() for rows in members])
    counts = np.array([known[rows].sum() for rows in members])
    with np.errstate(invalid="ignore"):  # a draw of patients without a known value has no mean
        means = np.concatenate(
            [sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1) for drawn in _draws(len(members), seed)]
        )
    return Interval(float(values[known].mean()), *_ends(means, len(members)))


def interval(
    statistic: Callable[[np.ndarray], float], patients: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Any figure of images and its 95 % interval over patients.

    ``statistic``: gives the figure for row numbers of images, some of them several times; nan where these
    rows have none, which is left out of the interval. ``patients``: whose image each row is. With a single
    patient the interval is nan.
    """
    members = _members(len(patients), patients)
    values = [
        statistic(np.concatenate([members[number] for number in drawn]))
        for some in _draws(len(members), seed, draws)
        for drawn in some
    ]
    return Interval(float(statistic(np.arange(len(patients)))), *_ends(np.array(values), len(members)))


def _members(count: int, patients: Sequence[str] | None) -> list[np.ndarray]:
    """Row numbers of the images of each patient, patients by name (in order of rows where none is named)."""
    if patients is None:
        return list(np.arange(count)[:, None])
    if len(patients) != count:
        raise ValueError(f"{count} values of {len(patients)} patients; expected the patient of every value.")
    names = np.asarray(patients)
    return [np.flatnonzero(names == name) for name in sorted(set(patients))]


def _draws(count: int, seed: int, draws: int = DRAWS) -> Iterator[np.ndarray]:
    """int arrays (up to DRAWS_AT_ONCE, count): numbers of the patients drawn, ``draws`` times in all."""
    rng = np.random.default_rng(seed)
    for first in range(0, draws, DRAWS_AT_ONCE):
        yield rng.integers(0, count, size=(min(DRAWS_AT_ONCE, draws - first), count))


def _ends(values: np.ndarray, patients: int) -> tuple[float, float]:
    if patients < 2 or np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
