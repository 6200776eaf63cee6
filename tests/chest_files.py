"""Small radiographs of known pixels, as DX files and as plain pictures."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def ramp(rows=80, columns=100, top=4095):
    """uint16 numbers from 0 at the left edge to ``top`` at the right edge, brighter still in the lower
    half."""
    line = np.linspace(0, top, columns)
    return np.rint(np.stack([line * (0.5 if row < rows // 2 else 1.0) for row in range(rows)])).astype(
        np.uint16
    )


def write_dx(path, pixels=None, bits=12, **changes):
    """A DX file of pydicom's; ``changes`` set attributes, None deletes them."""
    pixels = ramp() if pixels is None else pixels
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = DX, generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality = generate_uid(), generate_uid(), "DX"
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "Doe^Jane", "7", "", "F"
    d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = (
        "20260101",
        "101010",
        "1",
        "",
        "",
    )
    d.SeriesNumber, d.InstanceNumber, d.Manufacturer, d.PatientOrientation = 1, 1, "test", ["L", "F"]
    d.Rows, d.Columns = pixels.shape[-2:]
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit = 8 * pixels.dtype.itemsize, bits, bits - 1
    d.PixelData = pixels.tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(d, keyword)
        else:
            setattr(d, keyword, value)
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = (
        d.SOPClassUID,
        d.SOPInstanceUID,
    )
    d.save_as(path, enforce_file_format=True)
    return path


def picture(rows=80, columns=100):
    return (ramp(rows, columns) // 16).astype(np.uint8)
