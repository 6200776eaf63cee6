"""What the file of an RT Structure Set says, before it is placed on images."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medseg.dicom.charset import unstated_text
from medseg.dicom.damage import PARSE_ERRORS, damage_as_input_error
from medseg.dicom.images.header import RTSTRUCT_CLASS_UID
from medseg.dicom.nesting import check_nesting
from medseg.dicom.opening import read_dicom
from medseg.dicom.patient import PATIENT_FIELDS, patient_of
from medseg.dicom.rtstruct.encode import Contour, parse_points_lps_mm
from medseg.dicom.rtstruct.raw_items import raw_items
from medseg.errors import InputError, StructureError, unusable
from medseg.structures.structure import GENERATION_ALGORITHMS, INTERPRETED_TYPES, Structure, stored_name

CONTOUR_IMAGE_SEQUENCE, CONTOUR_SEQUENCE = 0x30060016, 0x30060040
CONTOUR_GEOMETRIC_TYPE, NUMBER_OF_CONTOUR_POINTS, CONTOUR_DATA = 0x30060042, 0x30060046, 0x30060050
REFERENCED_SOP_INSTANCE_UID = 0x00081155
CHECKED_SEQUENCES = (0x30060020, 0x30060039, 0x30060080)
"""StructureSetROISequence, ROIContourSequence, RTROIObservationsSequence: what a wrong length would lose."""


@dataclass(frozen=True, eq=False)
class Roi:
    """One region of interest. ``raw_type`` is the type as stored, which may be none of DICOM's terms.

    ``damage``: why its contours cannot be trusted, so that it has none here; "" for a sound one.
    """

    structure: Structure
    contours: tuple[Contour, ...]
    raw_type: str
    frame_of_reference_uid: str
    damage: str = ""

    @property
    def is_points_only(self) -> bool:
        """True for markers and isocentres: something is stored, but nothing that bounds an area."""
        return bool(self.contours) and not any(contour.bounds_an_area for contour in self.contours)


@dataclass(frozen=True, eq=False)
class StructureSet:
    """A structure set as its file has it. ``notices``: sentences about what was odd but could be read.

    ``date_time``: digits YYYYMMDDHHMMSS of the Structure Set Date and Time, as far as they are there; ""
    without a date.
    """

    path: Path
    label: str
    approval_status: str
    patient_id: str = field(repr=False)
    patient_name: str = field(repr=False)
    study_instance_uid: str
    sop_instance_uid: str
    frame_of_reference_uids: tuple[str, ...]
    rois: tuple[Roi, ...]
    notices: tuple[str, ...]
    referenced_series_uids: tuple[str, ...] = ()
    date_time: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""

    @property
    def patient(self) -> dict[str, str]:
        """What tells the patient apart, see :mod:`medseg.dicom.patient`."""
        values = (self.patient_id, self.patient_name, self.patient_birth_date, self.patient_sex)
        return dict(zip(PATIENT_FIELDS, values, strict=True))


def read_structure_set(path: str | Path) -> StructureSet:
    """Read an RT Structure Set without placing it on images; structures are linked by their number.

    An ROI without contours is kept, empty, and so is one whose contours are damaged: its ``damage`` says how.
    Raises InputError for a file that is missing, is no RT Structure Set, holds no ROI at all or items that do
    not end where they say, and StructureError when two ROIs share a number.
    """
    with damage_as_input_error(path):
        return _parse(Path(path))


def _parse(path: Path) -> StructureSet:
    dataset = open_structure_set(path)
    notices: list[str] = []
    types = {
        int(row.ReferencedROINumber): str(row.get("RTROIInterpretedType") or "")
        for row in dataset.get("RTROIObservationsSequence") or []
        if row.get("ReferencedROINumber") is not None
    }
    contour_rows: dict[int, list[Dataset]] = {}
    for row in dataset.get("ROIContourSequence") or []:
        contour_rows.setdefault(int(row.ReferencedROINumber), []).append(row)
    rois = []
    names = _names(dataset, notices)
    for row in dataset.StructureSetROISequence:
        number = int(row.ROINumber)
        name = names[number]
        raw_type = types.get(number, "")
        known_type = raw_type if raw_type in INTERPRETED_TYPES else ""
        own = contour_rows.pop(number, [])
        contours, damage = _contours(own, f"ROI {name!r}", notices)
        rois.append(
            Roi(
                Structure(
                    name,
                    number if number > 0 else None,
                    _colour_rgb(own[0]) if own else None,
                    known_type,
                    generation_algorithm=_drawn_by(row),
                ),
                contours,
                raw_type,
                str(row.get("ReferencedFrameOfReferenceUID") or ""),
                damage,
            )
        )
    patient = patient_of(dataset)
    for number in contour_rows:
        notices.append(f"contours of ROI number {number}, which the file does not name, were ignored.")
    return StructureSet(
        path,
        str(dataset.get("StructureSetLabel") or ""),
        str(dataset.get("ApprovalStatus") or ""),
        patient["PatientID"],
        patient["PatientName"],
        str(dataset.get("StudyInstanceUID") or ""),
        str(dataset.get("SOPInstanceUID") or ""),
        frame_of_reference_uids(dataset),
        tuple(rois),
        tuple(notices),
        _referenced_series_uids(dataset),
        f"{dataset.StructureSetDate}{dataset.get('StructureSetTime') or ''}"[:14]
        if dataset.get("StructureSetDate")
        else "",
        patient["PatientBirthDate"],
        patient["PatientSex"],
    )


def open_structure_set(path: Path) -> Dataset:
    """The file's dataset, checked to be an RT Structure Set with at least one ROI and unique ROI numbers."""
    if not path.is_file():
        raise unusable(path, "an RT Structure Set")
    with warnings.catch_warnings(), damage_as_input_error(path):
        warnings.simplefilter("ignore")
        dataset = read_dicom(path)
        is_structure_set = str(dataset.get("SOPClassUID", "")) == RTSTRUCT_CLASS_UID
        modality = str(dataset.get("Modality", ""))
        rows = dataset.get("StructureSetROISequence") or []
        numbers = Counter(int(row.ROINumber) for row in rows)
    if not is_structure_set:
        kind = f"a DICOM file of modality {modality}" if modality else "no DICOM file that could be read"
        raise InputError(f"{path}: is {kind}; expected an RT Structure Set.")
    if not numbers:
        raise InputError(
            f"{path}: holds no ROI at all, so the file is damaged (text-mode transfer?); export it again."
        )
    try:
        check_nesting(path, dataset, CHECKED_SEQUENCES)
    except InputError as error:
        raise InputError(f"{path}: damaged DICOM ({error}); export it again.") from error
    repeated = [str(number) for number, count in numbers.items() if count > 1]
    if repeated:
        raise StructureError(
            f"{path}: ROI number {', '.join(repeated)} is used twice; the contours cannot be told apart."
        )
    return dataset


