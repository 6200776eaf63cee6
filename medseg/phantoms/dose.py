"""Dose grids made of formulas, as RTDOSE files on the frame of a series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medseg.geometry import Geometry
from medseg.phantoms.series import phantom_uid, voxel_points_lps_mm

STEPS_PER_GY = 1e6
"""Stored as 32-bit whole numbers of this fraction of a Gy."""


def write_dose(
    formula: Callable[[np.ndarray], np.ndarray], geometry: Geometry, out: str | Path, **header
) -> Path:
    """Write the dose ``formula(points_lps_mm)`` (Gy at points (…, 3)) on a grid of even planes as an RTDOSE
    file. ``header``: DICOM keyword = value, which replaces or adds (the patient and study of a series)."""
    planes = [formula(voxel_points_lps_mm(geometry, index)) for index in range(geometry.shape[0])]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    meta.MediaStorageSOPInstanceUID = phantom_uid("dose", str(out), geometry.shape)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(out), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.Modality, dataset.PatientID, dataset.PatientName = "RTDOSE", "phantom", "phantom"
    dataset.StudyInstanceUID = phantom_uid("dose study")
    dataset.SeriesInstanceUID = phantom_uid("dose series", str(out))
    dataset.FrameOfReferenceUID = geometry.frame_of_reference_uid or phantom_uid("frame")
    dataset.ImagePositionPatient = [round(float(mm), 6) for mm in geometry.origins_lps_mm[0]]
    along = (geometry.column_step_lps_mm, geometry.row_step_lps_mm)
    dataset.ImageOrientationPatient = [
        round(float(part), 10) for step in along for part in step / np.linalg.norm(step)
    ]
    dataset.PixelSpacing = list(geometry.pixel_spacing_mm)
    offsets = geometry.slice_positions_mm - geometry.slice_positions_mm[0]
    dataset.GridFrameOffsetVector = [round(float(mm), 6) for mm in offsets]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = geometry.shape
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    dataset.DoseGridScaling = 1 / STEPS_PER_GY
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 32
    dataset.HighBit, dataset.PixelRepresentation = 31, 0
    dataset.PixelData = np.round(np.stack(planes) * STEPS_PER_GY).astype("<u4").tobytes()
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    dataset.save_as(out, enforce_file_format=True)
    return Path(out)
