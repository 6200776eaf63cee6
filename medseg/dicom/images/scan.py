"""Finding series: every file of a folder is opened once, its header read, its pixels left alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medseg.dicom.damage import PARSE_ERRORS, reading_failed
from medseg.dicom.images.header import (
    MODALITIES,
    MULTI_FRAME_CLASSES,
    PROJECTION_CLASSES,
    REGISTRATION_CLASSES,
    RTSTRUCT_CLASS_UID,
    SLICE_CLASSES,
    class_name,
    integer,
    read_header,
    require_pixels,
)
from medseg.dicom.plain import Known, plain_decimals, tag_of, value_of
from medseg.errors import InputError, unusable

READ_LATER = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        "SpecificCharacterSet",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "StudyDescription",
        "AccessionNumber",
        "ReferringPhysicianName",
        "PositionReferenceIndicator",
        "FrameOfReferenceUID",
        "SeriesDescription",
        "Modality",
        "PixelPaddingValue",
        "LossyImageCompression",
        "RescaleType",
        "Units",
    )
)
"""Tags of attributes of a slice that other modules read or copy."""


SMALLEST_SPACING_MM, LARGEST_SPACING_MM = 1e-4, 1e3
"""Of pixels: a tenth of a micrometre, and a metre."""

LARGEST_POSITION_MM = 1e6
"""A kilometre from the origin is no place of a patient."""

RESCALED = {True: (1e-6, 1e7), False: (1e-30, 1e30)}
"""By whether it is a CT: (least RescaleSlope, largest value of 16 bits). Beyond lie damage and float32's end;
PET counts in becquerel or in parts of them."""


class FileNote(NamedTuple):
    """A file that is not part of a series, and why. ``series_uid``: where its header still told it."""

    path: Path
    why: str
    series_uid: str | None = None


@dataclass(frozen=True, eq=False)
class SliceRecord:
    """One slice: where its pixels are stored and where it lies.

    ``frame``: None for a single-frame file, else the frame's number from 1. ``dataset``: the header without
    pixels. ``position_lps_mm`` (3,), ``orientation`` (6,) unit cosines, ``spacing_mm`` (between rows, between
    columns). ``rescale``: (slope, intercept), or None where the file has none. ``image_types``: the values of
    ImageType and of the frame's own FrameType.
    """

    path: Path
    frame: int | None
    dataset: Dataset = field(repr=False)
    position_lps_mm: np.ndarray
    orientation: np.ndarray
    spacing_mm: np.ndarray
    rescale: tuple[float, float] | None
    rescale_type: str
    image_types: tuple[str, ...]

    @property
    def is_localizer(self) -> bool:
        """True when the image is called a localizer (DICOM PS3.3 C.8.2.1.1.1)."""
        return "LOCALIZER" in self.image_types

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows, columns)."""
        return int(value_of(self.dataset, "Rows")), int(value_of(self.dataset, "Columns"))


@dataclass(frozen=True, eq=False)
class SeriesFiles:
    """The slices of one series in the order they were found, with nothing checked between them."""

    series_uid: str
    modality: str
    description: str
    study_uid: str
    patient_id: str = field(repr=False)
    records: list[SliceRecord] = field(default_factory=list)

    @property
    def is_localizer(self) -> bool:
        return all(record.is_localizer for record in self.records)

    def __str__(self) -> str:
        words = [self.modality, self.description, f"{len(self.records)} slices"]
        return f"{self.series_uid} ({', '.join(word for word in words if word)})"


@dataclass(frozen=True, eq=False)
class Found:
    """What a scan saw: each file is in ``series`` (by UID), ``structure_sets``, ``registrations``,
    ``ignored`` or ``broken``."""

    root: str
    series: dict[str, SeriesFiles] = field(default_factory=dict)
    structure_sets: list[Path] = field(default_factory=list)
    registrations: list[Path] = field(default_factory=list)
    ignored: list[FileNote] = field(default_factory=list)
    broken: list[FileNote] = field(default_factory=list)


def find_series(path: str | os.PathLike | Iterable[str | os.PathLike]) -> Found:
    """Read the header of every file of a folder (nested), of one file or of a list, and group slices by
    series.

    Pixels are not decoded. Files that are no DICOM or no slices go to ``ignored``, damaged and unreadable
    ones to ``broken``, with the folders that cannot be looked into; a folder without images gives an empty
    ``series``. Raises InputError only when ``path`` is no file or folder.
    """
    files, found = _list_files(path)
    known: Known = {}
    for file in files:
        with warnings.catch_warnings():
            # pydicom warns about values it can live with; what medseg needs of them is checked below.
            warnings.simplefilter("ignore")
            _sort_in(file, found, known)
    return found


