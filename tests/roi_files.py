"""Structure sets on a small CT of six slices, and what reading them says."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom

from medseg.dicom import read_rtstruct
from medseg.errors import MedsegWarning

SHAPE = (6, 20, 24)


def box(rows, columns, slices=slice(1, 5)):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slices, rows, columns] = True
    return mask


def contours(dataset, roi=0):
    return dataset.ROIContourSequence[roi].ContourSequence


def said(path, series):
    """(masks, everything that was warned of, as one text)"""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masks = read_rtstruct(path, series)
    return masks, " ".join(str(warning.message) for warning in caught if warning.category is MedsegWarning)


def accepted(path, series, *allow):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masks = read_rtstruct(path, series, allow=allow)
    return masks, " ".join(str(warning.message) for warning in caught if warning.category is MedsegWarning)


def set_points(contour, points_lps_mm):
    """Give a contour item other points (n, 3), and say their number."""
    points = np.asarray(points_lps_mm, dtype=float).reshape(-1, 3)
    contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
    contour.NumberOfContourPoints = len(points)


def points_of(contour):
    return np.array(contour.ContourData, dtype=float).reshape(-1, 3)


def loop_on(small_ct, index, rows_columns, height_mm=0.0):
    """A contour item through (row, column) points of one slice, or ``height_mm`` above it."""
    item = pydicom.Dataset()
    item.ContourGeometricType = "CLOSED_PLANAR"
    geometry = small_ct.geometry
    set_points(item, geometry.points_lps_mm(index, rows_columns) + height_mm * geometry.normal_lps)
    return item


def only(*items):
    """An edit that leaves one structure with these contours."""

    def edit(dataset):
        dataset.ROIContourSequence[0].ContourSequence = pydicom.Sequence(items)

    return edit
