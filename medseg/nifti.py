"""Masks as NIfTI files on the image's own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.atomic import atomic_path
from medseg.errors import GeometryError
from medseg.geometry import Geometry


def write_mask(mask: np.ndarray, geometry: Geometry, out: str | Path) -> Path:
    """Write a bool mask [slice, row, column] as uint8 NIfTI (x=column, y=row, z=slice), atomically.

    An empty mask gives a file of zeros. Raises GeometryError for a stack that is not a plain box of voxels.
    """
    import nibabel

    if not geometry.is_regular:
        kind = "tilted" if geometry.is_uniform else "uneven"
        raise GeometryError(f"{Path(out).name}: the slices are {kind}, which NIfTI cannot describe; write an RTSTRUCT instead.")
    if mask.shape != geometry.shape:
        raise GeometryError(f"{Path(out).name}: mask {mask.shape} for an image of {geometry.shape} (slice, row, column).")
    image = nibabel.Nifti1Image(mask.astype(np.uint8).transpose(2, 1, 0), geometry.affine_ras)
    image.header.set_xyzt_units("mm")
    image.set_qform(geometry.affine_ras, code=1)
    image.set_sform(geometry.affine_ras, code=1)
    with atomic_path(out) as temporary:
        nibabel.save(image, temporary)
    return Path(out)
