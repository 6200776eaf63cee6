"""Reading RT Structure Sets: what a file says (StructureSet), and where that lies on a series (masks)."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.images.scan import RTSTRUCT_CLASS_UID
from medseg.dicom.rtstruct.encode import Contour, parse_points_lps_mm
from medseg.dicom.rtstruct.masks import SINGLE_SLICE_TOLERANCE_MM, roi_mask
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.structures.structure import GENERATION_ALGORITHMS, INTERPRETED_TYPES, Structure

if TYPE_CHECKING:
    from medseg.dicom.images.series import Series

CONTOUR_DATA = 0x30060050

ALLOWABLE_IN_STRUCTURE_SETS = {
    "frame_of_reference": (
        "place contours of another, or of no known, Frame of Reference by their coordinates alone"
    ),
    "repeated_names": 'call ROIs that share a name "NAME (number 3)" and so on',
}
"""Faults that read_rtstruct can be told to accept (``allow=``), and what it then does. All others are always
refused."""

MaskReader = Callable[[], tuple[np.ndarray, list[str]]]


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
    patient_id: str
    patient_name: str
    study_instance_uid: str
    sop_instance_uid: str
    frame_of_reference_uids: tuple[str, ...]
    rois: tuple[Roi, ...]
    notices: tuple[str, ...]
    referenced_series_uids: tuple[str, ...] = ()
    date_time: str = ""


# ---- the file ----------------------------------------------------------------------------------------------


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


# ---- on a series -------------------------------------------------------------------------------------------


def read_rtstruct(path: str | Path, series: Series, *, allow: Collection[str] = ()) -> dict[str, np.ndarray]:
    """{ROI name: bool mask [slice, row, column]} of a structure set on the grid of a series, as stored names.

    Contours lie where their coordinates say; image references are only compared. All areas of a plane are
    combined by exclusive or, so that holes work however they are stored. An ROI without contours gives an
    empty mask; points and open lines have no area and are left out. What is odd is said by a MedsegWarning
    each. ``allow``: names from ALLOWABLE_IN_STRUCTURE_SETS of faults to accept, with a warning.

    Raises InputError for a damaged file or an unknown name in ``allow``, GeometryError for another patient or
    Frame of Reference, StructureError for two ROIs of one name.
    """
    structure_set = read_structure_set(path)
    masks, notices = place(structure_set, series, allow)
    for notice in (*structure_set.notices, *notices):
        warnings.warn(notice, MedsegWarning, stacklevel=2)
    return masks


def place(
    structure_set: StructureSet, series: Series, allow: Collection[str] = ()
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The masks of read_rtstruct, and a sentence about everything that was odd, instead of warnings."""
    readers, notices = placeable(structure_set, series, allow)
    masks: dict[str, np.ndarray] = {}
    for name, read in readers.items():
        masks[name], said = read()
        notices += said
    return masks, notices


def placeable(
    structure_set: StructureSet, series: Series, allow: Collection[str] = ()
) -> tuple[dict[str, MaskReader], list[str]]:
    """({ROI name: function that gives its mask and what was odd about it}, what was odd about the set), all
    checked.

    For whoever cannot hold the masks of all ROIs at once.
    """
    unknown = sorted(set(allow) - set(ALLOWABLE_IN_STRUCTURE_SETS))
    if unknown:
        known = ", ".join(ALLOWABLE_IN_STRUCTURE_SETS)
        raise InputError(
            f"allow={unknown[0]!r} is not known for structure sets; expected names from {known}."
        )
    check_same_patient(structure_set.patient_id, structure_set.patient_name, series, structure_set.path)
    notices: list[str] = []
    try:
        check_same_frame(structure_set.frame_of_reference_uids, series, structure_set.path)
    except GeometryError as error:
        if "frame_of_reference" not in allow:
            raise GeometryError(f'{error} If both are known to agree, allow "frame_of_reference".') from error
        notices.append(
            "accepted frame_of_reference: the structure set has "
            f"{', '.join(structure_set.frame_of_reference_uids) or 'none'}, the images have "
            f"{series.geometry.frame_of_reference_uid or 'none'}; contours were placed by their coordinates "
            f"alone."
        )
    _check_reach(structure_set, series)
    drawn, left_out = _drawable(structure_set, series.geometry.frame_of_reference_uid, allow)
    notices += left_out
    slice_of_image = _slices_by_uid(series)
    contours = [contour for roi in drawn.values() for contour in roi.contours if contour.bounds_an_area]
    lost = (
        sum(not slice_of_image.keys() >= set(contour.image_uids) for contour in contours)
        if slice_of_image
        else 0
    )
    if lost:
        notices.append(
            f"{lost} of {len(contours)} contours name an image which is not in the series; position decides."
        )

    def reader(name: str, roi: Roi) -> MaskReader:
        def read() -> tuple[np.ndarray, list[str]]:
            mask, said = roi_mask(roi.contours, series.geometry, slice_of_image)
            return mask, [f"ROI {name!r}: {sentence}" for sentence in said]

        return read

    return {name: reader(name, roi) for name, roi in drawn.items()}, notices


