"""Which structures of a cohort are unlike the others: by volume, by place, or because they are missing.

The cohort is its own yardstick: medians and median absolute deviations, which a few wrong cases do not move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

FEWEST_CASES = 5
"""Of fewer cases nothing is said."""

USUAL_SHARE = 0.8
"""A structure that so many of the cases have is missing where it is not."""

FAR = 4.0
"""Robust standard deviations (1.4826 median absolute deviations) from the median."""

LEAST_RATIO = 1.5
"""Volumes within this factor of the median are never remarkable, however alike the others are."""

LEAST_SPREAD_LOG = 0.05
LEAST_SPREAD_MM = 5.0
"""Spreads below these count as these: a cohort of copies would make every difference remarkable."""

ROUNDS = 5
"""Of two medians in turn, which settle in two or three."""


class Outlier(NamedTuple):
    """``what``: "volume", "place" or "missing". ``words``: a sentence for people. ``score``: how many robust
    standard deviations away, for sorting; missing ones come first."""

    case: str
    structure: str
    what: str
    words: str
    score: float


def outliers(cases: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Outlier]:
    """Those of a cohort {case: rows of its structures}, the most remarkable first; [] below FEWEST_CASES.

    A row has ``name`` and ``empty``, and where they are known ``volume_cc`` and ``centre_lps_mm`` (x, y, z).
    Places are compared relative to the case's other structures; of one structure alone none is known.
    """
    if len(cases) < FEWEST_CASES:
        return []
    there = {case: {row["name"]: row for row in rows if not row.get("empty")} for case, rows in cases.items()}
    counts: dict[str, int] = {}
    for rows in there.values():
        for name in rows:
            counts[name] = counts.get(name, 0) + 1
    usual = [name for name, count in counts.items() if count >= USUAL_SHARE * len(cases)]
    found = [
        Outlier(case, name, "missing", f"no {name}; {counts[name]} of {len(cases)} cases have it", np.inf)
        for case, rows in there.items()
        for name in usual
        if name not in rows
    ]
    for name in counts:
        found += _by_volume(name, there)
    found += _by_place(there, usual)
    return sorted(found, key=lambda one: (-one.score, one.case, one.structure))


def _by_volume(name: str, there: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Outlier]:
    volumes = {case: rows[name].get("volume_cc") for case, rows in there.items() if name in rows}
    known = {case: float(cc) for case, cc in volumes.items() if cc}
    if len(known) < FEWEST_CASES:
        return []
    logs = np.log(list(known.values()))
    middle, spread = _middle_and_spread(logs, LEAST_SPREAD_LOG)
    found = []
    for (case, cc), log in zip(known.items(), logs, strict=True):
        score = abs(log - middle) / spread
        if score > FAR and abs(log - middle) > np.log(LEAST_RATIO):
            words = f"{name} {cc:.1f} cc; the median of the cohort is {np.exp(middle):.1f} cc"
            found.append(Outlier(case, name, "volume", words, float(score)))
    return found


def _by_place(there: Mapping[str, Mapping[str, Mapping[str, Any]]], usual: Sequence[str]) -> list[Outlier]:
    """Where each structure lies in its case, against where it lies in the others."""
    centres = {
        case: {
            name: np.asarray(row["centre_lps_mm"]) for name, row in rows.items() if row.get("centre_lps_mm")
        }
        for case, rows in there.items()
    }
    known = {case: own for case, own in centres.items() if sum(name in own for name in usual) > 1}
    if len(known) < FEWEST_CASES:
        return []
    origins = _origins(known, usual)
    found = []
    for name in sorted({name for own in known.values() for name in own}):
        places = {case: own[name] - origins[case] for case, own in known.items() if name in own}
        if len(places) < FEWEST_CASES:
            continue
        middle, spread = _middle_and_spread(np.array(list(places.values())), LEAST_SPREAD_MM)
        for case, place in places.items():
            score = float(np.abs((place - middle) / spread).max())
            if score > FAR:
                words = f"{name} lies {_direction(place - middle)} of where it lies in the other cases"
                found.append(Outlier(case, name, "place", words, score))
    return found


def _origins(known: Mapping[str, Mapping[str, np.ndarray]], usual: Sequence[str]) -> dict[str, np.ndarray]:
    """{case: where it lies in the scanner}: the shift by which most of its usual structures come to lie where
    they lie in most cases. Medians in turn, so that neither a misplaced structure nor a missing one moves
    it."""
    own = {case: {name: rows[name] for name in usual if name in rows} for case, rows in known.items()}
    origins = {case: np.mean(list(rows.values()), axis=0) for case, rows in own.items()}
    for _ in range(ROUNDS):
        usually = {
            name: np.median(
                [rows[name] - origins[case] for case, rows in own.items() if name in rows], axis=0
            )
            for name in usual
        }
        origins = {
            case: np.median([centre - usually[name] for name, centre in rows.items()], axis=0)
            for case, rows in own.items()
        }
    return origins


def _middle_and_spread(values: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    middle = np.median(values, axis=0)
    return middle, np.maximum(1.4826 * np.median(np.abs(values - middle), axis=0), least)


def _direction(away_lps_mm: np.ndarray) -> str:
    """The largest part of a shift in words: "31 mm left"."""
    axis = int(np.abs(away_lps_mm).argmax())
    words = (("right", "left"), ("anterior", "posterior"), ("inferior", "superior"))[axis]
    return f"{abs(away_lps_mm[axis]):.0f} mm {words[int(away_lps_mm[axis] > 0)]}"
