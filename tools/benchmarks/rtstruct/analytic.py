"""Seven bodies given by formulas: their contours as an RTSTRUCT written with pydicom alone, and their true
voxels."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

VERTICES = 360
SIZE = 200
CENTRE = (99.8, 100.3)
"""Row and column of the axis of all round bodies, in voxels of 1 mm: no outline passes a voxel centre."""

RTSTRUCT_CLASS_UID = "1.2.840.10008.5.1.4.1.1.481.3"


def radii_mm(name: str, z_mm: float) -> list[float]:
    """Radii of the circles that bound a body of revolution at a height from the middle slice: outer, inner,
    or none."""

    def half_chord(radius, offset=0.0):
        return (
            [offset + sign * np.sqrt(radius**2 - z_mm**2) for sign in (1, -1)] if abs(z_mm) < radius else []
        )

    if name == "Sphere":
        return half_chord(60.2)[:1]
    if name == "Cylinder":
        return [40.3] if abs(z_mm) < 70 else []
    if name == "Torus":
        return half_chord(20.2, offset=55.0)
    if name == "Hollow":
        return half_chord(60.2)[:1] + half_chord(45.4)[:1]
    if name == "Straw":
        return [8.3, 5.2] if abs(z_mm) < 85 else []
    raise KeyError(name)


def loops(name: str, z_mm: float) -> list[np.ndarray]:
    """Closed polygons (row, column) of a body at a height from the middle slice."""
    if name == "Cube":  # edges half-way between voxel centres: 101 x 101 x 101 voxels
        corners = np.array([[49.5, 49.5], [49.5, 150.5], [150.5, 150.5], [150.5, 49.5]])
        return [corners] if abs(z_mm) < 50.5 else []
    angle = (np.arange(VERTICES) + 0.5) * 2 * np.pi / VERTICES
    circle = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    if name == "Ellipsoid":
        share = np.sqrt(max(1 - (z_mm / 75.3) ** 2, 0.0))
        return [CENTRE + circle * (35.2 * share, 60.4 * share)] if share else []
    return [CENTRE + radius * circle for radius in radii_mm(name, z_mm)]


def true_mask(name: str) -> np.ndarray:
    """Bool [slice, row, column] of the voxel centres inside a body, by its formula."""
    z = (np.arange(SIZE) - (SIZE - 1) / 2)[:, None, None]
    row, column = np.arange(SIZE)[:, None], np.arange(SIZE)[None, :]
    if name == "Cube":
        across = (np.abs(row - 100) <= 50) & (np.abs(column - 100) <= 50)
        return across & (np.abs(z) < 50.5)
    y, x = row - CENTRE[0], column - CENTRE[1]
    if name == "Ellipsoid":
        return (z / 75.3) ** 2 + (y / 35.2) ** 2 + (x / 60.4) ** 2 < 1
    distance = np.hypot(y, x)
    bodies = {
        "Sphere": distance**2 + z**2 < 60.2**2,
        "Cylinder": (distance < 40.3) & (np.abs(z) < 70),
        "Torus": (distance - 55.0) ** 2 + z**2 < 20.2**2,
        "Hollow": (distance**2 + z**2 < 60.2**2) & (distance**2 + z**2 >= 45.4**2),
        "Straw": (distance < 8.3) & (distance >= 5.2) & (np.abs(z) < 85),
    }
    return bodies[name]


BODIES = ("Sphere", "Cube", "Cylinder", "Ellipsoid", "Torus", "Hollow", "Straw")


def write_analytic_rtstruct(ct_dir: Path, out: Path) -> None:
    """All bodies on the slices of a series of 1 mm voxels, holes as separate nested contours."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in ct_dir.iterdir()]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    dataset = _empty_structure_set(headers)
    for number, name in enumerate(BODIES, start=1):
        roi, contours, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = number, name, ""
        roi.ReferencedFrameOfReferenceUID = headers[0].FrameOfReferenceUID
        contours.ReferencedROINumber, contours.ROIDisplayColor = number, [255, 0, 0]
        contours.ContourSequence = Sequence(
            _contour(header, loop)
            for index, header in enumerate(headers)
            for loop in loops(name, index - (SIZE - 1) / 2)
        )
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(contours)
        dataset.RTROIObservationsSequence.append(observation)
    dataset.save_as(out, enforce_file_format=True)


def _contour(header: Dataset, loop: np.ndarray) -> Dataset:
    x, y, z = (float(mm) for mm in header.ImagePositionPatient)
    image, item = Dataset(), Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    item.ContourImageSequence = Sequence([image])
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(loop)
    item.ContourData = [f"{value:.4f}" for row, column in loop for value in (x + column, y + row, z)]
    return item


def _empty_structure_set(headers: list[Dataset]) -> Dataset:
    first = headers[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTSTRUCT_CLASS_UID, generate_uid()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTSTRUCT_CLASS_UID, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.StructureSetLabel, dataset.SeriesInstanceUID = (
        "RTSTRUCT",
        "ANALYTIC",
        generate_uid(),
    )
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, first[keyword].value)
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "", "", ""
    images = Sequence()
    for header in headers:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = (
            header.SOPClassUID,
            header.SOPInstanceUID,
        )
        images.append(image)
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, series.ContourImageSequence = first.SeriesInstanceUID, images
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = (
        "1.2.840.10008.3.1.2.3.1",
        first.StudyInstanceUID,
    )
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, Sequence([study])
    dataset.ReferencedFrameOfReferenceSequence = Sequence([frame])
    dataset.StructureSetROISequence, dataset.ROIContourSequence = Sequence(), Sequence()
    dataset.RTROIObservationsSequence = Sequence()
    return dataset
