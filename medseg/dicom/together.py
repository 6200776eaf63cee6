"""Which series of a folder belong together: the same patient, and one Frame of Reference or a registration
object (REG) between two. Nothing is taken for near because it looks near."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.images.header import SLICE_CLASSES, read_header
from medseg.dicom.images.scan import FileNote, Found, SeriesFiles
from medseg.dicom.patient import differing_field, patient_of
from medseg.dicom.registration import Registration, find_matrix, read_registration
from medseg.errors import InputError

SAME_FRAME = "shared Frame of Reference"


@dataclass(frozen=True, eq=False)
class LostSeries:
    """A series of which no file can be read, as the header of the first one still tells of it."""

    series_uid: str
    modality: str
    frame_uid: str
    notes: list[FileNote]

    def __str__(self) -> str:
        many = f"{len(self.notes)} files" if len(self.notes) > 1 else "1 file"
        first = self.notes[0]
        return f"{self.series_uid} ({self.modality}, {many}, e.g. {first.path.name}: {first.why})"


@dataclass(frozen=True, eq=False)
class PatientSeries:
    """What a folder holds of one patient: ``series`` that are no localizers, ``registrations`` that can be
    read, and why others cannot (``unread``), and series of which nothing can be read (``lost``)."""

    patient: Mapping[str, str] = field(repr=False)
    series: list[SeriesFiles] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)
    unread: list[FileNote] = field(default_factory=list)
    lost: list[LostSeries] = field(default_factory=list)

    def link(self, files: SeriesFiles, reference: SeriesFiles) -> str:
        """Through what a series lies in the frame of another one: SAME_FRAME, or the name of a REG file.

        InputError when nothing says it, or two objects say different things.
        """
        own, wanted = _named_frame(files), _named_frame(reference)
        if own == wanted:
            return SAME_FRAME
        try:
            _, registration = find_matrix(self.registrations, own, wanted, ends_lps_mm(files))
        except InputError as error:
            also = "".join(f" Not read: {note.path.name}: {note.why}" for note in self.unread[:3])
            raise InputError(f"series {files}: {error}{also}") from error
        return registration.path.name

    def links(self, files: SeriesFiles, reference: SeriesFiles) -> str:
        """What :meth:`link` gives, "" where it refuses."""
        try:
            return self.link(files, reference)
        except InputError:
            return ""


def patients_in(found: Found, registrations: Sequence[Path] | None = None) -> list[PatientSeries]:
    """The series and registration objects of a scan by patient, in the order they were found; those of whom
    no series can be read are left out.

    ``registrations``: REG files to go by instead of those of the scan. People who share a PatientID, or have
    none, stay apart where name, birth date or sex differ. A registration object that cannot be read, or is
    of somebody of whom there is no series, is ``unread`` for every patient.
    """
    patients: list[PatientSeries] = []
    notes: list[FileNote] = []
    for files in found.series.values():
        if not files.is_localizer:
            _of(patients, patient_of(files.records[0].dataset)).series.append(files)
    for path in found.registrations if registrations is None else registrations:
        try:
            registration = read_registration(path)
        except (InputError, *PARSE_ERRORS) as error:
            why = " ".join(str(error).removeprefix(f"{path}: ").split())
            notes.append(FileNote(path, why))
            continue
        owner = _of(patients, registration.patient)
        owner.registrations.append(registration)
        if not owner.series:
            notes.append(FileNote(path, "a registration object of another patient"))
    patients = [patient for patient in patients if patient.series]
    for patient in patients:
        patient.unread.extend(notes)
    for person, lost in _lost_series(found):
        for patient in patients:
            if _is(patient, person):
                patient.lost.append(lost)
    return patients


def lost_files(found: Found, patients: Sequence[PatientSeries]) -> list[FileNote]:
    """Files that cannot be read, of which nothing says whose they are or what: they may be of any series that
    is not there."""
    told = {note.path for patient in patients for lost in patient.lost for note in lost.notes}
    return [note for note in found.broken if note.path not in told and note.series_uid not in found.series]


def _lost_series(found: Found) -> Iterator[tuple[Mapping[str, str], LostSeries]]:
    """(whose it is, a series of slices of which no file can be read), where its header still says both."""
    by_uid: dict[str, list[FileNote]] = {}
    for note in found.broken:
        if note.series_uid and note.series_uid not in found.series:
            by_uid.setdefault(note.series_uid, []).append(note)
    for uid, notes in by_uid.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = read_header(notes[0].path)[0] or Dataset()
                person = patient_of(header)
                sop_class, frame = (str(header.get(k, "")) for k in ("SOPClassUID", "FrameOfReferenceUID"))
                is_localizer = "LOCALIZER" in str(header.get("ImageType", ""))
        except (InputError, *PARSE_ERRORS):
            continue
        if sop_class in SLICE_CLASSES and not is_localizer:
            yield person, LostSeries(uid, SLICE_CLASSES[sop_class], frame, notes)


def _of(patients: list[PatientSeries], patient: Mapping[str, str]) -> PatientSeries:
    """The entry of a patient, made where there is none."""
    for entry in patients:
        if _is(entry, patient):
            return entry
    patients.append(PatientSeries(patient))
    return patients[-1]


def _is(entry: PatientSeries, patient: Mapping[str, str]) -> bool:
    same_id = entry.patient["PatientID"].casefold() == patient["PatientID"].casefold()
    return same_id and differing_field(entry.patient, patient) is None


def frame_of(files: SeriesFiles) -> str | None:
    """Frame of Reference UID of the first slice, None where it has none."""
    try:
        return str(files.records[0].dataset.get("FrameOfReferenceUID") or "") or None
    except PARSE_ERRORS:
        return None


def _named_frame(files: SeriesFiles) -> str:
    uid = frame_of(files)
    if uid is None:
        raise InputError(
            f"series {files} has no FrameOfReferenceUID, so where it lies to others is not known."
        )
    return uid


def ends_lps_mm(files: SeriesFiles) -> np.ndarray:
    """float64 (n, 3): corners of every slice of a series that nothing has checked yet."""
    corners = []
    for record in files.records:
        rows, columns = record.matrix
        across = record.orientation[:3] * record.spacing_mm[1] * (columns - 1)
        down = record.orientation[3:] * record.spacing_mm[0] * (rows - 1)
        corners += [record.position_lps_mm + a * across + b * down for a in (0, 1) for b in (0, 1)]
    return np.array(corners)


@dataclass(frozen=True)
class Group:
    """Series of one patient that lie to one another: ``first``, a CT where there is one, and ``others`` with
    what links each with it (see :meth:`PatientSeries.link`)."""

    first: SeriesFiles
    others: tuple[tuple[SeriesFiles, str], ...] = ()


def groups(patient: PatientSeries) -> list[Group]:
    """The series of a patient by what they lie to; every series is in one group, alone where nothing links
    it."""
    left = sorted(patient.series, key=lambda files: (files.modality != "CT", -len(files.records)))
    found = []
    while left:
        first, *rest = left
        links = [(files, patient.links(files, first)) for files in rest]
        found.append(Group(first, tuple((files, through) for files, through in links if through)))
        left = [files for files, through in links if not through]
    return found
