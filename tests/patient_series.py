"""A small patient of three series: a ball that is bright on CT and MR and hot on PET."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.geometry import Geometry
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm, write_series
from medseg.phantoms.several import write_companions

CT_FRAME = "1.2.826.1"
CENTRE_LPS_MM = np.array([8.0, -4.0, 6.0])
RADIUS_MM = 14.0


def ct_geometry(frame: str = CT_FRAME) -> Geometry:
    return stack_geometry((24, 40, 40), pixel_spacing_mm=(2.0, 2.0), frame_of_reference_uid=frame)


def ball(geometry: Geometry) -> np.ndarray:
    """bool: voxels whose centres lie within the ball."""
    return np.stack(
        [
            np.linalg.norm(voxel_points_lps_mm(geometry, k) - CENTRE_LPS_MM, axis=-1) <= RADIUS_MM
            for k in range(geometry.shape[0])
        ]
    )


def write_patient(folder: Path, seed: int | str = 0, frame: str = CT_FRAME) -> Path:
    """``folder``/CT (0 and 1000 HU), PET (SUV 0.5 and 5), MR (200 and 800) and REG.dcm."""
    geometry = ct_geometry(frame)
    inside = ball(geometry)
    write_series(np.where(inside, 1000.0, 0.0), geometry, folder / "CT", seed=seed)
    write_companions(folder, geometry, np.where(inside, 5.0, 0.5), np.where(inside, 800.0, 200.0), seed=seed)
    return folder