def _list_files(path) -> tuple[list[Path], Found]:
    """Files in a stable order, and an empty scan but for the folders that cannot be looked into."""
    if not isinstance(path, (str, os.PathLike)):
        files = [Path(item) for item in path]
        for file in files:
            if not file.is_file():
                raise unusable(file, "a file")
        return files, Found(f"list of {len(files)} files")
    path = Path(path)
    if path.is_file():
        return [path], Found(str(path))
    if not path.is_dir():
        raise unusable(path)
    files, refused = files_below(path)
    return files, Found(str(path), broken=[FileNote(folder, why) for folder, why in refused.items()])


def files_below(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """(every file in a folder and the folders below it, sorted; {folder that cannot be looked into: why}).

    Links to folders are not followed. Pipes and devices, whose opening would hang, are left out.
    """
    refused: dict[Path, str] = {}

    def note(error: OSError) -> None:
        refused[Path(error.filename)] = f"the folder cannot be read ({error.strerror})"

    files: list[Path] = []
    for where, _, names in os.walk(folder, onerror=note):
        if os.access(where, os.X_OK):
            files += (file for file in map(Path(where).joinpath, names) if file.is_file())
        else:
            refused[Path(where)] = "the folder cannot be entered (no right to its files)"
    return sorted(files), refused


def _sort_in(path: Path, found: Found, known: Known) -> None:
    """Put one file into the list of ``found`` where it belongs."""
    dataset = None
    try:
        dataset, pixels = read_header(path, known)
        if dataset is None:
            found.ignored.append(FileNote(path, "not DICOM"))
            return
        sop_class = str(value_of(dataset, "SOPClassUID", ""))
        if sop_class == RTSTRUCT_CLASS_UID:
            found.structure_sets.append(path)
        elif sop_class in REGISTRATION_CLASSES:
            found.registrations.append(path)
        elif sop_class in SLICE_CLASSES:
            require_pixels(dataset, pixels)
            _add_slices(path, dataset, found)
        elif sop_class in PROJECTION_CLASSES:
            kind = PROJECTION_CLASSES[sop_class]
            found.ignored.append(
                FileNote(path, f"projection radiograph ({kind}), not a slice", _series_uid(dataset))
            )
        else:
            # A damaged slice must not pass for something that is no slice: it would be missed at the end of a
            # stack.
            declared = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
            kind = sop_class or declared
            may_be_slice = pixels is not None and str(dataset.get("Modality", "")) in MODALITIES
            unknown = class_name(kind) == kind and (may_be_slice or declared != sop_class)
            if declared in SLICE_CLASSES or unknown or not UID(kind).is_valid:
                raise InputError(
                    f"SOPClassUID {sop_class[:64]!r}; expected that of a slice (the header is damaged)"
                )
            found.ignored.append(
                FileNote(path, f"{_object_name(dataset, kind)}, not a slice", _series_uid(dataset))
            )
    except InputError as error:
        found.broken.append(FileNote(path, str(error), _series_uid(dataset)))
    except PARSE_ERRORS as error:
        found.broken.append(FileNote(path, reading_failed(error), _series_uid(dataset)))


def _object_name(dataset: Dataset, sop_class: str) -> str:
    """What a DICOM object is, for people: "RT Plan Storage (RTPLAN)"."""
    modality = str(dataset.get("Modality", ""))
    return class_name(sop_class) + (f" ({modality})" if modality else "")


def _series_uid(dataset: Dataset | None) -> str | None:
    try:
        return str(dataset.get("SeriesInstanceUID", "")) or None if dataset is not None else None
    except PARSE_ERRORS:
        return None


# ---- one slice ---------------------------------------------------------------------------------------------


def _add_slices(path: Path, dataset: Dataset, found: Found) -> None:
    """Append the slices of one file to its series."""
    # pydicom parses a value when it is asked for: damage must show here, file by file
    for element in list(dataset.values()):
        if isinstance(element, RawDataElement) and element.tag in READ_LATER:
            dataset[element.tag]
    series_uid = str(value_of(dataset, "SeriesInstanceUID", ""))
    if not series_uid or not value_of(dataset, "SOPInstanceUID"):
        raise InputError("no SeriesInstanceUID or SOPInstanceUID, so nothing can refer to this image")
    multi_frame = dataset.SOPClassUID in MULTI_FRAME_CLASSES
    frames = integer(dataset, "NumberOfFrames", 1)
    if multi_frame:
        groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
        if len(groups) != frames:
            raise InputError(f"{frames} frames, but {len(groups)} per-frame functional groups")
        records = [_record(path, dataset, index + 1) for index in range(frames)]
    elif frames != 1:
        raise InputError(f"{frames} frames in a single-frame {dataset.SOPClassUID.name}")
    else:
        records = [_record(path, dataset, None)]
    if series_uid not in found.series:
        modality = SLICE_CLASSES[dataset.SOPClassUID]
        description, study_uid, patient_id = (
            str(dataset.get(keyword, ""))
            for keyword in ("SeriesDescription", "StudyInstanceUID", "PatientID")
        )
        found.series[series_uid] = SeriesFiles(series_uid, modality, description, study_uid, patient_id)
    found.series[series_uid].records.extend(records)


def _record(path: Path, dataset: Dataset, frame: int | None) -> SliceRecord:
    """Place and rescale of one slice, from the plain attributes or from the functional groups of a frame."""
    position = _numbers(_macro(dataset, frame, "PlanePositionSequence"), "ImagePositionPatient", 3)
    orientation = _numbers(_macro(dataset, frame, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    spacing = _numbers(_macro(dataset, frame, "PixelMeasuresSequence"), "PixelSpacing", 2)
    if not (SMALLEST_SPACING_MM <= spacing.min() and spacing.max() <= LARGEST_SPACING_MM):
        raise InputError(
            f"PixelSpacing {spacing[0]:g} x {spacing[1]:g} mm; expected positive numbers, of "
            f"{SMALLEST_SPACING_MM:g} to {LARGEST_SPACING_MM:g} mm"
        )
    if np.abs(position).max() > LARGEST_POSITION_MM:
        raise InputError(
            f"ImagePositionPatient {np.abs(position).max():g} mm from the origin; expected at most "
            f"{LARGEST_POSITION_MM:g} mm"
        )
    cosines = orientation.reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(cosines[0] @ cosines[1]) > 1e-3:
        raise InputError(
            f"ImageOrientationPatient {orientation.tolist()}; expected two perpendicular unit vectors"
        )
    values = _macro(dataset, frame, "PixelValueTransformationSequence")
    if tag_of("ModalityLUTSequence") in values:
        raise InputError("values are mapped by a Modality LUT; expected RescaleSlope and RescaleIntercept")
    rescale = None
    if tag_of("RescaleSlope") in values or tag_of("RescaleIntercept") in values:
        slope, intercept = _numbers(values, "RescaleSlope", 1)[0], _numbers(values, "RescaleIntercept", 1)[0]
        rescale = (float(slope), float(intercept))
        _require_sane(rescale, SLICE_CLASSES[dataset.SOPClassUID])
    return SliceRecord(
        path,
        frame,
        dataset,
        position,
        (cosines / lengths[:, None]).ravel(),
        spacing,
        rescale,
        str(value_of(values, "RescaleType", "") or ""),
        _image_types(dataset, frame),
    )


def _require_sane(rescale: tuple[float, float], modality: str) -> None:
    """InputError for a slope and intercept that make all values one, or far larger than any of a scanner."""
    slope, intercept = abs(rescale[0]), abs(rescale[1])
    smallest, largest = RESCALED[modality == "CT"]
    if slope < smallest or slope * 2**16 + intercept > largest:
        raise InputError(
            f"RescaleSlope {rescale[0]:g} and RescaleIntercept {rescale[1]:g} make absurd values of 16 bits; "
            f"expected a slope above {smallest:g} and values below {largest:g}"
        )


def _macro(dataset: Dataset, frame: int | None, sequence: str) -> Dataset:
    """Where an attribute stands: the frame's own functional group, else the shared one; a plain slice's data
    set."""
    if frame is None:
        return dataset
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (dataset.PerFrameFunctionalGroupsSequence[frame - 1], *shared):
        items = group.get(sequence)
        if items:
            return items[0]
    return Dataset()


def _image_types(dataset: Dataset, frame: int | None) -> tuple[str, ...]:
    kinds = [value_of(dataset, "ImageType")]
    if frame is not None:
        for sequence in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence"):
            kinds.append(_macro(dataset, frame, sequence).get("FrameType"))
    return tuple(str(word) for kind in kinds if kind for word in ([kind] if isinstance(kind, str) else kind))


def _numbers(dataset: Dataset, keyword: str, count: int) -> np.ndarray:
    """float64 (count,) of one attribute; InputError when it is absent, of another length or not finite
    numbers."""
    plain = plain_decimals(dataset, keyword)
    if plain is not None and len(plain) == count:
        return np.array(plain)
    value = value_of(dataset, keyword)
    if value is None or value == "":
        raise InputError(f"no {keyword}, so the slice has no known place or value")
    try:
        numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (ValueError, TypeError) as error:
        raise InputError(f"{keyword} {str(value)[:60]!r} is not made of numbers") from error
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise InputError(f"{keyword} {str(value)[:60]!r}; expected {count} finite numbers")
    return numbers
