"""Any geometry, and a writer of DICOM series that conform to the standard: what every phantom is made
with."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

import medseg
from medseg.errors import GeometryError, InputError
from medseg.files import atomic_path
from medseg.geometry import Geometry

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""ImageOrientationPatient of an axial slice: columns run to the patient's left, rows to posterior."""

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
"""Modalities that write_series knows, with their SOP Class."""

_MODALITY_ATTRIBUTES = {
    "CT": {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "KVP": "120",
        "RescaleType": "HU",
        "RescaleIntercept": -1024,
    },
    "MR": {
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "EchoTime": "10",
        "EchoTrainLength": "1",
        "RepetitionTime": "500",
        "RescaleIntercept": 0,
    },
    "PT": {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SeriesDate": "20260101",
        "SeriesTime": "120000",
        "Units": "BQML",
        "CountsSource": "EMISSION",
        "SeriesType": ["STATIC", "IMAGE"],
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY"],
        "CollimatorType": "NONE",
        "FrameReferenceTime": "0",
        "ActualFrameDuration": "60000",
        "DecayFactor": "1",
        "AcquisitionDate": "20260101",
        "AcquisitionTime": "120000",
        "RadiopharmaceuticalInformationSequence": [],
        "PatientOrientationCodeSequence": [],
        "PatientGantryRelationshipCodeSequence": [],
        "RescaleIntercept": 0,
    },
}


# ---- geometries --------------------------------------------------------------------------------------------


def stack_geometry(
    shape: tuple[int, int, int],
    *,
    gaps_mm: float | Sequence[float] = 3.0,
    pixel_spacing_mm: tuple[float, float] = (1.0, 1.0),
    orientation: Sequence[float] = AXIAL,
    tilt_degrees: float = 0.0,
    centre_lps_mm: Sequence[float] = (0.0, 0.0, 0.0),
    frame_of_reference_uid: str | None = None,
) -> Geometry:
    """Geometry of ``shape`` (slices, rows, columns) whose middle lies at ``centre_lps_mm``.

    ``gaps_mm``: one distance between slices, or one for each of the slices - 1 gaps. ``pixel_spacing_mm``:
    (between rows, between columns). ``orientation``: six cosines as in ImageOrientationPatient, made exactly
    perpendicular. ``tilt_degrees``: the stack leans towards its rows by this angle, as with a tilted gantry.
    """
    along_columns = np.asarray(orientation[:3], dtype=np.float64)
    along_columns = along_columns / np.linalg.norm(along_columns)
    along_rows = np.asarray(orientation[3:], dtype=np.float64)
    along_rows = along_rows - (along_rows @ along_columns) * along_columns
    along_rows = along_rows / np.linalg.norm(along_rows)
    gaps = np.broadcast_to(np.asarray(gaps_mm, dtype=np.float64), (shape[0] - 1,))
    heights_mm = np.concatenate([[0.0], np.cumsum(gaps)])
    heights_mm = heights_mm - (heights_mm[0] + heights_mm[-1]) / 2
    upwards = np.cross(along_columns, along_rows) + np.tan(np.deg2rad(tilt_degrees)) * along_rows
    row_step, column_step = along_rows * pixel_spacing_mm[0], along_columns * pixel_spacing_mm[1]
    corner = np.asarray(centre_lps_mm) - row_step * (shape[1] - 1) / 2 - column_step * (shape[2] - 1) / 2
    return Geometry(
        shape, corner + heights_mm[:, None] * upwards, row_step, column_step, frame_of_reference_uid
    )


def voxel_points_lps_mm(geometry: Geometry, index: int) -> np.ndarray:
    """float64 (rows, columns, 3): LPS mm of every voxel centre of one slice."""
    rows, columns = geometry.shape[1:]
    return (
        geometry.origins_lps_mm[index]
        + np.arange(rows)[:, None, None] * geometry.row_step_lps_mm
        + np.arange(columns)[None, :, None] * geometry.column_step_lps_mm
    )


# ---- DICOM writing -----------------------------------------------------------------------------------------


def phantom_uid(*words) -> str:
    """A UID under 2.25 (DICOM PS3.5 B.2) that is always the same for the same words."""
    digest = hashlib.sha256("|".join(str(word) for word in words).encode()).hexdigest()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digest).int}"


