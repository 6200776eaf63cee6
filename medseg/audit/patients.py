"""The cases of a datalist by patient, by annotator and by fold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputError, why
from medseg.files import load_json


def read_cases(datalist: Path, section: str = "training", kind: str = "structures") -> list[dict]:
    """A section of a MONAI datalist. InputError for an unreadable file, a missing section or a case without
    its keys. ``kind``: of result; the label of a case is a file for "structures", a class's number for
    "labels", a list of boxes for "boxes", and not looked at for "images"."""
    try:
        content = load_json(datalist)
        cases = content[section]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{datalist}: no JSON datalist with a list {section!r} ({why(error)}).") from error
    if not isinstance(cases, list) or not cases or not all(isinstance(case, dict) for case in cases):
        raise InputError(f"{datalist}: {section!r} is no list of cases.")
    for number, case in enumerate(cases):
        label = case.get("label")
        if kind == "labels" and (not isinstance(label, int | float) or isinstance(label, bool)):
            raise InputError(f"{datalist}: case {number} of {section} has no class's number under label.")
        if kind == "boxes" and not (isinstance(label, list) and all(isinstance(b, dict) for b in label)):
            raise InputError(f"{datalist}: case {number} of {section} has no list of boxes under label.")
        texts = ("label", "case_id") if kind == "structures" else ("image", "case_id")
        lacking = [key for key in texts if not isinstance(case.get(key), str)]
        if lacking:
            raise InputError(
                f"{datalist}: case {number} of {section} has no text under {', '.join(lacking)}."
            )
    names = [case["case_id"] for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{datalist}: two cases are called {twice!r}; give each its own case_id.")
    return cases


def patient_of(case: Mapping[str, Any]) -> str:
    """The patient of a datalist's case: ``patient_id`` where it has one, else ``case_id``."""
    return str(case.get("patient_id", case["case_id"]))


def group_of(case: Mapping[str, Any], key: str | None) -> str:
    """The annotator or centre of a case, "" when no key is asked for. InputError for a case without it."""
    if key is None:
        return ""
    if not isinstance(case.get(key), (str, int)):
        raise InputError(
            f"{case['case_id']}: no {key!r} in the datalist; every case needs one for `group={key}`."
        )
    return str(case[key])


def patient_folds(cases: Sequence[Mapping[str, Any]], folds: int, seed: int = 0) -> list[int]:
    """The fold of each case, 0 to folds - 1: patients are drawn by the seed, and all cases of one stay
    together.

    Patients with many cases are dealt first, each to the fold that has fewest, so folds are even to the
    largest patient. InputError for fewer than two folds and for more folds than patients.
    """
    cases_of: dict[str, list[int]] = defaultdict(list)
    for number, case in enumerate(cases):
        cases_of[patient_of(case)].append(number)
    if not 2 <= folds <= len(cases_of):
        raise InputError(
            f"{folds} folds of {len(cases_of)} patients: expected at least 2 folds and a patient for each."
        )
    patients = sorted(cases_of)
    np.random.default_rng([seed, 1299709]).shuffle(patients)
    patients.sort(key=lambda patient: -len(cases_of[patient]))
    sizes, fold_of = [0] * folds, [0] * len(cases)
    for patient in patients:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(cases_of[patient])
        for number in cases_of[patient]:
            fold_of[number] = fold
    return fold_of
