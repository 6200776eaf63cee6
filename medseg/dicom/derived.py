"""What structure sets and segmentations share: the masks they take, the patient and study they copy, what
they never overwrite, and whether a file that is read belongs to the images."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

import medseg
from medseg.dicom.images.series import Series, require_series
from medseg.dicom.patient import differing_field, patient_of
from medseg.dicom.rtstruct.structure_set import open_structure_set
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.shapes.packed import PackedMasks, part_of
from medseg.structures.structure import Structure, check_names_are_unique, name_warnings, structure_from_name
from medseg.structures.tg263 import interpreted_type

SERIES_NUMBER = 9001
"""Of every set that medseg writes: high, so that viewers list it after the images."""

RESEARCH_ONLY = "Research use only, not for clinical use."

COPIED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
"""Attributes of patient and study that are copied from the images as they stand."""

EMPTY_IF_UNKNOWN = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "OperatorsName",
)
"""Type 2: present even without a value; planning systems refuse files that lack them."""


ROUNDING = 1e-3
"""How far a probability may leave 0 to 1: averages over windows, as networks are run, end at 1.0000001."""


def check_masks(
    masks: Mapping[str | Structure, np.ndarray], series: Series
) -> list[tuple[Structure, str | Structure]]:
    """Structures with their keys in ``masks``, whose arrays lie on the grid of ``series``; for the arrays:
    mask_or_map.

    Arrays, bool masks or float maps with values between 0 and 1, are looked at one by one and not kept, since
    ``masks`` may make each when asked for it. A name becomes a structure with the type, colour and code that
    belong to it; a Structure without a type gets that of its name. Whole numbers 0 and 1, and floats that are
    all 0 or 1, count as bool. What TG-263 has against a name is said by a MedsegWarning. Raises
    StructureError for no masks, repeated names, a label map or values outside 0-1; GeometryError for another
    shape than the series' and for images without a Frame of Reference.
    """
    if not masks:
        raise StructureError("no structures were given; a DICOM file of structures needs at least one.")
    if not series.geometry.frame_of_reference_uid:
        raise GeometryError(
            f"series {series.series_instance_uid} has no Frame of Reference, so contours cannot refer to it; "
            "export the images with their FrameOfReferenceUID."
        )
    checked = []
    for key in masks:
        part, _ = part_of(masks, key)
        shape = masks.shape if isinstance(masks, PackedMasks) else part.shape
        structure = key if isinstance(key, Structure) else structure_from_name(key)
        if not structure.interpreted_type:  # planning systems rename or drop structures that have no type
            structure = replace(structure, interpreted_type=interpreted_type(structure.name))
        mask_or_map(part, structure.name)
        if shape != series.geometry.shape:
            raise GeometryError(
                f"structure {structure.name}: mask of shape {shape} on images of "
                f"{series.geometry.shape} (slices, rows, columns). Nothing is flipped, cropped or resampled "
                "to fit."
            )
        checked.append((structure, key))
    check_names_are_unique([structure.name for structure, _ in checked])
    for sentence in name_warnings([structure.name for structure, _ in checked]):
        warnings.warn(sentence, MedsegWarning, stacklevel=3)
    return checked


def mask_or_map(array: np.ndarray, name: str) -> np.ndarray:
    """The array as a bool mask, or as a map of probabilities as it is. StructureError for anything else."""
    array = np.asarray(array)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise StructureError(
            f"structure {name}: array of type {array.dtype}; expected bool, or floats from 0 to 1."
        )
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    rounding = 0 if array.dtype.kind in "iu" else ROUNDING
    if not (low >= -rounding and high <= 1 + rounding):
        hint = (
            "split a label map into one mask per structure"
            if array.dtype.kind in "iu"
            else "apply sigmoid or softmax"
        )
        raise StructureError(
            f"structure {name}: values from {low:.4g} to {high:.4g}; expected 0 to 1 ({hint})."
        )
    # Slice by slice, because the first slice of a map that holds anything tells.
    is_binary = array.dtype.kind in "iu" or all(((plane == 0) | (plane == 1)).all() for plane in array)
    return array.astype(bool) if is_binary else array


class PatientError(GeometryError):
    """A file of another patient than the images; ``field``: the attribute that differs."""

    def __init__(self, message: str, field: str):
        super().__init__(message)
        self.field = field


# ---- patient, study and maker ------------------------------------------------------------------------------


def copy_patient_and_study(header: Dataset, dataset: Dataset) -> None:
    """Give a new data set the patient, study and character set of an image, as they stand there."""
    if header.get("SpecificCharacterSet"):
        dataset.SpecificCharacterSet = header.SpecificCharacterSet
    for keyword in COPIED:
        if keyword in header and not header[keyword].is_empty:
            dataset[keyword] = header[keyword]
    if "DeidentificationMethod" not in dataset and "DeidentificationMethodCodeSequence" not in dataset:
        dataset.pop("PatientIdentityRemoved", None)  # which must not stand without a method (PS3.3 C.7.1.1)


def without_patient(header: Dataset) -> Dataset:
    """A header with empty patient and study: highdicom reads them from the first image, and fails at odd
    values there."""
    header = copy.deepcopy(header)  # a plain copy shares its elements with the series
    study_instance_uid = header.StudyInstanceUID
    for tag in [tag for tag in header.keys() if tag.group in (0x0010, 0x0012)]:
        del header[tag]
    for keyword in ("SpecificCharacterSet", *COPIED):
        header.pop(keyword, None)
    for keyword in EMPTY_IF_UNKNOWN:
        setattr(header, keyword, "")
    header.StudyInstanceUID = study_instance_uid
    return header


def maker(model: tuple[str, str] | None) -> str:
    """Who made a file: medseg and its version, and the model (name, version) where there is one with a
    name."""
    return f"medseg {medseg.__version__}" + (f", model {model[0]} {model[1]}" if model and model[0] else "")


# ---- what is there already ---------------------------------------------------------------------------------


def refuse_approved(out: Path) -> None:
    """Raise StructureError when ``out`` holds an APPROVED structure set."""
    if not out.exists():
        return
    try:
        approved = open_structure_set(out).get("ApprovalStatus") == "APPROVED"
    except (InputError, StructureError):
        return
    if approved:
        raise StructureError(
            f"{out}: holds an APPROVED structure set, which is never overwritten; choose another name."
        )


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise InputError when there is a file at ``out`` that was not allowed to be replaced."""
    if out.exists() and not overwrite:
        raise InputError(
            f"{out}: exists and is left as it is; choose another name, or allow it with `overwrite`."
        )


def check_is_no_image(out: Path, series: Series) -> None:
    """Raise InputError when ``out`` is one of the image files, which must not be overwritten, or a folder.

    TypeError for a ``series`` that is none, since every writer comes by here first.
    """
    require_series(series)
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name the file to write.")
    if out.exists() and any(out.samefile(file) for file in set(series.files) if file.exists()):
        raise InputError(
            f"{out}: is an image of the series, which is never overwritten; choose another name."
        )


def check_same_patient(patient: Mapping[str, str], series: Series, what: object) -> None:
    """Raise GeometryError when a field that tells people apart differs from that of the images.

    ``patient``: fields of PATIENT_FIELDS; see :func:`medseg.dicom.patient.differing_field`. The message names
    the field, not what stands in it.
    """
    field = differing_field(patient, patient_of(series.headers[0]))
    if field is not None:
        raise PatientError(
            f"{what}: its {field} is not that of the images; it belongs to another patient.", field
        )


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
