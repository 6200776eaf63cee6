"""What every DICOM writer asks of a result before it writes: the image's own grid, a known frame, clear masks
and names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import GeometryError, MedsegWarning, StructureError
from medseg.structures.structure import Structure, check_names_are_unique, name_warnings, structure_from_name
from medseg.structures.tg263 import interpreted_type

if TYPE_CHECKING:
    from medseg.dicom.images.series import Series

ROUNDING = 1e-3
"""How far a probability may leave 0 to 1: averages over windows, as networks are run, end at 1.0000001."""


def check_masks(
    masks: Mapping[str | Structure, np.ndarray], series: Series
) -> list[tuple[Structure, str | Structure]]:
    """Structures with their keys in ``masks``, whose arrays lie on the grid of ``series``; for the arrays:
    mask_or_map.

    Arrays, bool masks or float maps with values between 0 and 1, are looked at one by one and not kept, since
    ``masks`` may make each when asked for it. A name becomes a structure with the type, colour and code that
    belong to it; a Structure without a type gets that of its name. Whole numbers 0 and 1, and floats that are
    all 0 or 1, count as bool. What TG-263 has against a name is said by a MedsegWarning. Raises
    StructureError for no masks, repeated names, a label map or values outside 0-1; GeometryError for another
    shape than the series' and for images without a Frame of Reference.
    """
    if not masks:
        raise StructureError("no structures were given; a DICOM file of structures needs at least one.")
    if not series.geometry.frame_of_reference_uid:
        raise GeometryError(
            f"series {series.series_instance_uid} has no Frame of Reference, so contours cannot refer to it; "
            "export the images with their FrameOfReferenceUID."
        )
    checked = []
    for key, array in masks.items():
        structure = key if isinstance(key, Structure) else structure_from_name(key)
        if not structure.interpreted_type:  # planning systems rename or drop structures that have no type
            structure = replace(structure, interpreted_type=interpreted_type(structure.name))
        array = mask_or_map(array, structure.name)
        if array.shape != series.geometry.shape:
            raise GeometryError(
                f"structure {structure.name}: mask of shape {array.shape} on images of "
                f"{series.geometry.shape} (slices, "
                "rows, columns). Nothing is flipped, cropped or resampled to fit."
            )
        checked.append((structure, key))
    check_names_are_unique(structure.name for structure, _ in checked)
    for sentence in name_warnings(structure.name for structure, _ in checked):
        warnings.warn(sentence, MedsegWarning, stacklevel=3)
    return checked


def mask_or_map(array: np.ndarray, name: str) -> np.ndarray:
    """The array as a bool mask, or as a map of probabilities as it is. StructureError for anything else."""
    array = np.asarray(array)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise StructureError(
            f"structure {name}: array of type {array.dtype}; expected bool, or floats from 0 to 1."
        )
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    rounding = 0 if array.dtype.kind in "iu" else ROUNDING
    if not (low >= -rounding and high <= 1 + rounding):
        hint = (
            "split a label map into one mask per structure"
            if array.dtype.kind in "iu"
            else "apply sigmoid or softmax"
        )
        raise StructureError(
            f"structure {name}: values from {low:.4g} to {high:.4g}; expected 0 to 1 ({hint})."
        )
    # Slice by slice, because the first slice of a map that holds anything tells.
    is_binary = array.dtype.kind in "iu" or all(((plane == 0) | (plane == 1)).all() for plane in array)
    return array.astype(bool) if is_binary else array
