"""The cases under a path, less what medseg itself wrote there. Loads no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundles.record import is_result
from medseg.cases.find import find_cases
from medseg.cases.patients import Wanted, find_patients
from medseg.errors import InputError


def patient_items(
    path: str | Path, modalities: Mapping[str, str], optional: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """:func:`medseg.cases.patients.find_patients`, less what medseg wrote, as MONAI data items ``{"image":
    source, "pt": source, …, "registrations": [file, …], "case_name": name}``, for the ``dataset`` of a bundle
    that takes several series. InputError for the first patient whose series do not fit."""
    items = []
    for files in find_patients(path, Wanted(modalities, optional), is_result)[0]:
        if files.refusal:
            raise InputError(f"{files.name}: {files.refusal}")
        items.append(files.item())
    return items


def case_items(path: str | Path, modality: str | None = None) -> list[dict[str, str]]:
    """:func:`medseg.cases.find.find_cases`, less what medseg wrote, as MONAI data items ``{"image": source,
    "case_name": name}``, for a bundle's ``dataset``."""
    return [{"image": source, "case_name": name} for name, source in find_cases(path, modality, is_result)[0]]
