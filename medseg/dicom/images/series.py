"""One series as a stack of slices whose geometry has been checked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medseg.dicom.images.checks import ALLOWABLE, check_series
from medseg.dicom.images.pixels import read_slices
from medseg.dicom.images.scan import FileNote, Found, SeriesFiles, SliceRecord, find_series
from medseg.errors import InputError
from medseg.geometry import Geometry


@dataclass(frozen=True, eq=False, repr=False)
class Series:
    """A stack of slices in the order of ``geometry``.

    ``headers``: one data set per slice without pixels (the frames of a multi-frame file share one).
    ``files``: one path per slice. ``frame_numbers``: None for a single-frame file, else the frame's number
    from 1. ``warnings``: what was accepted and what the caller should know, one line each.
    """

    geometry: Geometry
    records: tuple[SliceRecord, ...]
    modality: str
    series_instance_uid: str
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """One line for a notebook, without names and the headers that hold them."""
        slices, rows, columns = self.geometry.shape
        return f"Series({self.modality}, {slices} slices of {rows} x {columns}, {self.series_instance_uid})"

    @property
    def headers(self) -> tuple[Dataset, ...]:
        return tuple(record.dataset for record in self.records)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(record.path for record in self.records)

    @property
    def frame_numbers(self) -> tuple[int | None, ...]:
        return tuple(record.frame for record in self.records)

    @property
    def study_instance_uid(self) -> str:
        return str(self.records[0].dataset.get("StudyInstanceUID", ""))

    @property
    def description(self) -> str:
        return str(self.records[0].dataset.get("SeriesDescription", ""))

    @property
    def sop_class_uids(self) -> tuple[str, ...]:
        return tuple(str(record.dataset.SOPClassUID) for record in self.records)

    @property
    def sop_instance_uids(self) -> tuple[str, ...]:
        return tuple(str(record.dataset.SOPInstanceUID) for record in self.records)

    def volume(self) -> np.ndarray:
        """float32 [slice, row, column]: values after each slice's own rescale (HU for CT).

        Pixels are decoded here and not kept: call once and hold on to the array. InputError names a file
        whose pixels are cut off or cannot be decoded.
        """
        volume = np.empty(self.geometry.shape, dtype=np.float32)
        for index, values in read_slices(self.records):
            volume[index] = values
        return volume


def read_series(path, *, series_uid: str | None = None, allow: Collection[str] = ()) -> Series:
    """The one image series of a folder (nested), of a file or of a list of files; or the one named
    ``series_uid``.

    ``allow``: names from ALLOWABLE of faults to accept; each then becomes one of the series' ``warnings``.
    Slices are sorted along their normal by their own ImagePositionPatient; InstanceNumber, PatientPosition
    and GantryDetectorTilt are not used. Uneven and sheared stacks are read, each slice at its own position.
    Raises InputError, in one line, when there is no series, more than one, or one that has a fault not in
    ``allow``.
    """
    unknown = sorted(set(allow) - set(ALLOWABLE))
    if unknown:
        raise InputError(f"allow={unknown[0]!r} is not known; expected names from {', '.join(ALLOWABLE)}.")
    found = find_series(path)
    files = _choose(found, series_uid)
    plan = check_series(files, found, allow)
    refused = [fault for fault in plan.faults if fault.name not in allow]
    if refused:
        more = sorted({fault.name for fault in refused[1:]} - {refused[0].name})
        also = f" Also: {', '.join(more)}." if more else ""
        way_out = f' To accept it, allow "{refused[0].name}".' if refused[0].name in ALLOWABLE else ""
        raise InputError(f"series {files}: {refused[0].message}{way_out}{also}")
    assert plan.geometry is not None, "only a fault that cannot be allowed leaves no geometry"
    notes = [f"accepted {fault.name}: {fault.message}" for fault in plan.faults] + plan.warnings
    scouts = [str(other) for other in found.series.values() if other is not files and other.is_localizer]
    if scouts and series_uid is None:
        notes.append(f"localizer series left aside: {'; '.join(scouts)}.")
    return Series(plan.geometry, tuple(plan.records), files.modality, files.series_uid, tuple(notes))


def _choose(found: Found, series_uid: str | None) -> SeriesFiles:
    """The series asked for, or the only one that is not a localizer."""
    if series_uid is not None:
        if series_uid not in found.series:
            there = "; ".join(str(files) for files in found.series.values()) or "no image series"
            raise InputError(f"{found.root}: no series {series_uid}. There: {there}.")
        return found.series[series_uid]
    candidates = [files for files in found.series.values() if not files.is_localizer] or list(
        found.series.values()
    )
    if not candidates:
        raise InputError(f"{found.root}: no CT, MR or PET series{_why_nothing(found)}.")
    if len(candidates) > 1:
        listed = "; ".join(str(files) for files in candidates[:8]) + ("; …" if len(candidates) > 8 else "")
        raise InputError(
            f"{found.root}: {len(candidates)} series where one is wanted; choose one by its UID: {listed}."
        )
    return candidates[0]


def _why_nothing(found: Found) -> str:
    notes: list[FileNote] = [*found.broken, *found.ignored]
    if not notes:
        return (
            f", only {len(found.structure_sets)} structure sets"
            if found.structure_sets
            else "; there is no file"
        )
    first = f"{notes[0].path.name}: {notes[0].why}"
    if len(notes) == 1:
        return f" ({first})"
    return f" ({len(found.broken)} broken and {len(found.ignored)} other files, e.g. {first})"