def frame_of_reference_uids(dataset: Dataset) -> tuple[str, ...]:
    """Every Frame of Reference that a structure set names, without repeats, in the order found."""
    uids = [dataset.get("FrameOfReferenceUID")]
    uids += [
        row.get("FrameOfReferenceUID") for row in dataset.get("ReferencedFrameOfReferenceSequence") or []
    ]
    uids += [row.get("ReferencedFrameOfReferenceUID") for row in dataset.get("StructureSetROISequence") or []]
    return tuple(dict.fromkeys(str(uid) for uid in uids if uid))


def _referenced_series_uids(dataset: Dataset) -> tuple[str, ...]:
    """SeriesInstanceUIDs that a structure set says it was drawn on, in the order found."""
    uids = [
        str(series.get("SeriesInstanceUID") or "")
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
    ]
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def _names(dataset: Dataset, notices: list[str]) -> dict[int, str]:
    """{ROI number: name, of as DICOM and Structure want them, see stored_name}.

    Names that are made equal by that, though they differ in the file, get their numbers: "NAME (number 3)".
    """
    stored = {int(row.ROINumber): _stored_name(row, dataset) for row in dataset.StructureSetROISequence}
    names = {}
    for number, name in stored.items():
        names[number] = stored_name(name) or f"ROI {number}"
        if not name:
            notices.append(f"ROI number {number} has no name; it is called {names[number]!r} here.")
        elif len(name) > 64:
            notices.append(f"ROI number {number}: its name has {len(name)} characters and is cut to 64.")
    made = dict(names)
    for number, name in made.items():
        alike = {stored[other] for other, its in made.items() if its == name}
        if len(alike) > 1 and stored[number] != name:
            suffix = f" (number {number})"
            names[number] = name[: 64 - len(suffix)] + suffix
            notices.append(
                f"ROI number {number} is called {names[number]!r} here, since another is {name!r}."
            )
    return names


