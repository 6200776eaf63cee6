"""Radiographs among the images: annotated on a grid of one slice, which is the picture's own pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.cases.nifti import load_image
from medseg.cases.radiograph import Radiograph, open_radiograph
from medseg.errors import InputError, sizes
from medseg.geometry import Geometry

if TYPE_CHECKING:
    from medseg.structures.structure import Structure

NO_RTSTRUCT = "output rtstruct: it needs slices, and a radiograph has none; take dicom_seg."


def pixel_grid(film: Radiograph) -> Geometry:
    """One slice of the film's rows and columns, the first pixel at 0, columns to the patient's left and rows
    downwards.

    It places nothing in the patient: MONAI Label's clients need some grid. Where the file says no spacing a
    pixel counts 1, as in the flat masks of ``medseg segment``.
    """
    row, column = film.spacing_mm or (1.0, 1.0)
    return Geometry((1, *film.shape), np.zeros((1, 3)), (0, row, 0), (column, 0, 0))


def read_flat_mask(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """bool [1, row, column] of a flat mask of :func:`medseg.cases.nifti.write_flat_mask`. InputError for one
    of another size than ``shape``."""
    mask = load_image(path)[1].T.astype(bool)[None]
    if mask.shape != shape:
        raise InputError(f"{path}: a mask of {sizes(mask.shape)} for a film of {sizes(shape)} pixels.")
    return mask


def write_film_seg(masks: dict[Structure, np.ndarray], source: str, out: Path) -> Path:
    """Write ``masks`` (bool [1, row, column]) as DICOM SEG that refers to the film in ``source``. InputError
    for a film that is a picture file."""
    from medseg.dicom.seg.write import write_projection_seg

    stored = open_radiograph(source).stored
    if stored is None:
        raise InputError("output dicom_seg: it refers to a DICOM image, and this one is a picture file.")
    return write_projection_seg({structure: mask[0] for structure, mask in masks.items()}, stored, out)
