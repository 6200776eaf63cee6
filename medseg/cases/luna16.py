"""LUNA16 as it is published: ten subsets of CTs, and tables of nodules, candidates and excluded findings.

Setio et al., Med Image Anal 42:1-13, 2017: 888 CTs of LIDC-IDRI with slices of 2.5 mm or less; a nodule is
what 3 or 4 readers marked and measures 3 mm or more; what fewer marked, smaller nodules and what readers
called no nodule are excluded findings, which count neither way. Places are LPS mm, as DICOM's.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import InputError

SUBSETS = tuple(range(10))
SERIES, SERIES_OF_A_SUBSET = 888, (88, 89)
"""So many CTs in all, and the least and most in one."""

NODULES = 1186
"""Rows of annotations.csv."""

UNKNOWN_DIAMETER_MM = 10.0
"""Taken for a negative diameter of an excluded finding, as LUNA16's evaluation script does."""

WHERE = (
    "subset0.zip to subset9.zip and CSVFILES/annotations.csv from https://zenodo.org/records/3723295 and "
    "https://zenodo.org/records/4121926 (LUNA16, CC BY 4.0); annotations_excluded.csv lies in "
    "evaluationScript.zip"
)


@dataclass(frozen=True)
class Ball:
    """A finding: ``centre_lps_mm`` and ``diameter_mm``."""

    series_uid: str
    centre_lps_mm: tuple[float, float, float]
    diameter_mm: float

    def box(self, name: str = "nodule") -> dict[str, Any]:
        """``{"class", "low", "high"}`` of the cube around it, as a datalist has it."""
        half = self.diameter_mm / 2
        low, high = ([round(mm + way * half, 3) for mm in self.centre_lps_mm] for way in (-1, 1))
        return {"class": name, "low": low, "high": high}


@dataclass(frozen=True)
class Candidate:
    """A place that a detector proposed: ``is_nodule`` says whether it lies in one."""

    series_uid: str
    centre_lps_mm: tuple[float, float, float]
    is_nodule: bool


def read_annotations(path: str | Path) -> list[Ball]:
    """annotations.csv: the nodules. InputError, with the line, for a missing column and a number that is
    none or a diameter that is not positive."""
    found = [Ball(uid, place, float(row["diameter_mm"])) for uid, place, row in _rows(path, ("diameter_mm",))]
    for ball in found:
        if not ball.diameter_mm > 0:
            raise InputError(
                f"{path}: a nodule of {ball.diameter_mm:g} mm in {ball.series_uid}; is it "
                "annotations_excluded.csv?"
            )
    return found


def read_excluded(path: str | Path) -> list[Ball]:
    """annotations_excluded.csv: what counts neither way; an unknown diameter becomes
    UNKNOWN_DIAMETER_MM."""
    rows = _rows(path, ("diameter_mm",))
    sizes = [float(row["diameter_mm"]) for _, _, row in rows]
    return [
        Ball(uid, place, size if size > 0 else UNKNOWN_DIAMETER_MM)
        for (uid, place, _), size in zip(rows, sizes, strict=True)
    ]


def read_candidates(path: str | Path) -> list[Candidate]:
    """candidates.csv or candidates_V2.csv. InputError for a class that is neither 0 nor 1."""
    found = []
    for uid, place, row in _rows(path, ("class",)):
        if row["class"] not in ("0", "1"):
            raise InputError(f"{path}: class {row['class']!r} in {uid}; expected 0 or 1.")
        found.append(Candidate(uid, place, row["class"] == "1"))
    return found


def _rows(
    path: str | Path, more: Sequence[str]
) -> list[tuple[str, tuple[float, float, float], dict[str, str]]]:
    """[(SeriesInstanceUID, LPS mm, row)]"""
    path, places = Path(path), ("coordX", "coordY", "coordZ")
    if not path.is_file():
        raise InputError(f"{path}: no such file; get {WHERE}.")
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    lacking = [name for name in ("seriesuid", *places, *more) if name not in (rows[0] if rows else ())]
    if lacking:
        raise InputError(f"{path}: no row with the column {lacking[0]!r}; expected LUNA16's table.")
    found = []
    for number, row in enumerate(rows, 2):
        try:
            x, y, z = (float(row[name]) for name in places)
            for name in more:
                float(row[name])
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        found.append((row["seriesuid"], (x, y, z), row))
    return found


def find_subsets(folder: str | Path, wanted: Iterable[int] = SUBSETS) -> dict[int, dict[str, Path]]:
    """{subset: {SeriesInstanceUID: .mhd file}} of ``folder``/subset0 ..., in which the zip may have made a
    folder of the same name. InputError where one is missing, a CT is without its raw file, the number of CTs
    is not the published one, or a CT lies in two."""
    folder, found = Path(folder), {}
    for number in wanted:
        name = f"subset{number}"
        place = next((p for p in (folder / name / name, folder / name) if p.is_dir()), None)
        if place is None:
            raise InputError(f"{folder}: no {name}; get {WHERE}, or name the subsets that are there.")
        files = {path.stem: path for path in sorted(place.glob("*.mhd"))}
        bare = [uid for uid, path in files.items() if not path.with_suffix(".raw").is_file()]
        if bare:
            raise InputError(
                f"{place}: {len(bare)} of {len(files)} CTs without their .raw, such as {bare[0]}; unpack "
                f"{name}.zip again."
            )
        least, most = SERIES_OF_A_SUBSET
        if not least <= len(files) <= most:
            raise InputError(
                f"{place}: {len(files)} CTs, {least} or {most} expected; unpack {name}.zip again."
            )
        twice = [uid for uid in files if any(uid in others for others in found.values())]
        if twice:
            raise InputError(f"{place}: {twice[0]} lies in another subset too.")
        found[number] = files
    count = sum(map(len, found.values()))
    if set(found) == set(SUBSETS) and count != SERIES:
        raise InputError(f"{folder}: {count} CTs in the ten subsets, {SERIES} expected; unpack them again.")
    return found
