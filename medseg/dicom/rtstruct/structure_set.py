"""What the file of an RT Structure Set says, before it is placed on images."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.images.header import RTSTRUCT_CLASS_UID
from medseg.dicom.rtstruct.encode import Contour, parse_points_lps_mm
from medseg.errors import InputError, StructureError
from medseg.structures.structure import GENERATION_ALGORITHMS, INTERPRETED_TYPES, Structure

if TYPE_CHECKING:
    pass

CONTOUR_DATA = 0x30060050


@dataclass(frozen=True, eq=False)
class Roi:
    """One region of interest. ``raw_type`` is the type as stored, which may be none of DICOM's terms."""

    structure: Structure
    contours: tuple[Contour, ...]
    raw_type: str
    frame_of_reference_uid: str

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


def read_structure_set(path: str | Path) -> StructureSet:
    """Read an RT Structure Set without placing it on images; structures are linked by their number.

    An ROI without contours is kept, empty. Raises InputError for a file that is missing, is no RT Structure
    Set, holds no ROI at all or coordinates that are not numbers, and StructureError when two ROIs share a
    number.
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
    contour_rows: dict[int, Dataset] = {}
    for row in dataset.get("ROIContourSequence") or []:
        number = int(row.ReferencedROINumber)
        if number in contour_rows:
            raise StructureError(
                f"{path}: ROI number {number} has two sets of contours; the file is damaged."
            )
        contour_rows[number] = row
    rois = []
    for row in dataset.StructureSetROISequence:
        number = int(row.ROINumber)
        name = _name(row, dataset)
        if not name:
            name = f"ROI {number}"
            notices.append(f"ROI number {number} has no name; it is called {name!r} here.")
        raw_type = types.get(number, "")
        known_type = raw_type if raw_type in INTERPRETED_TYPES else ""
        contour_row = contour_rows.pop(number, None)
        colour = _colour_rgb(contour_row)
        rois.append(
            Roi(
                Structure(
                    name,
                    number if number > 0 else None,
                    colour,
                    known_type,
                    generation_algorithm=_drawn_by(row),
                ),
                tuple(_contours(contour_row, f"{path}: ROI {name!r}", notices)),
                raw_type,
                str(row.get("ReferencedFrameOfReferenceUID") or ""),
            )
        )
    for number in contour_rows:
        notices.append(f"contours of ROI number {number}, which the file does not name, were ignored.")
    return StructureSet(
        path,
        str(dataset.get("StructureSetLabel") or ""),
        str(dataset.get("ApprovalStatus") or ""),
        str(dataset.get("PatientID") or "").strip(),
        str(dataset.get("PatientName") or "").strip(),
        str(dataset.get("StudyInstanceUID") or ""),
        str(dataset.get("SOPInstanceUID") or ""),
        frame_of_reference_uids(dataset),
        tuple(rois),
        tuple(notices),
        _referenced_series_uids(dataset),
        f"{dataset.StructureSetDate}{dataset.get('StructureSetTime') or ''}"[:14]
        if dataset.get("StructureSetDate")
        else "",
    )


def open_structure_set(path: Path) -> Dataset:
    """The file's dataset, checked to be an RT Structure Set with at least one ROI and unique ROI numbers."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an RT Structure Set.")
    with warnings.catch_warnings(), damage_as_input_error(path):
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
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


def _name(row: Dataset, dataset: Dataset) -> str:
    """An ROI's name; a backslash in it, which DICOM takes for a separator of values, is read as "_".

    Without a character set only ASCII is allowed (PS3.3 C.12.1.1.2), and pydicom reads Latin-1. Writers that
    forget to state one mostly mean UTF-8, and Latin-1 text is hardly ever valid UTF-8.
    """
    value = row.get("ROIName") or ""
    name = "_".join(value) if isinstance(value, MultiValue) else str(value)
    if not name.isascii() and not dataset.get("SpecificCharacterSet"):
        try:
            name = name.encode("latin-1").decode("utf-8")
        except UnicodeError:
            pass
    return name.strip().replace("\\", "_")[:64]


def _drawn_by(row: Dataset) -> str:
    said = str(row.get("ROIGenerationAlgorithm") or "")
    return said if said in GENERATION_ALGORITHMS else ""


def _colour_rgb(row: Dataset | None) -> tuple[int, int, int] | None:
    colour = row.get("ROIDisplayColor") if row is not None else None
    if colour is None or len(colour) != 3 or not all(0 <= int(part) <= 255 for part in colour):
        return None
    return int(colour[0]), int(colour[1]), int(colour[2])


def _contours(row: Dataset | None, where: str, notices: list[str]) -> Iterable[Contour]:
    empty = 0
    for contour in (row.get("ContourSequence") if row is not None else None) or []:
        points = _points_lps_mm(contour, where)
        if not len(points):
            empty += 1
            continue
        images = contour.get("ContourImageSequence") or []
        uids = tuple(str(image.get("ReferencedSOPInstanceUID") or "") for image in images)
        yield Contour(str(contour.get("ContourGeometricType") or "CLOSED_PLANAR").strip(), points, uids)
    if empty:
        notices.append(f"{where}: {empty} contours without points were ignored.")


def _points_lps_mm(contour: Dataset, where: str) -> np.ndarray:
    raw = contour.get_item(CONTOUR_DATA)
    if raw is None or not raw.value:
        return np.zeros((0, 3))
    value = (
        raw.value if isinstance(raw.value, bytes) else "\\".join(map(str, np.atleast_1d(raw.value))).encode()
    )
    try:
        return parse_points_lps_mm(value)
    except ValueError as error:
        raise InputError(
            f"{where}: contour data are not triples of numbers ({error}); the file is damaged, export it "
            f"again."
        ) from error
