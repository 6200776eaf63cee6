"""Reading RT Structure Sets: what a file says (StructureSet), and where that lies on a series (masks)."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from medseg.contours import rasterise
from medseg.dicom.contour_items import parse_points_lps_mm
from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.scan import RTSTRUCT_CLASS_UID
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.geometry import Geometry
from medseg.structures import INTERPRETED_TYPES, Structure

if TYPE_CHECKING:
    from medseg.dicom.series import Series

CONTOUR_DATA = 0x30060050
AREA_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "INTERPOLATED_PLANAR")
"""Contour Geometric Types that bound an area (DICOM PS3.3 C.8.8.6.1); the others are points and open lines."""

SINGLE_SLICE_TOLERANCE_MM = 0.5
"""How far a contour may lie from the only slice of a series, whose height nobody knows."""


@dataclass(frozen=True, eq=False)
class Contour:
    """One contour as stored: Contour Geometric Type, points (n, 3) in LPS mm, UIDs of the images that it refers to."""

    geometric_type: str
    points_lps_mm: np.ndarray
    image_uids: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Roi:
    """One region of interest. ``raw_type`` is the type as stored, which may be none of DICOM's terms."""

    structure: Structure
    contours: tuple[Contour, ...]
    raw_type: str
    generation_algorithm: str
    frame_of_reference_uid: str

    @property
    def is_points_only(self) -> bool:
        """True for markers and isocentres: something is stored, but nothing that bounds an area."""
        return bool(self.contours) and not any(contour.geometric_type in AREA_TYPES for contour in self.contours)


@dataclass(frozen=True, eq=False)
class StructureSet:
    """A structure set as its file has it. ``notices``: sentences about what was odd but could be read."""

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


# ---- the file ----------------------------------------------------------------------------------------------------


def read_structure_set(path: str | Path) -> StructureSet:
    """Read an RT Structure Set without placing it on images; structures are linked by their number.

    An ROI without contours is kept, empty. Raises InputError for a file that is missing, is no RT Structure Set, holds
    no ROI at all or coordinates that are not numbers, and StructureError when two ROIs share a number.
    """
    with damage_as_input_error(path):
        return _parse(Path(path))