def _stored_name(row: Dataset, dataset: Dataset) -> str:
    """An ROI's name as the file has it, though DICOM takes a backslash for a separator of values.

    Without a character set only ASCII is allowed (PS3.3 C.12.1.1.2), see unstated_text.
    """
    value = row.get("ROIName") or ""
    name = "\\".join(value) if isinstance(value, MultiValue) else str(value)
    if not dataset.get("SpecificCharacterSet"):
        name = unstated_text(name)
    return name.strip()


def _drawn_by(row: Dataset) -> str:
    said = str(row.get("ROIGenerationAlgorithm") or "")
    return said if said in GENERATION_ALGORITHMS else ""


def _colour_rgb(row: Dataset) -> tuple[int, int, int] | None:
    colour = row.get("ROIDisplayColor")
    if colour is None or len(colour) != 3 or not all(0 <= int(part) <= 255 for part in colour):
        return None
    return int(colour[0]), int(colour[1]), int(colour[2])


def _contours(rows: list[Dataset], where: str, notices: list[str]) -> tuple[tuple[Contour, ...], str]:
    """(contours, "") of one ROI from its items of the ROIContourSequence, or ((), what is damaged)."""
    if len(rows) > 1:
        return (), f"it has {len(rows)} sets of contours where one is expected"
    try:
        read = list(_read_contours(rows[0])) if rows else []
    except PARSE_ERRORS as error:
        return (), " ".join(str(error).split())[:160] or type(error).__name__
    found = tuple(contour for contour in read if len(contour.points_lps_mm))
    if len(found) < len(read):
        notices.append(f"{where}: {len(read) - len(found)} contours without points were ignored.")
    return found, ""


def _read_contours(row: Dataset) -> Iterator[Contour]:
    """The contours of an item of the ROIContourSequence, also those without points."""
    raw = raw_items(row.get_item(CONTOUR_SEQUENCE), CONTOUR_IMAGE_SEQUENCE)
    if raw is None:
        for item in row.get("ContourSequence") or []:
            data, number = (_stored(item, tag) for tag in (CONTOUR_DATA, NUMBER_OF_CONTOUR_POINTS))
            images = item.get("ContourImageSequence") or []
            uids = tuple(str(image.get("ReferencedSOPInstanceUID") or "") for image in images)
            kind = str(item.get("ContourGeometricType") or "CLOSED_PLANAR").strip()
            yield Contour(kind, _points_lps_mm(data, number), uids)
        return
    for item, images in raw:
        points = _points_lps_mm(item.get(CONTOUR_DATA, b""), item.get(NUMBER_OF_CONTOUR_POINTS, b""))
        uids = tuple(_text(image.get(REFERENCED_SOP_INSTANCE_UID, b"")) for image in images)
        yield Contour(_text(item.get(CONTOUR_GEOMETRIC_TYPE, b"")) or "CLOSED_PLANAR", points, uids)


def _text(value: bytes) -> str:
    return value.decode("ascii").strip(" \0")


def _stored(item: Dataset, tag: int) -> bytes:
    """The value of an element as its file has it, b"" for none."""
    element = item.get_item(tag)
    value = None if element is None else element.value
    if value is None or isinstance(value, bytes):
        return value or b""
    return "\\".join(map(str, np.atleast_1d(value))).encode()


def _points_lps_mm(data: bytes, number: bytes) -> np.ndarray:
    """Points (n, 3) of one contour; ValueError when they are not triples of numbers, as many as the item
    says."""
    try:
        points = parse_points_lps_mm(data)
    except ValueError as error:
        raise ValueError(f"contour data are not triples of numbers ({error})") from error
    if number:
        _check_number(int(number.decode("ascii")), points)
    return points


def _check_number(said: int, points: np.ndarray) -> None:
    """ValueError unless NumberOfContourPoints is that of the points; a closing point need not be counted."""
    is_closed = len(points) > 1 and np.array_equal(points[0], points[-1])
    if said != len(points) and not (is_closed and said == len(points) - 1):
        raise ValueError(f"a contour holds {len(points)} points and says NumberOfContourPoints {said}")
