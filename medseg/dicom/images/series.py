"""One series as a stack of slices whose geometry has been checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medseg import limits
from medseg.dicom.images.checks import ALLOWABLE, Fault, check_series
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
        slices, rows, columns = self.geometry.shape
        limits.check("volume_voxels", slices * rows * columns, f"series {self.series_instance_uid}")
        volume = np.empty(self.geometry.shape, dtype=np.float32)
        for index, values in read_slices(self.records):
            volume[index] = values
        return volume


def require_series(value: object) -> None:
    """TypeError, with the way to a Series, for anything else."""
    if not isinstance(value, Series):
        raise TypeError(
            f"{type(value).__name__} where a Series is expected; read_series(folder) makes one of the images"
        )


def read_series(path, *, series_uid: str | None = None, allow: Collection[str] = ()) -> Series:
    """The one image series of a folder (nested), of a file or of a list of files; or the one named
    ``series_uid``.

    ``allow``: names from ALLOWABLE of faults to accept; each then becomes one of the series' ``warnings``.
    Slices are sorted along their normal by their own ImagePositionPatient; InstanceNumber, PatientPosition
    and GantryDetectorTilt are not used. Uneven and sheared stacks are read, each slice at its own position.
    Raises InputError, in one line, when there is no series, more than one, or one that has a fault not in
    ``allow``.
    """
    if isinstance(allow, str):
        raise TypeError(f"allow={allow!r}: expected several names, as in allow=({allow!r},)")
    unknown = sorted(set(allow) - set(ALLOWABLE))
    if unknown:
        raise InputError(f"`allow={unknown[0]}` is not known; expected names from {', '.join(ALLOWABLE)}.")
    found = find_series(path)
    files = _choose(found, series_uid)
    plan = check_series(files, found)
    refused = [fault for fault in plan.faults if fault.name not in allow]
    if refused:
        raise InputError(f"series {files}: {_refusal(refused)}")
    assert plan.geometry is not None, "only a fault that cannot be allowed leaves no geometry"
    notes = [f"accepted {fault.name}: {fault.message}" for fault in plan.faults] + plan.warnings
    scouts = [str(other) for other in found.series.values() if other is not files and other.is_localizer]
    if scouts and series_uid is None:
        notes.append(f"localizer series left aside: {'; '.join(scouts)}.")
    return Series(plan.geometry, tuple(plan.records), files.modality, files.series_uid, tuple(notes))


def _refusal(faults: list[Fault]) -> str:
    """The first fault in full, before all one that cannot be accepted; a way out only where there is one."""
    faults = sorted(faults, key=lambda fault: fault.name in ALLOWABLE)
    names = list(dict.fromkeys(fault.name for fault in faults))
    if all(name in ALLOWABLE for name in names):
        quoted = " and ".join(f"`allow={name}`" for name in names)
        return f"{faults[0].message} To accept it: {quoted}."
    also = f" Also: {', '.join(names[1:])}." if names[1:] else ""
    return f"{faults[0].message}{also}"


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
        raise InputError(f"{found.root}: no CT, MR or PET series{why_nothing(found)}.")
    if len(candidates) > 1:
        listed = "; ".join(str(files) for files in candidates[:8]) + ("; …" if len(candidates) > 8 else "")
        raise InputError(
            f"{found.root}: {len(candidates)} series where one is wanted; choose one by its UID: {listed}."
        )
    return candidates[0]


MOST_KINDS = 5
"""Kinds of files that a message names."""


def why_nothing(found: Found) -> str:
    """What there is instead of slices, for the end of a message."""
    kinds = Counter(map(_kind, found.ignored))
    kinds["RT Structure Set (RTSTRUCT)"] = len(found.structure_sets)
    kinds["registration object (REG)"] = len(found.registrations)
    held = [f"{count} x {kind}" if count > 1 else kind for kind, count in kinds.most_common() if count]
    is_file = Path(found.root).is_file()
    broken = [note.why if is_file else f"{note.path.name}: {note.why}" for note in found.broken]
    if len(broken) > 1:
        broken = [f"{len(broken)} broken or unreadable files, e.g. {broken[0]}"]
    if not held and not broken:
        return "; there is no file"
    holds = "is" if is_file else "holds"
    return f"; it {holds}: {'; '.join([*held[:MOST_KINDS], *(['…'] if held[MOST_KINDS:] else []), *broken])}"


def _kind(note: FileNote) -> str:
    if note.why != "not DICOM":
        return note.why.removesuffix(", not a slice")
    suffix = re.search(r"(\.nii)?\.[^.]+$", note.path.name)
    return f"{suffix.group()} file" if suffix else "file that is not DICOM"
