"""What the cases say together: spread, bias with limits of agreement, action levels, drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medseg.commission.limits import AT_LEAST, Limits, unit

NUMBERS = (
    "dsc",
    "surface_dsc",
    "hd95_mm",
    "added_path_length_mm",
    "volume_percent",
    "shift_mm",
)
ALL = "all"
MOVING_RANGE = 2.66
"""Of the mean moving range of two: the three-sigma limits of an individuals chart (3 / 1.128)."""

FEWEST_FOR_LIMITS = 5
ROUNDING = 1e-6
"""What records are rounded to."""


class Control(NamedTuple):
    """Limits of an individuals chart of ``n`` points."""

    centre: float
    low: float
    high: float
    n: int

    def excludes(self, value: float) -> bool:
        """Beyond the limits by more than rounding: equal values have limits without width."""
        return not self.low - ROUNDING <= value <= self.high + ROUNDING


def summaries(cases: Sequence[Mapping[str, Any]], limits: Limits) -> list[dict[str, Any]]:
    """A row for each structure over all cases, and for each scanner and protocol where there are several.

    {"structure", "group", "n", "not_contoured", numbers: {name: {"median", "low", "high"}}, "bias_cc":
    {"mean", "low", "high"}, "verdicts": [{"number", "level", "within", "n", "passed"}], "passed"}; ``low``
    and ``high`` are the 5th and 95th percentiles, of the bias the limits of agreement. ``passed`` is None
    without an action level.
    """
    names = dict.fromkeys(row["name"] for case in cases for row in case["structures"])
    groups: dict[str, list[Mapping[str, Any]]] = {ALL: list(cases)}
    by_scanner: dict[str, list[Mapping[str, Any]]] = {}
    for case in cases:
        by_scanner.setdefault(group_of(case), []).append(case)
    if len(by_scanner) > 1:
        groups |= by_scanner
    return [
        _summary(
            name, group, [row for case in own for row in case["structures"] if row["name"] == name], limits
        )
        for name in names
        for group, own in groups.items()
        if any(row["name"] == name for case in own for row in case["structures"])
    ]


def group_of(case: Mapping[str, Any]) -> str:
    """Scanner and protocol of a case in words."""
    return "; ".join(part for part in (case.get("scanner"), case.get("protocol")) if part) or "not stated"


def _summary(name: str, group: str, rows: Sequence[Mapping[str, Any]], limits: Limits) -> dict[str, Any]:
    measured = [row for row in rows if "dsc" in row]
    drawn = [row for row in rows if _is_drawn(row)]
    verdicts = [
        _verdict(number, level, [row.get(number) for row in drawn], limits.cases_within)
        for number, level in limits.levels_of(name).items()
    ]
    for number, level in limits.dose_of(name).items():
        away = [_dose_away(row, number) for row in drawn if _has_dose(row, number)]
        verdicts.append(_verdict(number, level, away, limits.cases_within))
    known = [verdict["passed"] for verdict in verdicts if verdict["passed"] is not None]
    return {
        "structure": name,
        "group": group,
        "n": len(measured),
        "not_contoured": sum(row.get("state") in ("not contoured", "other empty") for row in rows),
        "numbers": {number: _spread([row.get(number) for row in measured]) for number in NUMBERS},
        "bias_cc": agreement([(row["reference_cc"], row["other_cc"]) for row in measured]),
        "verdicts": verdicts,
        "passed": all(known) if known else None,
    }


def unjudged(rows: Sequence[Mapping[str, Any]], limits: Limits) -> list[str]:
    """A sentence for each action level that no case could be judged by: neither passed nor failed. Of the
    levels of "*" only for structures that some plan has."""
    of_all = {row["structure"]: row for row in rows if row["group"] == ALL}
    own = [name for name in limits.structures() if limits.levels.get(name) or limits.dose.get(name)]
    told = []
    for name in dict.fromkeys([*own, *of_all]):
        row = of_all.get(name)
        open_ones = [verdict["number"] for verdict in row["verdicts"] if not verdict["n"]] if row else []
        if row is None or (open_ones and not row["n"]):
            if name in own:
                told.append(f"{name}: no case could be judged by its action levels; no plan has it")
            continue
        told += [
            f"{name}: no case could be judged by {number}; no plan's contour has that number (no planned "
            "dose covers it, or it holds fewer cc)"
            for number in open_ones
        ]
    return told


def _verdict(number: str, level: float, values: Sequence[float | None], share: float) -> dict[str, Any]:
    """Whether enough of the values lie within a level; a value that does not exist is not within."""
    least = number in AT_LEAST
    within = sum(v is not None and (v >= level if least else abs(v) <= level) for v in values)
    passed = within >= share * len(values) - 1e-9 if values else None
    said = {"number": number, "level": level, "unit": unit(number), "least": least}
    return {**said, "within": within, "n": len(values), "passed": passed}


def is_within(row: Mapping[str, Any], limits: Limits) -> bool:
    """Whether one case's structure lies within all its action levels; True where the plan does not have it,
    which nothing can be compared with."""
    if not _is_drawn(row):
        return True
    values = [(number, level, row.get(number)) for number, level in limits.levels_of(row["name"]).items()]
    values += [
        (number, level, _dose_away(row, number))
        for number, level in limits.dose_of(row["name"]).items()
        if _has_dose(row, number)
    ]
    return all(_verdict(number, level, [value], 1.0)["passed"] for number, level, value in values)


def _is_drawn(row: Mapping[str, Any]) -> bool:
    """Whether the plan has the structure: then it counts, contoured or not."""
    return "dsc" in row or row.get("state") == "not contoured"


def _has_dose(row: Mapping[str, Any], number: str) -> bool:
    """Whether the plan's contour has this number, or nothing was contoured that could have one."""
    return (row.get("dose") or {}).get(number, [None])[0] is not None or "dsc" not in row


def _dose_away(row: Mapping[str, Any], number: str) -> float | None:
    """Difference of a dose number of the two contours; None where the automatic one has no such number."""
    before, after = (row.get("dose") or {}).get(number) or (None, None)
    return None if None in (before, after) else abs(after - before)


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return {"median": None, "low": None, "high": None}
    low, median, high = np.percentile(known, [5, 50, 95])
    return {"median": float(median), "low": float(low), "high": float(high)}


def agreement(pairs: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Mean difference (second less first) and limits of agreement, mean ± 1.96 standard deviations (Bland
    and Altman 1986); the limits are None below three pairs."""
    away = [second - first for first, second in pairs if None not in (first, second)]
    if not away:
        return {"mean": None, "low": None, "high": None}
    mean = float(np.mean(away))
    if len(away) < 3:
        return {"mean": mean, "low": None, "high": None}
    half = 1.96 * float(np.std(away, ddof=1))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def control(values: Sequence[float]) -> Control | None:
    """Limits of an individuals chart of values in their order (Shewhart; Wheeler's moving range of two);
    None below five."""
    if len(values) < FEWEST_FOR_LIMITS:
        return None
    centre = float(np.mean(values))
    reach = MOVING_RANGE * float(np.abs(np.diff(values)).mean())
    return Control(centre, centre - reach, centre + reach, len(values))
