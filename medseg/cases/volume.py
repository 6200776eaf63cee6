"""Volumes: one DICOM series, NIfTI or MetaImage file that a user points at, opened with its geometry.

A case source is a string: a folder that holds one DICOM series, ``FOLDER#SeriesInstanceUID`` where it holds
several, or a NIfTI or MetaImage file. MONAI keeps that string as ``filename_or_obj``, so writers at the end
of a pipeline find the case again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.cases.metaimage import is_metaimage, load_metaimage
from medseg.cases.nifti import is_nifti, load_image
from medseg.errors import InputError, unusable
from medseg.geometry import Geometry
from medseg.metrics import centre_lps_mm, volume_cc

if TYPE_CHECKING:  # pydicom is loaded only when a DICOM case is opened: NIfTI training must run without it
    from medseg.dicom import Series

UID_SEPARATOR = "#"

ALLOWABLE_AT_THE_GATE = {
    "out_of_distribution": "contour an image that is unlike those the bundle learned from, with a warning in "
    "every file",
}
"""What the gate of a bundle (:class:`medseg.transforms.CheckInputd`) can be told to accept (``allow``), and
what is done then."""


@dataclass(frozen=True, eq=False)
class Case:
    """One image to contour. ``volume``: float32 [slice, row, column], HU for CT. ``series`` is None for
    files without one: NIfTI and MetaImage."""

    source: str
    volume: np.ndarray
    geometry: Geometry
    series: Series | None

    kind = "volume"

    @property
    def shape(self) -> tuple[int, ...]:
        """(slices, rows, columns), which every mask of it has."""
        return self.geometry.shape

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader had to say about the series; empty where there is none."""
        return () if self.series is None else self.series.warnings

    def record(self) -> dict[str, Any]:
        """Input UIDs and geometry as plain values. No patient names."""
        return {"input": self._input(), "geometry": geometry_record(self.geometry)}

    def _input(self) -> dict[str, Any]:
        if self.series is None:
            return {"kind": "MetaImage" if is_metaimage(self.source) else "NIfTI", "files": 1}
        return {
            "kind": "DICOM",
            "modality": self.series.modality,
            "StudyInstanceUID": self.series.study_instance_uid,
            "SeriesInstanceUID": self.series.series_instance_uid,
            "SOPInstanceUIDs": list(dict.fromkeys(self.series.sop_instance_uids)),
        }

    def size_of(self, mask: np.ndarray) -> dict[str, Any]:
        """The volume in cc of a mask, or within a map's outlines, None on a single slice, which has no
        height; and the centre of mass, LPS mm, None when it is empty."""
        cc, centre = volume_cc(mask, self.geometry), centre_lps_mm(mask, self.geometry)
        return {
            "volume_cc": None if np.isnan(cc) else round(cc, 3),
            "centre_lps_mm": None if np.isnan(centre[0]) else [round(float(mm), 2) for mm in centre],
        }


def is_volume_file(path: str | Path) -> bool:
    """True for the name of a file that is a volume by itself: NIfTI or MetaImage."""
    return is_nifti(path) or is_metaimage(path)


def open_case(source: str, allow: tuple[str, ...] = ()) -> Case:
    """Open a case source. The last three stay in memory, so that reader and writers share one decoding.

    ``allow``: names of series faults to accept with a warning, see :func:`medseg.dicom.read_series`. Raises
    InputError or GeometryError in one line.
    """
    return _open(source, tuple(allow), fingerprint(source))


def source_path(source: str) -> Path:
    """The file or folder of a case source, without the SeriesInstanceUID that may follow it."""
    return Path(source if Path(source).exists() else source.rpartition(UID_SEPARATOR)[0] or source)


