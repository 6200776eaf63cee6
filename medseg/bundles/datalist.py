"""Check a MONAI datalist before a training touches it: files that exist, and no patient on both sides of a
split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from medseg.errors import InputError
from medseg.files import load_json

SECTIONS = ("training", "validation")
FILE_KEYS = ("image", "label")


def check_datalist(datalist: str | Path, dataset_dir: str | Path) -> None:
    """Raise InputError unless every case of the list has an image and a label below ``dataset_dir``, in one
    section only.

    ``datalist``: JSON with the lists ``training`` and ``validation`` of ``{"image", "label", "case_id"}``;
    the label of a whole image is a number, that of findings a list of boxes. A patient is told by
    ``patient_id`` where a case has one, else by ``case_id``.
    """
    try:
        content = load_json(datalist)
    except (OSError, ValueError) as error:
        raise InputError(f"{datalist}: not a readable JSON datalist ({error}).") from error
    sections = {name: content.get(name) for name in SECTIONS} if isinstance(content, dict) else {}
    for name in SECTIONS:
        cases = sections.get(name)
        if not isinstance(cases, list) or not cases or not all(isinstance(case, dict) for case in cases):
            raise InputError(f"{datalist}: no list of cases {name!r}; expected {', '.join(SECTIONS)}.")
        check_cases(cases, name, Path(datalist), Path(dataset_dir))
    patients = [{_patient(case) for case in sections[name]} for name in SECTIONS]
    both = sorted(patients[0] & patients[1])
    if both:
        raise InputError(
            f"{datalist}: {', '.join(both[:5])} in training and validation; keep all of a patient on one "
            f"side."
        )


def check_cases(cases: list[dict], section: str, datalist: Path, dataset_dir: Path) -> None:
    """Raise InputError unless every case of a section has a name, and an image and a label that are there."""
    for number, case in enumerate(cases):
        lacking = [
            key
            for key in (*FILE_KEYS, "case_id")
            if not isinstance(case.get(key), str) and not (key == "label" and _is_no_file(case.get(key)))
        ]
        if lacking:
            raise InputError(
                f"{datalist}: case {number} of {section} has no text under {', '.join(lacking)}."
            )
    names = Counter(case["case_id"] for case in cases)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise InputError(
            f"{datalist}: two cases of {section} are called {twice[0]!r}; give each its own case_id."
        )
    files = [case[key] for case in cases for key in FILE_KEYS if isinstance(case[key], str)]
    missing = [file for file in files if not _exists(dataset_dir / file)]
    if missing:
        raise InputError(
            f"{dataset_dir}: {len(missing)} files of {datalist.name} are not there, the first {missing[0]}; "
            "the paths of a datalist start from the data folder."
        )


def _is_no_file(label: object) -> bool:
    """A class's number, or a list of boxes."""
    return isinstance(label, int | float | list) and not isinstance(label, bool)


def _exists(path: Path) -> bool:
    """True for a file or folder, and for FOLDER#SeriesInstanceUID, one series of a folder
    (medseg.cases.volume)."""
    return path.exists() or Path(str(path).rpartition("#")[0] or path).exists()


def _patient(case: dict) -> str:
    return str(case.get("patient_id", case["case_id"]))
