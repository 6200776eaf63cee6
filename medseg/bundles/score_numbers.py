"""Score the numbers with a unit that a bundle gives beside its labels, such as BMD."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from medseg.errors import InputError
from medseg.metrics.intervals import Interval, interval
from medseg.metrics.numbers import agreement, determination, mean_absolute_error


def number_scores(
    answers: Sequence[Mapping[str, Any]],
    cases: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, Mapping[str, Any]],
    patients: Sequence[str],
    draws: int,
) -> dict[str, dict[str, Interval]]:
    """{"<name>, <unit>": {figure: its 95 % interval over patients}}.

    ``answers``: what labels.json says of each case, under ``labels``; ``numbers``: of the bundle's
    inference.json, {field of the datalist: name, unit …}; ``draws``: of patients, for the intervals. Cases
    without the field are left out, and a number that no case has a truth of. The share of truths within the
    answers' own intervals is told where they have some. InputError for a truth that is no number.
    """
    found = {}
    for field, spec in numbers.items():
        rows = [number for number, case in enumerate(cases) if case.get(field) is not None]
        if not rows:
            continue
        wrong = [cases[row] for row in rows if not isinstance(cases[row][field], int | float)]
        if wrong:
            raise InputError(f"{wrong[0]['case_id']}: {field} is {wrong[0][field]!r}; expected a number.")
        said = np.array([answers[row]["values"][spec["name"]]["value"] for row in rows])
        true = np.array([cases[row][field] for row in rows], float)
        ends = [answers[row].get("intervals", {}).get(spec["name"]) for row in rows]
        figures = _figures(said, true)
        if all(ends):
            low, high = np.array(ends).T
            held = (low <= true) & (true <= high)
            figures["share within its interval"] = lambda n, held=held: float(held[n].mean())
        theirs = [patients[row] for row in rows]
        found[f"{spec['name']}, {spec['unit']}"] = {
            name: interval(figure, theirs, draws=draws) for name, figure in figures.items()
        }
    return found


def _figures(said: np.ndarray, true: np.ndarray) -> dict[str, Callable[[np.ndarray], float]]:
    """{name: the figure of row numbers}."""
    return {
        "mean absolute error": lambda n: mean_absolute_error(said[n], true[n]),
        "bias": lambda n: agreement(said[n], true[n]).bias,
        "lower limit of agreement": lambda n: agreement(said[n], true[n]).low,
        "upper limit of agreement": lambda n: agreement(said[n], true[n]).high,
        "R2": lambda n: determination(said[n], true[n]),
    }