def fingerprint(source: str, leave_out: Path | None = None) -> tuple:
    """Sizes and times of the files, so that a folder which was exported anew is never answered from
    memory."""
    path = source_path(source)
    if not (path.is_file() or path.is_dir()):
        raise unusable(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    kept = [p for p in files if leave_out is None or leave_out not in p.parents]
    return tuple((os.fspath(p), p.stat().st_mtime_ns, p.stat().st_size) for p in kept)


def fingerprint_sha256(source: str, leave_out: Path | None = None) -> str:
    """Hex digest of names, sizes and times of a case's files: the same while nobody touched them.

    ``leave_out``: the folder of the results, which may lie inside the case's own folder.
    """
    return hashlib.sha256(repr(fingerprint(source, leave_out)).encode()).hexdigest()


@lru_cache(
    maxsize=3
)  # of a cohort: the case that is read ahead, the one in the network and the one being written
def _open(source: str, allow: tuple[str, ...], _files: tuple) -> Case:
    return read_case(source, allow)


def read_case(source: str, allow: tuple[str, ...] = ()) -> Case:
    """:func:`open_case` without its memory."""
    if is_nifti(source) and Path(source).is_file():
        return _open_nifti(source)
    if is_metaimage(source) and Path(source).is_file():
        return Case(source, *load_metaimage(source), None)
    from medseg.dicom import read_series

    path = source_path(source)
    uid = source.removeprefix(f"{path}{UID_SEPARATOR}") if str(path) != source else None
    series = read_series(path, series_uid=uid, allow=allow)
    return Case(source, series.volume(), series.geometry, series)


def _open_nifti(source: str) -> Case:
    image, array = load_image(source)
    array = array.astype(np.float32)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise InputError(f"{source}: {array.ndim} dimensions {array.shape}; expected one 3D volume.")
    if not np.isfinite(array).all():
        raise InputError(f"{source}: holds values that are not finite numbers; clean the file first.")
    if int(image.header["qform_code"]) == 0 and int(image.header["sform_code"]) == 0:
        raise InputError(
            f"{source}: the header has neither qform nor sform, so position and orientation are unknown."
        )
    geometry = Geometry.from_ras_affine(image.affine, array.shape)
    return Case(source, np.ascontiguousarray(array.transpose(2, 1, 0)), geometry, None)


def geometry_record(geometry: Geometry) -> dict[str, Any]:
    """Shape, spacing and position of a grid as plain numbers (mm, LPS)."""
    return {
        "shape_slices_rows_columns": list(geometry.shape),
        "pixel_spacing_mm": list(geometry.pixel_spacing_mm),
        "slice_positions_mm": [round(float(value), 4) for value in geometry.slice_positions_mm],
        "ImageOrientationPatient": [*_unit(geometry.column_step_lps_mm), *_unit(geometry.row_step_lps_mm)],
        "first_voxel_lps_mm": geometry.origins_lps_mm[0].tolist(),
        "uniform": geometry.is_uniform,
        "sheared": geometry.is_sheared,
        "FrameOfReferenceUID": geometry.frame_of_reference_uid,
    }


def _unit(vector: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in vector / np.linalg.norm(vector)]


def resample(volume: np.ndarray, source: Geometry, target: Geometry) -> np.ndarray:
    """Linear interpolation of ``volume`` [slice, row, column] from one stack of slices to a parallel one.

    Both stacks share pixel size and directions, but may be uneven or sheared: every target slice is mixed
    from its two neighbours, each shifted in plane to where that slice really lies. Outside the source the
    nearest value is used: air at the border of a CT stays air.
    """
    from scipy.ndimage import shift

    result = np.empty(target.shape, dtype=np.float32)
    positions_mm = source.slice_positions_mm
    upwards = np.argsort(positions_mm)  # slices of a left-handed NIfTI file descend
    for index, position_mm in enumerate(target.slice_positions_mm):
        above = int(
            np.clip(np.searchsorted(positions_mm, position_mm, sorter=upwards), 1, len(positions_mm) - 1)
        )
        lower, upper = upwards[above - 1], upwards[above]
        weight = (position_mm - positions_mm[lower]) / (positions_mm[upper] - positions_mm[lower])
        result[index] = 0.0
        for neighbour, share in ((lower, 1.0 - np.clip(weight, 0, 1)), (upper, np.clip(weight, 0, 1))):
            if share < 1e-6:
                continue
            offset = target.rows_columns(index, source.origins_lps_mm[neighbour][None])[0]
            plane = volume[neighbour]
            rows, columns = (max(a, b) for a, b in zip(plane.shape, target.shape[1:], strict=True))
            padded = np.pad(plane, ((0, rows - plane.shape[0]), (0, columns - plane.shape[1])), mode="edge")
            if np.abs(offset).max() > 1e-4:
                padded = shift(padded, offset, order=1, mode="nearest")
            result[index] += np.float32(share) * padded[: target.shape[1], : target.shape[2]]
    return result
