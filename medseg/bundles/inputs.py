"""The cases under a path, less what medseg itself wrote there. Loads no network."""

from __future__ import annotations

from pathlib import Path

from medseg.bundles.record import is_result
from medseg.cases.find import find_cases


def case_items(path: str | Path, modality: str | None = None) -> list[dict[str, str]]:
    """:func:`medseg.cases.find.find_cases`, less what medseg wrote, as MONAI data items ``{"image": source,
    "case_name": name}``, for a bundle's ``dataset``."""
    return [{"image": source, "case_name": name} for name, source in find_cases(path, modality, is_result)[0]]
