"""RTDOSE files: planned dose on its own grid, and the dose of any point of the patient.

Source: DICOM PS3.3 C.8.8.3 (RT Dose).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread
from scipy.ndimage import map_coordinates

from medseg import limits
from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.opening import read_dicom
from medseg.errors import GeometryError, InputError
from medseg.geometry import Geometry
from medseg.metrics.dose import DoseVolume, dose_volume
from medseg.shapes.boxes import box_of

RTDOSE_CLASS_UID = "1.2.840.10008.5.1.4.1.1.481.2"
RTPLAN_CLASS_UID = "1.2.840.10008.5.1.4.1.1.481.5"
WHOLE_PLANS = ("PLAN", "MULTI_PLAN", "FRACTION_SESSION")
"""DoseSummationType of files that hold the dose of all beams; others (BEAM, CONTROL_POINT) hold a part."""


@dataclass(frozen=True, eq=False)
class Dose:
    """Dose in Gy [plane, row, column] on ``geometry``. ``summation``: DoseSummationType. ``plan_uids``: of
    the plans it is of."""

    path: Path
    gy: np.ndarray
    geometry: Geometry
    summation: str
    plan_uids: tuple[str, ...]

    def at(self, points_lps_mm: np.ndarray) -> np.ndarray:
        """float64 (N,): Gy at points (N, 3), linear between grid points; nan outside the grid."""
        grid = self.geometry
        away = np.asarray(points_lps_mm, dtype=np.float64) - grid.origins_lps_mm[0]
        rows = away @ grid.row_step_lps_mm / (grid.row_step_lps_mm @ grid.row_step_lps_mm)
        columns = away @ grid.column_step_lps_mm / (grid.column_step_lps_mm @ grid.column_step_lps_mm)
        heights, positions = away @ grid.normal_lps, grid.slice_positions_mm - grid.slice_positions_mm[0]
        planes = np.interp(heights, positions, np.arange(len(positions)), left=np.nan, right=np.nan)
        places = np.stack([planes, rows, columns])
        inside = np.isfinite(planes) & (places >= -1e-6).all(0)
        inside &= (places <= np.array(grid.shape)[:, None] - 1 + 1e-6).all(0)
        found = np.full(len(away), np.nan)
        found[inside] = map_coordinates(self.gy, places[:, inside], order=1, mode="nearest")
        return found

    def of(self, mask: np.ndarray, geometry: Geometry) -> DoseVolume:
        """The dose-volume histogram of a bool mask [slice, row, column] on the images' ``geometry``: each
        voxel by the dose at its centre and its volume. GeometryError for another Frame of Reference,
        InputError for a structure that lies partly outside the dose grid."""
        ours, theirs = self.geometry.frame_of_reference_uid, geometry.frame_of_reference_uid
        if ours and theirs and ours != theirs:
            raise GeometryError(
                f"{self.path.name}: Frame of Reference {ours}, and the images have {theirs}; its dose cannot "
                "be laid on them."
            )
        if not mask.any():
            return dose_volume(np.empty(0), 0.0)
        doses, volumes = [], []
        box = box_of(mask)
        for index in range(box[0].start, box[0].stop):
            places = np.argwhere(mask[index])
            doses.append(self.at(geometry.points_lps_mm(index, places)))
            volumes.append(np.full(len(places), geometry.voxel_volumes_cc[index]))
        return dose_volume(np.concatenate(doses), np.concatenate(volumes))


def read_dose(path: str | Path) -> Dose:
    """The dose of an RTDOSE file. InputError for another kind of file, for relative dose (DoseUnits other
    than GY) and damage; GeometryError for a grid without a place."""
    path = Path(path)
    with warnings.catch_warnings(), damage_as_input_error(path):
        warnings.simplefilter("ignore")
        header = read_dicom(path)
        if str(header.get("SOPClassUID", "")) != RTDOSE_CLASS_UID:
            raise InputError(f"{path}: modality {header.get('Modality', 'unknown')}; expected an RTDOSE.")
        units = str(header.get("DoseUnits", ""))
        if units != "GY":
            raise InputError(
                f"{path}: DoseUnits {units!r}; expected GY: percent says nothing without a plan."
            )
        voxels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames", 1))
        limits.check("volume_voxels", voxels, f"{path}: the dose grid holds")
        dataset = dcmread(path)
        stored = dataset.pixel_array.astype(np.float32)
        gy = (stored if stored.ndim == 3 else stored[None]) * float(header.DoseGridScaling)
        planes, rows, columns = gy.shape
        order, geometry = _grid(path, header, (planes, rows, columns))
    uids = [str(row.ReferencedSOPInstanceUID) for row in header.get("ReferencedRTPlanSequence") or []]
    gy = gy[order]
    return Dose(path, gy, geometry, str(header.get("DoseSummationType", "")), tuple(uids))


def _grid(path: Path, header, shape: tuple[int, int, int]) -> tuple[np.ndarray, Geometry]:
    """(the stored planes in the order of their places, where they lie)."""
    offsets = np.atleast_1d(np.asarray(header.get("GridFrameOffsetVector", [0.0]), dtype=np.float64))
    if len(offsets) != shape[0]:
        raise InputError(f"{path}: {shape[0]} planes and {len(offsets)} GridFrameOffsetVector values.")
    position = np.asarray(header.ImagePositionPatient, dtype=np.float64)
    along_columns, along_rows = np.asarray(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    normal = np.cross(along_columns, along_rows)
    if abs(offsets[0]) > 1e-6:  # the second form of C.8.8.3.2: z of each plane instead of distances
        if abs(offsets[0] - position[2]) > 0.01 or abs(normal[2]) < 0.999:
            raise InputError(
                f"{path}: GridFrameOffsetVector begins with {offsets[0]:g}; expected 0, or z of the first "
                f"plane ({position[2]:g}) of an axial grid."
            )
        offsets = (offsets - offsets[0]) * np.sign(normal[2])
    order = np.argsort(offsets)  # some systems store the last plane first
    if (np.diff(offsets[order]) <= 0).any():
        raise GeometryError(f"{path}: two planes at one place; export the dose again.")
    row_mm, column_mm = (float(value) for value in header.PixelSpacing)
    origins = position + offsets[order, None] * normal
    frame = str(header.get("FrameOfReferenceUID") or "") or None
    return order, Geometry(
        (shape[0], shape[1], shape[2]), origins, along_rows * row_mm, along_columns * column_mm, frame
    )