def _parse(path: Path) -> StructureSet:
    dataset = open_structure_set(path)
    notices: list[str] = []
    types = {int(row.ReferencedROINumber): str(row.get("RTROIInterpretedType") or "") for row in
             dataset.get("RTROIObservationsSequence") or [] if row.get("ReferencedROINumber") is not None}  # fmt: skip
    contour_rows: dict[int, Dataset] = {}
    for row in dataset.get("ROIContourSequence") or []:
        number = int(row.ReferencedROINumber)
        if number in contour_rows:
            raise StructureError(f"{path}: ROI number {number} has two sets of contours; the file is damaged.")
        contour_rows[number] = row
    rois = []
    for row in dataset.StructureSetROISequence:
        number = int(row.ROINumber)
        name = str(row.get("ROIName") or "").strip().replace("\\", "_")[:64]
        if not name:
            name = f"ROI {number}"
            notices.append(f"ROI number {number} has no name; it is called {name!r} here.")
        raw_type = types.get(number, "")
        known_type = raw_type if raw_type in INTERPRETED_TYPES else ""
        contour_row = contour_rows.pop(number, None)
        colour = _colour_rgb(contour_row)
        rois.append(
            Roi(
                Structure(name, number if number > 0 else None, colour, known_type),
                tuple(_contours(contour_row, f"{path}: ROI {name!r}", notices)),
                raw_type,
                str(row.get("ROIGenerationAlgorithm") or ""),
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
        raise InputError(f"{path}: holds no ROI at all, so the file is damaged (text-mode transfer?); export it again.")
    repeated = [str(number) for number, count in numbers.items() if count > 1]
    if repeated:
        raise StructureError(f"{path}: ROI number {', '.join(repeated)} is used twice; the contours cannot be told apart.")
    return dataset


def frame_of_reference_uids(dataset: Dataset) -> tuple[str, ...]:
    """Every Frame of Reference that a structure set names, without repeats, in the order found."""
    uids = [dataset.get("FrameOfReferenceUID")]
    uids += [row.get("FrameOfReferenceUID") for row in dataset.get("ReferencedFrameOfReferenceSequence") or []]
    uids += [row.get("ReferencedFrameOfReferenceUID") for row in dataset.get("StructureSetROISequence") or []]
    return tuple(dict.fromkeys(str(uid) for uid in uids if uid))


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
    value = raw.value if isinstance(raw.value, bytes) else "\\".join(map(str, np.atleast_1d(raw.value))).encode()
    try:
        return parse_points_lps_mm(value)
    except ValueError as error:
        raise InputError(
            f"{where}: contour data are not triples of numbers ({error}); the file is damaged, export it again."
        ) from error


# ---- on a series -------------------------------------------------------------------------------------------------


def read_rtstruct(path: str | Path, series: Series) -> dict[str, np.ndarray]:
    """{ROI name: bool mask [slice, row, column]} of a structure set on the grid of a series, as stored names.

    Contours lie where their coordinates say; image references are only compared. All areas of a plane are combined by
    exclusive or, so that holes work however they are stored. An ROI without contours gives an empty mask; points and
    open lines have no area and are left out. What is odd is said by a MedsegWarning each.

    Raises InputError for a damaged file, GeometryError for another patient or Frame of Reference, StructureError for
    two ROIs of one name.
    """
    structure_set = read_structure_set(path)
    masks, notices = place(structure_set, series)
    for notice in (*structure_set.notices, *notices):
        warnings.warn(notice, MedsegWarning, stacklevel=2)
    return masks


def place(structure_set: StructureSet, series: Series) -> tuple[dict[str, np.ndarray], list[str]]:
    """The masks of read_rtstruct, and a sentence about everything that was odd, instead of warnings."""
    check_same_patient(structure_set.patient_id, structure_set.patient_name, series, structure_set.path)
    check_same_frame(structure_set.frame_of_reference_uids, series, structure_set.path)
    names = Counter(roi.structure.name for roi in structure_set.rois)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise StructureError(f"{structure_set.path}: two ROIs are called {', '.join(map(repr, repeated))}; rename one.")
    masks: dict[str, np.ndarray] = {}
    notices: list[str] = []
    slice_of_image = _slices_by_uid(series)
    for roi in structure_set.rois:
        name = roi.structure.name
        if roi.frame_of_reference_uid and roi.frame_of_reference_uid != series.geometry.frame_of_reference_uid:
            notices.append(f"ROI {name!r} was left out: it lies in Frame of Reference {roi.frame_of_reference_uid}.")
        elif roi.is_points_only:
            notices.append(f"ROI {name!r} was left out: it has only points or open lines, which bound no area.")
        else:
            masks[name], said = _roi_mask(roi, series.geometry, slice_of_image)
            notices += [f"ROI {name!r}: {sentence}" for sentence in said]
    return masks, notices


def check_same_patient(patient_id: str, patient_name: str, series: Series, what: object) -> None:
    """Raise GeometryError when both sides name a patient and the names differ: by ID, or by name where no ID is known."""
    header = series.headers[0]
    for said, keyword in ((patient_id, "PatientID"), (patient_name, "PatientName")):
        known = str(header.get(keyword) or "").strip()
        if said and known:
            if said.casefold().rstrip("^") != known.casefold().rstrip("^"):
                raise GeometryError(f"{what}: its {keyword} is not that of the images; it belongs to another patient.")
            return


def check_same_frame(uids: tuple[str, ...], series: Series, what: object) -> None:
    """Raise GeometryError unless the series' Frame of Reference is known and among ``uids``."""
    known = series.geometry.frame_of_reference_uid
    if not known:
        raise GeometryError(f"{what}: the images have no Frame of Reference, so nothing can be placed on them.")
    if known not in uids:
        raise GeometryError(
            f"{what}: Frame of Reference {', '.join(uids) or 'missing'}, but the images have {known}; "
            "expected the structure set of this very series."
        )


def _slices_by_uid(series: Series) -> dict[str, int]:
    """{SOP Instance UID: slice index} of single-frame images; a multi-frame image does not tell the slice."""
    uids = Counter(series.sop_instance_uids)
    return {uid: index for index, uid in enumerate(series.sop_instance_uids) if uids[uid] == 1}


def _roi_mask(roi: Roi, geometry: Geometry, slice_of_image: dict[str, int]) -> tuple[np.ndarray, list[str]]:
    mask = np.zeros(geometry.shape, dtype=bool)
    areas = [contour for contour in roi.contours if contour.geometric_type in AREA_TYPES]
    if not areas:
        return mask, ["it is empty."]
    said: Counter[str] = Counter()
    said["points or open lines, left out"] = len(roi.contours) - len(areas)
    by_slice: dict[int, list[tuple[float, Contour, np.ndarray]]] = {}
    for contour in areas:
        points = _open_loop(contour.points_lps_mm)
        if len({tuple(point) for point in points.tolist()}) < 3:
            said["contours of fewer than 3 points, left out"] += 1
            continue
        index = _slice_of(points, geometry)
        if index is None:
            said["contours on no slice of the images, left out"] += 1
            continue
        said["contours that name an image other than the one they lie on"] += _points_elsewhere(
            contour, index, slice_of_image
        )
        by_slice.setdefault(index, []).append((float(np.mean(points @ geometry.normal_lps)), contour, points))
    for index, found in by_slice.items():
        found = _nearest_plane(found, float(geometry.slice_positions_mm[index]), said)
        loops = [geometry.rows_columns(index, points) for points in _without_repeats(found, said)]
        mask[index] = rasterise(loops, geometry.shape[1:])
    said["slices inside it without a contour"] = _gaps(by_slice)
    sentences = [f"{count} {what}." for what, count in said.items() if count]
    if by_slice and not mask.any():
        sentences.append("no voxel centre lies inside it; it is smaller than a voxel, or its contours cancel.")
    return mask, sentences


def _open_loop(points: np.ndarray) -> np.ndarray:
    return points[:-1] if len(points) > 1 and np.abs(points[0] - points[-1]).max() < 1e-4 else points


def _slice_of(points: np.ndarray, geometry: Geometry) -> int | None:
    """The slice in whose plane the points lie: nearer than half the way to its neighbour on that side; else None.

    Beyond an end slice the half way to its only neighbour counts.
    """
    heights_mm = points @ geometry.normal_lps
    index, distance_mm = geometry.nearest_slice(points)
    tolerance_mm = SINGLE_SLICE_TOLERANCE_MM
    if geometry.shape[0] > 1:
        positions_mm = geometry.slice_positions_mm
        gaps_mm = positions_mm[max(index - 1, 0) : index + 2] - positions_mm[index]
        this_side = gaps_mm * (heights_mm.mean() - positions_mm[index]) > 0
        tolerance_mm = 0.499 * np.abs(gaps_mm[this_side] if this_side.any() else gaps_mm).max()
    inside = distance_mm < tolerance_mm and np.ptp(heights_mm) < tolerance_mm
    return index if inside else None


def _points_elsewhere(contour: Contour, index: int, slice_of_image: dict[str, int]) -> bool:
    return any(slice_of_image.get(uid, -1) != index for uid in contour.image_uids) if slice_of_image else False


def _nearest_plane(found: list, position_mm: float, said: Counter[str]) -> list:
    """Contours of one slice that lie in one plane; planes closer together than the slices must not cancel each other."""
    nearest_mm = min((height for height, _, _ in found), key=lambda height: abs(height - position_mm))
    kept = [row for row in found if abs(row[0] - nearest_mm) < 0.05]
    said["contours between the slices, beside a nearer plane, left out"] += len(found) - len(kept)
    return kept


def _without_repeats(found: list, said: Counter[str]) -> list[np.ndarray]:
    """Loops of one plane, each stored once; of type CLOSEDPLANAR_XOR a repeat is kept, because it means to cancel."""
    kept, seen = [], set()
    for _, contour, points in found:
        rounded = np.rint(points * 1000).astype(np.int64)
        key = rounded[np.lexsort(rounded.T)].tobytes()
        if key in seen and contour.geometric_type == "CLOSEDPLANAR_XOR":
            said["contours that cancel an equal one, as CLOSEDPLANAR_XOR means"] += 1
        elif key in seen:
            said["contours stored twice, used once"] += 1
            continue
        seen.add(key)
        kept.append(points)
    return kept


def _gaps(by_slice: dict[int, list]) -> int:
    return max(by_slice) - min(by_slice) + 1 - len(by_slice) if by_slice else 0