def write_series(
    volume_hu: np.ndarray, geometry: Geometry, out_dir, *, modality: str = "CT", seed: int | str = 0, **header
) -> list[Path]:
    """Write a volume as a DICOM series of single-frame files that conform to the standard; return them in
    stack order.

    ``volume_hu``: numbers [slice, row, column] of the geometry's shape; rounded to int16 steps of
    RescaleSlope. ``seed``: makes all UIDs, so that the same seed gives the same files and another seed
    another patient and study. ``header``: DICOM keyword = value for every slice; a function is called with
    the slice index; None removes the attribute. RescaleSlope and RescaleIntercept given here change the
    stored numbers, not the volume.

    Raises GeometryError when volume and geometry differ in shape, InputError for an unknown modality and for
    values that int16 cannot hold. Existing files of the same names are replaced.
    """
    volume_hu = np.asarray(volume_hu)
    if volume_hu.shape != geometry.shape:
        raise GeometryError(
            f"volume {volume_hu.shape} on a geometry of {geometry.shape}; expected the same shape."
        )
    if modality not in SOP_CLASSES:
        raise InputError(f"modality {modality!r}: expected one of {', '.join(SOP_CLASSES)}.")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(geometry.shape[0]):
        dataset = _slice_header(geometry, index, modality, seed)
        for keyword, value in header.items():
            value = value(index) if callable(value) else value
            if value is None and keyword in dataset:
                delattr(dataset, keyword)
            elif value is not None:
                setattr(dataset, keyword, value)
        _set_pixels(dataset, volume_hu[index])
        paths.append(save_dicom(dataset, out_dir / f"{modality}_{index + 1:04d}.dcm"))
    return paths


def _slice_header(geometry: Geometry, index: int, modality: str, seed) -> Dataset:
    """Every attribute of one slice but its pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = SOP_CLASSES[modality]
    dataset.SOPInstanceUID = phantom_uid("instance", modality, seed, index)
    dataset.Modality = modality
    dataset.PatientName, dataset.PatientID = "PHANTOM^MEDSEG", f"PHANTOM-{seed}"[:64]
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = dataset.PositionReferenceIndicator = ""
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.StudyInstanceUID = phantom_uid("study", seed)
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "1", "20260101", "120000"
    dataset.SeriesInstanceUID = phantom_uid("series", modality, seed)
    dataset.SeriesNumber, dataset.SeriesDescription = 1, "medseg phantom"
    dataset.ContentDate, dataset.ContentTime = dataset.StudyDate, dataset.StudyTime
    dataset.FrameOfReferenceUID = geometry.frame_of_reference_uid or phantom_uid("frame of reference", seed)
    dataset.Manufacturer, dataset.ManufacturerModelName = "medseg", "phantom"
    dataset.SoftwareVersions = medseg.__version__
    dataset.AcquisitionNumber, dataset.InstanceNumber = 1, index + 1
    row_mm, column_mm = geometry.pixel_spacing_mm
    cosines = [*(geometry.column_step_lps_mm / column_mm), *(geometry.row_step_lps_mm / row_mm)]
    dataset.ImageOrientationPatient = [format_number_as_ds(float(cosine) + 0.0) for cosine in cosines]
    dataset.ImagePositionPatient = [
        format_number_as_ds(float(mm) + 0.0) for mm in geometry.origins_lps_mm[index]
    ]
    dataset.PixelSpacing = [format_number_as_ds(mm) for mm in (row_mm, column_mm)]
    thickness_mm = geometry.slice_thickness_mm[index]
    dataset.SliceThickness = None if np.isnan(thickness_mm) else format_number_as_ds(float(thickness_mm))
    dataset.RescaleSlope = 1
    if modality == "PT":
        dataset.NumberOfSlices, dataset.ImageIndex = geometry.shape[0], index + 1
    else:
        dataset.PatientPosition = "HFS"
    for keyword, value in _MODALITY_ATTRIBUTES[modality].items():
        setattr(dataset, keyword, value)
    return dataset


def _set_pixels(dataset: Dataset, slice_hu: np.ndarray) -> None:
    """Store one slice [row, column] as int16 through the slice's own RescaleSlope and RescaleIntercept."""
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    stored = np.rint((slice_hu.astype(np.float64) - intercept) / slope)
    if not (np.isfinite(stored).all() and stored.min() >= -32768 and stored.max() <= 32767):
        raise InputError(
            f"values {slice_hu.min()} to {slice_hu.max()} do not fit int16 with slope {slope}, intercept "
            f"{intercept}."
        )
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = stored.astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"


def save_dicom(dataset: Dataset, path: Path) -> Path:
    """Write one explicit little endian file under a temporary name, then rename it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), dataset, file_meta=meta, preamble=b"\0" * 128)
    with atomic_path(path) as temporary:
        file.save_as(temporary, enforce_file_format=True)
    return path
