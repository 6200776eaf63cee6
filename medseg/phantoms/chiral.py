"""A phantom that no flip or turn leaves as it was: tests of orientation stand on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg.geometry import Geometry
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm


@dataclass(frozen=True)
class ChiralPhantom:
    """``volume_hu`` float32 and bool ``masks`` [slice, row, column] on ``geometry``, and true centres."""

    volume_hu: np.ndarray
    geometry: Geometry
    masks: dict[str, np.ndarray]
    points_lps_mm: dict[str, np.ndarray]


def chiral_phantom(geometry: Geometry | None = None) -> ChiralPhantom:
    """A body with an asymmetric L and a ball on the patient's left, drawn in patient space on any geometry.

    Whatever the slice orientation, the L stands superior with its foot to the left and its heel to posterior,
    so that every flip and swap of axes shows. Default: 30 axial slices of 48 x 56 voxels of 3 x 1.5 x 1.25
    mm. HU: outside -1000, body 0, L 500, Marker (a ball of 7 mm radius) 1000. ``points_lps_mm`` holds the
    true centre of Marker and of L's foot ("Foot"), a block of 24 x 8 x 9 mm that is a mask too.
    """
    if geometry is None:
        geometry = stack_geometry(
            (30, 48, 56), pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(7.0, -20.0, 110.0)
        )
    rows, columns = geometry.shape[1:]
    middle = geometry.shape[0] // 2
    centre = geometry.points_lps_mm(middle, [[(rows - 1) / 2, (columns - 1) / 2]])[0]
    marker = np.array([18.0, -14.0, 12.0])
    foot = np.array([0.0, 4.0, -16.5])
    masks = {name: np.zeros(geometry.shape, dtype=bool) for name in ("Body", "L", "Foot", "Marker")}
    for index in range(geometry.shape[0]):
        left, posterior, superior = np.moveaxis(voxel_points_lps_mm(geometry, index) - centre, -1, 0)
        masks["Body"][index] = (left / 32) ** 2 + (posterior / 32) ** 2 + (superior / 40) ** 2 <= 1
        stem = (np.abs(left + 8) <= 4) & (np.abs(posterior - 4) <= 4) & (np.abs(superior) <= 21)
        masks["Foot"][index] = (
            (np.abs(left - foot[0]) <= 12)
            & (np.abs(posterior - foot[1]) <= 4)
            & (np.abs(superior - foot[2]) <= 4.5)
        )
        heel = (np.abs(left + 8) <= 4) & (np.abs(posterior - 12) <= 4) & (np.abs(superior + 16.5) <= 4.5)
        masks["L"][index] = stem | masks["Foot"][index] | heel
        distances = np.stack([left - marker[0], posterior - marker[1], superior - marker[2]])
        masks["Marker"][index] = (distances**2).sum(0) <= 7.0**2
    volume_hu = np.where(masks["Body"], 0.0, -1000.0).astype(np.float32)
    volume_hu[masks["L"]], volume_hu[masks["Marker"]] = 500.0, 1000.0
    return ChiralPhantom(volume_hu, geometry, masks, {"Marker": centre + marker, "Foot": centre + foot})
