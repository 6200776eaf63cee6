"""Independent views of what medseg wrote: other programs, and DICOM files read with pydicom alone."""

from __future__ import annotations

import subprocess

import numpy as np
import pydicom


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def conformance_errors(program, path):
    result = subprocess.run(
        [program("dciodvfy"), "-new", str(path)], capture_output=True, text=True, check=False
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert any(line.startswith("RTStructureSet") for line in lines), lines[:3]
    return [line for line in lines if line.startswith("Error")]


def stored_contours(path):
    """{ROI name: [(geometric type, points (n, 3), image UID)]} with pydicom alone."""
    dataset = pydicom.dcmread(path)
    names = {row.ROINumber: row.ROIName for row in dataset.StructureSetROISequence}
    return {
        names[row.ReferencedROINumber]: [
            (
                contour.ContourGeometricType,
                np.array(contour.ContourData, dtype=float).reshape(-1, 3),
                contour.ContourImageSequence[0].ReferencedSOPInstanceUID,
            )
            for contour in row.get("ContourSequence", [])
        ]
        for row in dataset.ROIContourSequence
    }


def area_and_centroid(points):
    """Area and centroid of one planar polygon in space, by triangles from its first corner."""
    edges = points[1:] - points[0]
    crossed = np.cross(edges[:-1], edges[1:]) / 2
    normal = crossed.sum(0) / np.linalg.norm(crossed.sum(0))
    areas = crossed @ normal
    centres = (points[0] + points[1:-1] + points[2:]) / 3
    return areas.sum(), (areas[:, None] * centres).sum(0) / areas.sum()


def raw_contours(path):
    """{ROI number: [the bytes of each contour's coordinates]}"""
    dataset = pydicom.dcmread(path)
    return {
        int(row.ReferencedROINumber): [
            contour.get_item("ContourData").value for contour in row.get("ContourSequence", [])
        ]
        for row in dataset.ROIContourSequence
    }
