"""Writing RT Structure Sets (DICOM PS3.3 A.19) that every planning system can place on its images."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

import medseg
from medseg.dicom import coded
from medseg.dicom.charset import can_hold, hold_texts
from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.derived import (
    EMPTY_IF_UNKNOWN,
    RESEARCH_ONLY,
    SERIES_NUMBER,
    check_is_no_image,
    check_masks,
    check_same_frame,
    check_same_patient,
    copy_patient_and_study,
    maker,
    mask_or_map,
    refuse_approved,
    refuse_existing,
)
from medseg.dicom.images.header import RTSTRUCT_CLASS_UID
from medseg.dicom.images.series import Series
from medseg.dicom.patient import patient_of
from medseg.dicom.rtstruct.encode import contour_sequence, image_item, point_sequence
from medseg.dicom.rtstruct.structure_set import (
    CONTOUR_DATA,
    frame_of_reference_uids,
    open_structure_set,
)
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.files import atomic_path
from medseg.shapes.loops import HOLE_MODES, structure_loops
from medseg.shapes.outlines import count_lost_voxels
from medseg.shapes.packed import part_of
from medseg.structures.structure import Code, Structure, fixed_colour_rgb

DETACHED_STUDY_CLASS_UID = "1.2.840.10008.3.1.2.3.1"
"""The retired class that structure sets name, by custom, for the study they refer to."""

CONTOUR_SEQUENCE = 0x30060040


def write_rtstruct(
    masks: Mapping[str | Structure, np.ndarray],
    series: Series,
    out: str | Path,
    *,
    holes: str = "keyhole",
    simplify_mm: float = 0.0,
    append_to: str | Path | None = None,
    model: tuple[str, str] | None = None,
    label: str = "medseg",
    overwrite: bool = False,
) -> Path:
    """Write structures as one UNAPPROVED RT Structure Set on the images of ``series``; return its path.

    ``masks``: {name or Structure: array [slice, row, column]}. A bool mask is bounded along its pixel edges,
    so that contour area equals mask area, and so is a float map of nothing but 0 and 1; any other map from 0
    to 1 is contoured at 0.5 between voxel centres. There a voxel of 1 that stands alone has half of its area,
    which a MedsegWarning says.
    ``holes``: a key of HOLE_MODES. ``simplify_mm``: largest distance by which vertices may be thinned.
    ``append_to``: an existing set whose ROIs are kept unchanged before the new ones; the result is a new file
    with a new SOP Instance UID, UNAPPROVED. ``model``: (name, version) of what drew the structures.
    ``label``: StructureSetLabel, at most 16 characters. ``overwrite``: replace a file that is there, unless
    it is APPROVED or an image.

    An empty mask becomes an ROI without contours, with a MedsegWarning. Raises StructureError, GeometryError
    or InputError, before anything is written: see check_masks; also for a set of another patient, study or
    Frame of Reference, a name or number that is taken, an ``out`` that exists (without ``overwrite``) and
    one that holds an APPROVED set.
    """
    if holes not in HOLE_MODES:
        raise StructureError(f"holes={holes!r}: expected one of {', '.join(HOLE_MODES)}.")
    if not 1 <= len(label) <= 16:
        raise StructureError(f"label {label!r} has {len(label)} characters; a StructureSetLabel has 1 to 16.")
    model = model if model and model[0] else None
    out = Path(out)
    refuse_approved(out)
    check_is_no_image(out, series)
    refuse_existing(out, overwrite)
    checked = check_masks(masks, series)
    dataset = _new_set(series) if append_to is None else _copied_set(Path(append_to), series)
    _describe(dataset, label, model)
    names = [str(row.get("ROIName") or "") for row in dataset.StructureSetROISequence]
    taken = {name.casefold(): name for name in names}
    for structure, _ in checked:  # names that repeat among those that are kept are their writer's affair
        if structure.name.casefold() in taken:
            other = taken[structure.name.casefold()]
            raise StructureError(
                f"two structures are called {other!r} and {structure.name!r}; give each its own name."
            )
    hold_texts(dataset, [label, *(model or ()), *(structure.name for structure, _ in checked)])
    images = [image_item(*row) for row in _images(series)]
    for structure, key in _number(checked, dataset):
        part, corner = part_of(masks, key)
        array = mask_or_map(part, structure.name)
        loops, geometric_type = structure_loops(array, series.geometry, holes, simplify_mm, corner=corner)
        encoded = contour_sequence(loops, series.geometry, images, geometric_type)
        _warn_of(structure.name, array, empty=not encoded)
        _add_roi(dataset, structure, encoded, series, model)
    _save(dataset, out)
    return out


def write_points(
    points_lps_mm: Mapping[Structure, np.ndarray],
    series: Series,
    out: str | Path,
    *,
    model: tuple[str, str] | None = None,
    label: str = "medseg",
    overwrite: bool = False,
) -> Path:
    """Write places (3,) in LPS mm as an UNAPPROVED set of POINT ROIs, which planning systems jump to; return
    its path. Each refers to the nearest slice. The other arguments are those of :func:`write_rtstruct`.
    InputError without a point; StructureError for a name that stands twice."""
    out, model = Path(out), model if model and model[0] else None
    refuse_approved(out)
    check_is_no_image(out, series)
    refuse_existing(out, overwrite)
    if not points_lps_mm:
        raise InputError("a structure set of points needs at least one.")
    names = [structure.name.casefold() for structure in points_lps_mm]
    if len(set(names)) < len(names):
        raise StructureError("two points have one name; give each its own.")
    dataset = _new_set(series)
    _describe(dataset, label, model)
    hold_texts(dataset, [label, *(model or ()), *(structure.name for structure in points_lps_mm)])
    images = [image_item(*row) for row in _images(series)]
    places = {structure.name: place for structure, place in points_lps_mm.items()}
    for structure, name in _number([(structure, structure.name) for structure in points_lps_mm], dataset):
        index, _ = series.geometry.nearest_slice(np.asarray(places[str(name)])[None])
        _add_roi(dataset, structure, point_sequence(places[str(name)], images[index]), series, model)
    _save(dataset, out)
    return out


def _warn_of(name: str, array: np.ndarray, *, empty: bool):
    """What the user has to know of a structure that is written as it is: no contours, voxels cut in half."""
    if empty:
        warnings.warn(f"structure {name} is empty; it has no contours.", MedsegWarning, stacklevel=3)
    lost = 0 if array.dtype == bool else sum(map(count_lost_voxels, array))
    if lost:
        warnings.warn(
            f"structure {name}: {lost} voxels of its map are certain and stand alone; the level at 0.5 "
            "bounds some half of each. Write a bool mask where every voxel counts.",
            MedsegWarning,
            stacklevel=3,
        )


# ---- the set -----------------------------------------------------------------------------------------------


def _new_set(series: Series) -> Dataset:
    """A structure set without ROIs, with the patient and study of the images."""
    dataset = Dataset()
    copy_patient_and_study(series.headers[0], dataset)
    dataset.StructureSetROISequence = Sequence()
    dataset.ROIContourSequence = Sequence()
    dataset.RTROIObservationsSequence = Sequence()
    _refer_to(series, dataset)
    return dataset


def _copied_set(path: Path, series: Series) -> Dataset:
    """An existing set as it stands, checked to belong to the patient, study and Frame of Reference of the
    images."""
    with damage_as_input_error(path):
        return _copy(path, series)


def _copy(path: Path, series: Series) -> Dataset:
    dataset = open_structure_set(path)
    if any(tag.group <= 2 for tag in dataset.keys()):
        raise InputError(
            f"{path}: holds elements of group 0 or 2 among its data; the file is damaged, export it again."
        )
    check_same_patient(patient_of(dataset), series, path)
    study = str(dataset.get("StudyInstanceUID") or "")
    if study != series.study_instance_uid:
        raise GeometryError(
            f"{path}: study {study}, but the images belong to study {series.study_instance_uid}."
        )
    check_same_frame(frame_of_reference_uids(dataset), series, path)
    for keyword in ("ROIContourSequence", "RTROIObservationsSequence"):
        if dataset.get(keyword) is None:
            setattr(dataset, keyword, Sequence())
    for row in dataset.RTROIObservationsSequence:
        int(
            row.get("ObservationNumber") or 0
        )  # pydicom parses when asked: damage must show here, under the guard
    for row in dataset.ROIContourSequence:
        for contour in (
            row.get("ContourSequence") or [] if not dataset.original_encoding == (True, True) else []
        ):
            raw = contour.get_item(CONTOUR_DATA)  # keep the text as it is when pydicom re-encodes the file
            if raw is not None and isinstance(raw.value, bytes):
                contour[CONTOUR_DATA] = DataElement(CONTOUR_DATA, "OB", raw.value)
    predecessor = Dataset()
    predecessor.ReferencedSOPClassUID, predecessor.ReferencedSOPInstanceUID = (
        RTSTRUCT_CLASS_UID,
        dataset.SOPInstanceUID,
    )
    dataset.PredecessorStructureSetSequence = Sequence([predecessor])
    for keyword in ("ReviewDate", "ReviewTime", "ReviewerName"):
        if keyword in dataset:
            delattr(dataset, keyword)
    _refer_to(series, dataset)
    return dataset


def _describe(dataset: Dataset, label: str, model: tuple[str, str] | None) -> None:
    """Identity, date, maker and state of the new file."""
    now = datetime.datetime.now()
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTSTRUCT_CLASS_UID, generate_uid(prefix=None)
    dataset.SeriesInstanceUID, dataset.Modality = generate_uid(prefix=None), "RTSTRUCT"
    dataset.SeriesNumber, dataset.InstanceNumber = SERIES_NUMBER, 1
    dataset.SeriesDescription = f"Contours by medseg. {RESEARCH_ONLY}"
    dataset.Manufacturer, dataset.ManufacturerModelName = "medseg", (model[0] if model else "medseg")[:64]
    dataset.SoftwareVersions = [
        f"medseg {medseg.__version__}",
        *([f"{model[0]} {model[1]}"[:64]] if model else []),
    ]
    dataset.StructureSetLabel = label
    dataset.StructureSetDescription = f"{RESEARCH_ONLY} New structures were drawn by {maker(model)}."
    dataset.StructureSetDate, dataset.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = (
        dataset.StructureSetDate,
        dataset.StructureSetTime,
    )
    dataset.ApprovalStatus = "UNAPPROVED"
    for keyword in EMPTY_IF_UNKNOWN:
        if keyword not in dataset:
            setattr(dataset, keyword, "")


def _images(series: Series) -> list[tuple[str, str, int | None]]:
    return list(zip(series.sop_class_uids, series.sop_instance_uids, series.frame_numbers, strict=True))


def _refer_to(series: Series, dataset: Dataset) -> None:
    """Name the series and all its images under its Frame of Reference, which is listed once; keep what is
    listed."""
    uid = str(series.geometry.frame_of_reference_uid)  # check_masks asked for it
    if not dataset.get("FrameOfReferenceUID"):
        dataset.FrameOfReferenceUID = uid
    frame = _row(dataset, "ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID", uid)
    study = _row(frame, "RTReferencedStudySequence", "ReferencedSOPInstanceUID", series.study_instance_uid)
    study.ReferencedSOPClassUID = DETACHED_STUDY_CLASS_UID
    referred = _row(study, "RTReferencedSeriesSequence", "SeriesInstanceUID", series.series_instance_uid)
    if not referred.get("ContourImageSequence"):
        referred.ContourImageSequence = Sequence()
    listed = {str(row.get("ReferencedSOPInstanceUID") or "") for row in referred.ContourImageSequence}
    for class_uid, instance_uid, _ in _images(series):
        if instance_uid not in listed:
            listed.add(instance_uid)
            image = Dataset()
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = class_uid, instance_uid
            referred.ContourImageSequence.append(image)


def _row(parent: Dataset, sequence: str, keyword: str, value: str) -> Dataset:
    """The item of a sequence whose ``keyword`` has this value; appended when there is none."""
    if not parent.get(sequence):
        setattr(parent, sequence, Sequence())
    for row in getattr(parent, sequence):
        if row.get(keyword) == value:
            return row
    row = Dataset()
    setattr(row, keyword, value)
    getattr(parent, sequence).append(row)
    return row


# ---- its structures ----------------------------------------------------------------------------------------


def _number(checked: list, dataset: Dataset) -> list[tuple[Structure, str | Structure]]:
    """Structures with ROI numbers: their own, which must be free, or the next ones above all that are
    taken."""
    taken = {int(row.ROINumber) for row in dataset.StructureSetROISequence}
    wanted = [structure.number for structure, _ in checked if structure.number is not None]
    for number in wanted:
        if number in taken:
            raise StructureError(f"ROI number {number} is used twice; give each structure its own, or none.")
        taken.add(number)
    following = max(taken, default=0)
    numbered = []
    for structure, key in checked:
        number = structure.number
        if number is None:
            number = following = following + 1
        numbered.append((replace(structure, number=number), key))
    return numbered


def _add_roi(dataset: Dataset, structure: Structure, encoded: bytes, series: Series, model) -> None:
    """Append one structure to the three sequences that describe it."""
    roi = Dataset()
    roi.ROINumber, roi.ROIName = structure.number, structure.name
    roi.ReferencedFrameOfReferenceUID = series.geometry.frame_of_reference_uid
    roi.ROIGenerationAlgorithm = structure.generation_algorithm
    made = _writable(dataset, structure.generation_description)
    roi.ROIGenerationDescription = (made or maker(model))[:64]
    if len(made) > 64:
        roi.ROIDescription = made[:1024]
    dataset.StructureSetROISequence.append(roi)

    contours = Dataset()
    contours.ROIDisplayColor = list(structure.colour_rgb or fixed_colour_rgb(structure.name))
    contours.ReferencedROINumber = structure.number
    if series.geometry.is_regular and series.geometry.shape[0] > 1:
        contours.SourcePixelPlanesCharacteristicsSequence = Sequence([_source_grid(series)])
    if encoded:
        # VR OB makes pydicom write these bytes as they are; in Implicit VR the file holds no VR, so they are
        # read as SQ.
        contours.add(DataElement(CONTOUR_SEQUENCE, "OB", encoded))
    dataset.ROIContourSequence.append(contours)

    observation = Dataset()
    numbers = [int(row.get("ObservationNumber") or 0) for row in dataset.RTROIObservationsSequence]
    observation.ObservationNumber = max([int(roi.ROINumber) - 1, *numbers]) + 1
    observation.ReferencedROINumber = structure.number
    observation.RTROIInterpretedType = structure.interpreted_type
    observation.ROIInterpreter = ""
    observation.SegmentedPropertyCategoryCodeSequence = Sequence([_code_item(coded.category_code(structure))])
    if structure.code is not None:
        identification = _code_item(structure.code)
        side = coded.side_code(structure)
        if side is not None:
            identification.SegmentedPropertyTypeModifierCodeSequence = Sequence([_code_item(side)])
        observation.RTROIIdentificationCodeSequence = Sequence([identification])
    dataset.RTROIObservationsSequence.append(observation)


def _source_grid(series: Series) -> Dataset:
    """The grid the contours were made on, so that a receiver can rebuild it (3006,004A); only even, upright
    stacks."""
    geometry = series.geometry
    row_mm, column_mm = geometry.pixel_spacing_mm
    cosines = [*(geometry.column_step_lps_mm / column_mm), *(geometry.row_step_lps_mm / row_mm)]
    grid = Dataset()
    grid.PixelSpacing = [_ds(row_mm), _ds(column_mm)]
    grid.SpacingBetweenSlices = _ds(geometry.spacing_mm[0])
    grid.ImageOrientationPatient = [_ds(cosine) for cosine in cosines]
    grid.ImagePositionPatient = [_ds(mm) for mm in geometry.origins_lps_mm[0]]
    return grid


def _ds(value: float) -> str:
    return format_number_as_ds(float(value) + 0.0)


def _code_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item


# ---- the file ----------------------------------------------------------------------------------------------


def _writable(dataset: Dataset, text: str) -> str:
    """A remark as the character set of a data set can hold it, with "?" for letters that it lacks."""
    return text if can_hold(dataset, [text]) else text.encode("ascii", "replace").decode()


def _save(dataset: Dataset, out: Path) -> None:
    """Implicit VR Little Endian, because Explicit VR cannot hold a contour of more than 65,534 bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.ImplementationVersionName = f"MEDSEG_{medseg.__version__}"[:16]
    with atomic_path(out) as temporary:
        dataset.file_meta, dataset.preamble = meta, b"\0" * 128
        if not isinstance(dataset, FileDataset):
            dataset = FileDataset(str(out), dataset, file_meta=meta, preamble=b"\0" * 128)
        dataset.save_as(temporary, implicit_vr=True, little_endian=True, enforce_file_format=True)
