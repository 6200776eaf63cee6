"""A small structure set for a test to change by hand, and what is said when it is read."""

from __future__ import annotations

import warnings

import numpy as np

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
