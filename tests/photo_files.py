"""Small photographs of known pixels, as Ophthalmic Photography files and as plain pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, generate_uid

OP8, OP16 = "1.2.840.10008.5.1.4.1.1.77.1.5.1", "1.2.840.10008.5.1.4.1.1.77.1.5.2"
ENCODED = {JPEGBaseline8Bit: ("JPEG", {"quality": 95}), JPEG2000Lossless: ("JPEG2000", {"mct": 1})}


def colours(rows=40, columns=60):
    """uint8 (rows, columns, 3): red rises to the right, green downwards, blue is noise."""
    rng = np.random.default_rng(0)
    pixels = np.empty((rows, columns, 3), np.uint8)
    pixels[..., 0] = np.linspace(10, 250, columns)
    pixels[..., 1] = np.linspace(5, 200, rows)[:, None]
    pixels[..., 2] = rng.integers(0, 255, (rows, columns))
    return pixels


def fundus_bytes(patient=1, time_point=0, side=256):
    """uint8 (side, side, 3) of the phantom."""
    from medseg.phantoms.fundus import make_fundus

    return np.rint(make_fundus(patient, time_point, side).image * 255).astype(np.uint8)


def write_op(path, pixels, bits=8, syntax=ExplicitVRLittleEndian, **changes):
    """An Ophthalmic Photography file; ``changes`` set attributes, None deletes them."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = syntax
    d.SOPClassUID, d.SOPInstanceUID = OP8 if bits == 8 else OP16, generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality = generate_uid(), generate_uid(), "OP"
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "Doe^Jane", "7", "", "F"
    d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber = "20260101", "101010", "1", ""
    d.ReferringPhysicianName, d.SeriesNumber, d.InstanceNumber, d.Manufacturer = "", 1, 1, "test"
    d.PatientOrientation = ["L", "F"]
    d.Rows, d.Columns = pixels.shape[:2]
    d.NumberOfFrames, d.PixelRepresentation = 1, 0
    d.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    d.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        d.PlanarConfiguration = 0
    d.BitsAllocated, d.BitsStored, d.HighBit = 8 * pixels.dtype.itemsize, bits, bits - 1
    d.PixelData = pixels.tobytes()
    if syntax in ENCODED:
        file = io.BytesIO()
        kind, options = ENCODED[syntax]
        if kind == "JPEG":
            Image.fromarray(pixels).save(file, kind, **options)
        else:
            Image.fromarray(pixels).save(file, kind, irreversible=False, no_jp2=True, **options)
        d.PixelData = encapsulate([file.getvalue()])
    for keyword, value in changes.items():
        if value is None:
            delattr(d, keyword)
        else:
            setattr(d, keyword, value)
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    d.save_as(path, enforce_file_format=True)
    return path
