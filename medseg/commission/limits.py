"""Tolerances and action levels, fixed by the user before the contours are looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import InputError
from medseg.files import load_json
from medseg.metrics.dose import check_name, unit_of

AT_LEAST = ("dsc", "surface_dsc")
AT_MOST = (
    "hd95_mm",
    "mean_surface_distance_mm",
    "added_path_length_mm",
    "volume_percent",
    "shift_mm",
)
"""Levels of the size of a number: of ``volume_percent`` and ``shift_mm`` in either direction."""

EVERYWHERE = "*"
CASES_WITHIN = 0.9
"""The share of the cases that has to lie within a level, unless the file says ``cases_within``."""

UNITS = {
    "dsc": "",
    "surface_dsc": "",
    "hd95_mm": "mm",
    "mean_surface_distance_mm": "mm",
    "added_path_length_mm": "mm",
    "volume_percent": "%",
    "shift_mm": "mm",
}


@dataclass(frozen=True)
class Limits:
    """``tolerance_mm``: {structure: of surface DSC and added path length}; ``levels``: {structure: {number:
    level}}; ``dose``: {structure: {dose number: largest difference, Gy or %}}. "*" stands for structures that
    are not named."""

    tolerance_mm: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    dose: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cases_within: float = CASES_WITHIN

    def tolerance_of(self, structure: str) -> float:
        return self.tolerance_mm.get(structure, self.tolerance_mm.get(EVERYWHERE, 2.0))

    def levels_of(self, structure: str) -> dict[str, float]:
        """Of "*", replaced by the structure's own where it has some."""
        return {**self.levels.get(EVERYWHERE, {}), **self.levels.get(structure, {})}

    def dose_of(self, structure: str) -> dict[str, float]:
        return {**self.dose.get(EVERYWHERE, {}), **self.dose.get(structure, {})}

    def structures(self) -> list[str]:
        """Every structure that is named."""
        named = dict.fromkeys([*self.tolerance_mm, *self.levels, *self.dose])
        return [name for name in named if name != EVERYWHERE]

    def record(self) -> dict[str, Any]:
        return {
            name: value if isinstance(value, float) else dict(value) for name, value in vars(self).items()
        }


def read_limits(path: Path | None) -> Limits:
    """Limits of a JSON file: {"cases_within": 0.9, "*": {"dsc": 0.7}, "SpinalCord": {"tolerance_mm": 1,
    "surface_dsc": 0.9, "hd95_mm": 5, "dose": {"D2%": 2}}}. None: no level, tolerance 2 mm.

    InputError for another file, an unknown key and a value that is no number of 0 or more.
    """
    if path is None:
        return Limits()
    try:
        table = load_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(table, dict) or not all(
        isinstance(row, dict) for key, row in table.items() if key != "cases_within"
    ):
        raise InputError(f'{path}: expected {{"STRUCTURE": {{"dsc": 0.8, …}}, …}}, "*" for all others.')
    within = _number(path, "cases_within", table.pop("cases_within", CASES_WITHIN))
    if not 0 < within <= 1:
        raise InputError(f"{path}: cases_within {within:g}; expected a share above 0, at most 1.")
    tolerances, levels, dose = {}, {}, {}
    for structure, row in table.items():
        for key, value in row.items():
            where = f"{structure}: {key}"
            if key == "dose" and isinstance(value, dict):
                for name in value:
                    check_name(name)
                dose[structure] = {name: _number(path, where, level) for name, level in value.items()}
            elif key == "tolerance_mm":
                tolerances[structure] = _number(path, where, value)
            elif key in (*AT_LEAST, *AT_MOST):
                levels.setdefault(structure, {})[key] = _number(path, where, value)
            else:
                known = ", ".join(("tolerance_mm", *AT_LEAST, *AT_MOST, "dose"))
                raise InputError(f"{path}: {where}: expected one of {known}.")
    return Limits(tolerances, levels, dose, within)


def _number(path: Path, where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"{path}: {where} is {value!r}; expected a number of 0 or more.")
    return float(value)


def unit(name: str) -> str:
    """Of a number of the report."""
    return UNITS[name] if name in UNITS else unit_of(name)