def _check_reach(structure_set: StructureSet, series: Series) -> None:
    """Raise GeometryError when all contours lie beyond the images: masks without a voxel would pass for an
    answer."""
    normal, positions_mm = series.geometry.normal_lps, series.geometry.slice_positions_mm
    contours = [contour for roi in structure_set.rois for contour in roi.contours if contour.bounds_an_area]
    heights_mm = np.array([float(np.mean(contour.points_lps_mm @ normal)) for contour in contours])
    margin_mm = (
        np.abs(np.diff(positions_mm)).max() / 2 if len(positions_mm) > 1 else SINGLE_SLICE_TOLERANCE_MM
    )
    low_mm, high_mm = positions_mm.min() - margin_mm, positions_mm.max() + margin_mm
    if len(heights_mm) and not ((heights_mm > low_mm) & (heights_mm < high_mm)).any():
        raise GeometryError(
            f"{structure_set.path}: none of its {len(contours)} contours lies on the images: they lie at "
            f"{heights_mm.min():.1f} to {heights_mm.max():.1f} mm along the slices' normal, the images at "
            f"{positions_mm.min():.1f} to {positions_mm.max():.1f} mm. Expected the images it was drawn on."
        )


def _drawable(
    structure_set: StructureSet, frame_uid: str | None, allow: Collection[str]
) -> tuple[dict[str, Roi], list[str]]:
    """({name: ROI that bounds areas in this frame, or is empty}, why the others are left out).

    Of ROIs that share a name those without contours give way. StructureError where that leaves several.
    """
    kept, notices, without_area = [], [], []
    for roi in structure_set.rois:
        name, own_frame = roi.structure.name, roi.frame_of_reference_uid
        if own_frame and own_frame != frame_uid and "frame_of_reference" not in allow:
            notices.append(f"ROI {name!r} was left out: it lies in Frame of Reference {own_frame}.")
        elif roi.is_points_only:
            without_area.append(repr(name))
        else:
            kept.append(roi)
    if without_area:
        notices.append(f"ROI {', '.join(without_area)}: left out, since points and open lines bound no area.")
    drawn: dict[str, Roi] = {}
    for name in dict.fromkeys(roi.structure.name for roi in kept):
        same = [roi for roi in kept if roi.structure.name == name]
        filled = [roi for roi in same if roi.contours] or same[:1]
        if len(filled) < len(same):
            notices.append(
                f"ROI {name!r}: {len(same) - len(filled)} more of this name without contours left out."
            )
        if len(filled) > 1 and "repeated_names" not in allow:
            numbers = ", ".join(str(roi.structure.number) for roi in filled)
            raise StructureError(
                f"{structure_set.path}: {len(filled)} ROIs are called {name!r} (numbers {numbers}); rename "
                f"them, or "
                'allow "repeated_names".'
            )
        for roi in filled:
            drawn[name if len(filled) == 1 else f"{name} (number {roi.structure.number})"] = roi
    return drawn, notices


def check_same_patient(patient_id: str, patient_name: str, series: Series, what: object) -> None:
    """Raise GeometryError when both sides name a patient and the names differ: by ID, or by name where no ID
    is known."""
    header = series.headers[0]
    for said, keyword in ((patient_id, "PatientID"), (patient_name, "PatientName")):
        known = str(header.get(keyword) or "").strip()
        if said and known:
            if said.casefold().rstrip("^") != known.casefold().rstrip("^"):
                raise GeometryError(
                    f"{what}: its {keyword} is not that of the images; it belongs to another patient."
                )
            return


def check_same_frame(uids: tuple[str, ...], series: Series, what: object) -> None:
    """Raise GeometryError unless the series' Frame of Reference is known and among ``uids``."""
    known = series.geometry.frame_of_reference_uid
    if not known:
        raise GeometryError(
            f"{what}: the images have no Frame of Reference, so nothing can be placed on them."
        )
    if known not in uids:
        raise GeometryError(
            f"{what}: Frame of Reference {', '.join(uids) or 'missing'}, but the images have {known}; "
            "expected the structure set of this very series."
        )


def _slices_by_uid(series: Series) -> dict[str, int]:
    """{SOP Instance UID: slice index} of single-frame images; a multi-frame image does not tell the slice."""
    uids = Counter(series.sop_instance_uids)
    return {uid: index for index, uid in enumerate(series.sop_instance_uids) if uids[uid] == 1}
