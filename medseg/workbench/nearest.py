"""Which record of a person lies nearest in time to which image: exact, for millions of rows.

Dates are whole days. Every array is one-dimensional; ``group`` numbers whose rows may meet (a patient, or a
patient's left hip), from 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SPAN = 2**22
"""Days kept apart for one group in a sorted key: eleven thousand years."""

PAIRED, NO_MATCH, TOO_FAR, EQUALLY_NEAR, OTHER_IMAGE_NEARER = range(5)
"""What became of an image."""


class Nearest(NamedTuple):
    """For every image: ``outcome``, one of the five above; ``record``, the row of its record, -1 where it has
    none; ``days``, the record's date minus the image's (0 where no record of the group exists)."""

    outcome: np.ndarray
    record: np.ndarray
    days: np.ndarray


def nearest_records(
    image_group: np.ndarray,
    image_day: np.ndarray,
    image_side: np.ndarray,
    record_group: np.ndarray,
    record_day: np.ndarray,
    record_value: np.ndarray,
    most_days: int,
) -> Nearest:
    """The nearest record of its group for every image, at most ``most_days`` before or after it.

    Two records equally near (on one day, or as long before as after) that agree in ``record_value`` are as
    good as one, and the earlier is taken, of one day the first; where they differ the image stays unpaired.
    A record serves one date of each side: of the images of one ``image_side`` (a small number) that would
    share it those of the nearest date have it, and where two dates are equally near none has. No images or no
    records give arrays without a pair.
    """
    count = len(image_day)
    outcome = np.full(count, NO_MATCH, np.int8)
    record, days = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    if not count or not len(record_day):
        return Nearest(outcome, record, days)

    dates, first, lowest, highest = _dates(record_group, record_day, record_value)
    key = _key(image_group, image_day)
    before = np.searchsorted(dates, key, side="right") - 1
    gap_before = _gap(dates, key, before)
    gap_after = _gap(dates, key, before + 1)
    gap = np.minimum(gap_before, gap_after)
    is_before, is_after = gap_before == gap, (gap_after == gap) & (gap < SPAN)
    chosen = np.where(is_before, before, before + 1)
    there = gap < SPAN
    near = there & (gap <= most_days)

    both = near & is_before & is_after
    one, other = np.where(near, chosen, 0), np.where(both, before + 1, 0)
    low = np.where(both, np.minimum(lowest[one], lowest[other]), lowest[one])
    high = np.where(both, np.maximum(highest[one], highest[other]), highest[one])

    days[there] = np.where(is_before, -gap, gap)[there]
    outcome[there & ~near] = TOO_FAR
    outcome[near & (low != high)] = EQUALLY_NEAR
    outcome[near & (low == high)] = PAIRED
    _share(outcome, chosen * (int(image_side.max()) + 1) + image_side, days)
    kept = outcome == PAIRED
    record[kept] = first[chosen[kept]]
    return Nearest(outcome, record, days)


def _key(group: np.ndarray, day: np.ndarray) -> np.ndarray:
    return group.astype(np.int64) * SPAN + day.astype(np.int64) + SPAN // 2


def _dates(
    group: np.ndarray, day: np.ndarray, value: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the distinct dates of each group, sorted: key, first row, lowest and highest value."""
    key = _key(group, day)
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    in_order = value[order]
    return (
        key[order][starts],
        order[starts],
        np.minimum.reduceat(in_order, starts),
        np.maximum.reduceat(in_order, starts),
    )


def _gap(dates: np.ndarray, key: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Days between an image and the date at ``place``; SPAN where that is none or of another group."""
    inside = (place >= 0) & (place < len(dates))
    found = dates[np.where(inside, place, 0)]
    same = inside & (found // SPAN == key // SPAN)
    return np.where(same, np.abs(found - key), SPAN)


def _share(outcome: np.ndarray, chosen: np.ndarray, days: np.ndarray) -> None:
    """Leave what several images chose to those of the nearest date; changes ``outcome``."""
    rows = np.flatnonzero(outcome == PAIRED)
    if not len(rows):
        return
    order = rows[np.argsort(chosen[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(chosen[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    distance = np.abs(days[order])
    least = np.repeat(np.minimum.reduceat(distance, starts), sizes)
    nearest = distance == least
    outcome[order[~nearest]] = OTHER_IMAGE_NEARER
    sign = np.sign(days[order])
    earlier = np.repeat(np.maximum.reduceat(nearest & (sign < 0), starts), sizes)
    later = np.repeat(np.maximum.reduceat(nearest & (sign > 0), starts), sizes)
    outcome[order[nearest & earlier & later]] = EQUALLY_NEAR
