"""Cases: what a user points at, opened as one volume with its geometry. One reader for every door.

A case source is a string: a folder that holds one DICOM series, ``FOLDER#SeriesInstanceUID`` where it holds
several, or a NIfTI file. MONAI keeps that string as ``filename_or_obj``, so writers at the end of a pipeline
find the case again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from monai.data import ImageReader

from medseg.cases.nifti import load_image
from medseg.errors import InputError
from medseg.geometry import Geometry

if TYPE_CHECKING:  # pydicom is loaded only when a DICOM case is opened: NIfTI training must run without it
    from medseg.dicom import Series

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PROJECTION_MODALITIES = ("CR", "DX")
"""What a bundle's metadata says of its image when it takes radiographs (medseg.cases.radiograph) instead of
slices."""

UID_SEPARATOR = "#"
MAX_NAME_BYTES = 120
"""Of a case's folder; file systems take 255, and temporary names beside it need some."""

ALLOW_KEY = "allowed_faults"
"""Meta data key: one string, because MONAI's collate turns lists inside out."""


@dataclass(frozen=True, eq=False)
class Case:
    """One image to contour. ``volume``: float32 [slice, row, column], HU for CT. ``series`` is None for
    NIfTI."""

    source: str
    volume: np.ndarray
    geometry: Geometry
    series: Series | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader had to say about the series; empty for NIfTI."""
        return () if self.series is None else self.series.warnings


def is_nifti(path: str | Path) -> bool:
    """True for names that end in .nii or .nii.gz."""
    return str(path).lower().endswith(NIFTI_SUFFIXES)


def open_case(source: str, allow: tuple[str, ...] = ()) -> Case:
    """Open a case source. The last three stay in memory, so that reader and writers share one decoding.

    ``allow``: names of series faults to accept with a warning, see :func:`medseg.dicom.read_series`. Raises
    InputError or GeometryError in one line.
    """
    return _open(source, tuple(allow), _fingerprint(source))


def source_path(source: str) -> Path:
    """The file or folder of a case source, without the SeriesInstanceUID that may follow it."""
    return Path(source if Path(source).exists() else source.rpartition(UID_SEPARATOR)[0] or source)


def _fingerprint(source: str, leave_out: Path | None = None) -> tuple:
    """Sizes and times of the files, so that a folder which was exported anew is never answered from
    memory."""
    path = source_path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    kept = [p for p in files if leave_out is None or leave_out not in p.parents]
    return tuple((os.fspath(p), p.stat().st_mtime_ns, p.stat().st_size) for p in kept)


def fingerprint_sha256(source: str, leave_out: Path | None = None) -> str:
    """Hex digest of names, sizes and times of a case's files: the same while nobody touched them.

    ``leave_out``: the folder of the results, which may lie inside the case's own folder.
    """
    return hashlib.sha256(repr(_fingerprint(source, leave_out)).encode()).hexdigest()


@lru_cache(
    maxsize=3
)  # of a cohort: the case that is read ahead, the one in the network and the one being written
def _open(source: str, allow: tuple[str, ...], _files: tuple) -> Case:
    if is_nifti(source) and Path(source).is_file():
        return _open_nifti(source)
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


class CaseReader(ImageReader):
    """MONAI ImageReader for DICOM series and NIfTI that refuses what it cannot place.

    Arrays come as (x=column, y=row, z=slice) with an RAS affine, as MONAI expects. Uneven or tilted stacks,
    which have no affine, come resampled on their regular grid; :class:`medseg.transforms.ToStructuresd`
    samples results back.

    Give it to ``LoadImage`` at call time or use :class:`medseg.transforms.LoadCased`: a reader that is only
    *registered* is followed by MONAI's own readers when it raises, and those would load the refused series.
    """

    def __init__(self, allow: tuple[str, ...] = ()):
        super().__init__()
        self.allow = tuple(allow)

    def verify_suffix(self, filename) -> bool:
        """MONAI's question whether this reader suits; folders, NIfTI and DICOM files do."""
        return True

    def read(self, data, **kwargs) -> Case:
        """Open one case source (a string, or a sequence that holds one)."""
        sources = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        if len(sources) != 1:
            raise InputError(f"{len(sources)} sources for one image; expected one folder or file.")
        return open_case(os.fspath(sources[0]), self.allow)

    def get_data(self, img: Case) -> tuple[np.ndarray, dict]:
        """The volume (x, y, z) on a regular grid, and MONAI's meta data."""
        grid = img.geometry.regular_grid()
        volume = img.volume if grid is img.geometry else resample(img.volume, img.geometry, grid)
        array = volume.transpose(2, 1, 0)
        meta = {
            "affine": grid.affine_ras,
            "original_affine": grid.affine_ras,
            "space": "RAS",
            "spatial_shape": np.asarray(array.shape),
            "original_channel_dim": float("nan"),
            ALLOW_KEY: ",".join(self.allow),
        }
        return array, meta


def case_of(meta: dict) -> Case:
    """The case that an image or a prediction with this MONAI meta data belongs to."""
    allow = meta.get(ALLOW_KEY, "")
    return open_case(meta["filename_or_obj"], tuple(name for name in allow.split(",") if name))


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


def find_cases(path: str | Path, modality: str | None = None) -> tuple[list[tuple[str, str]], list[str]]:
    """Every case under ``path``: ([(name, source), …] sorted by name, [what was passed over and why, …]).

    ``path``: a DICOM folder (one or many series and patients, nested), a NIfTI file, a folder of NIfTI files,
    or a single DICOM file, which is read alone. Hidden files and what an earlier run of medseg wrote are
    passed over. ``modality``: only DICOM series of it ("CT") are cases; None takes every modality. Names are
    unique and come from the folder names, never from the patient's name. Raises InputError when nothing is
    found. Of projection radiographs ("DX", "CR") every file is a case, see
    :func:`medseg.cases.radiograph.find_radiographs`.
    """
    if modality in PROJECTION_MODALITIES:
        from medseg.cases.radiograph import find_radiographs

        return find_radiographs(path)
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    if is_nifti(path) and path.is_file():
        return [(unique_name(_nifti_name(Path(path.name)), []), str(path))], []
    cases, notes = _dicom_cases(path, modality)
    if path.is_dir():
        found = sorted(
            p for p in path.rglob("*") if is_nifti(p) and p.is_file() and not is_hidden(p.relative_to(path))
        )
        own = [file for file in found if is_own_output(file)]
        if own:
            notes.append(f"{len(own)} NIfTI files that medseg wrote, e.g. {own[0]}: results are no cases")
        for file in found:
            if file not in own:
                cases.append((unique_name(_nifti_name(file.relative_to(path)), cases), str(file)))
    if not cases:
        seen = f" Seen: {'; '.join(notes[:5])}." if notes else ""
        raise InputError(f"{path}: no image series and no NIfTI file found.{seen}")
    return sorted(cases), notes


def is_hidden(path: Path) -> bool:
    """True when a part of a path below the input begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def is_own_output(file: Path) -> bool:
    """True for a file that a run.json beside it lists: a result must not be taken for an image at the next
    run."""
    try:
        outputs = json.loads((file.parent / "run.json").read_text(encoding="utf-8"))["outputs"]
        return any(output["file"] == file.name for output in outputs)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def case_items(path: str | Path, modality: str | None = None) -> list[dict[str, str]]:
    """:func:`find_cases` as MONAI data items ``{"image": source, "case_name": name}``, for a bundle's
    ``dataset``."""
    return [{"image": source, "case_name": name} for name, source in find_cases(path, modality)[0]]


def _nifti_name(file: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", "_".join(file.parts), flags=re.IGNORECASE)


def folder_name(name: str) -> str:
    """``name`` as the name of one folder: odd characters become ``_``; never empty, hidden, ``..`` or too
    long."""
    safe = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "case"
    if len(safe.encode()) <= MAX_NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{safe.encode()[: MAX_NAME_BYTES - 9].decode(errors='ignore')}-{digest}"


def unique_name(name: str, cases: list[tuple[str, str]]) -> str:
    """A folder name that no case has yet; file systems may take upper and lower case for the same."""
    name = folder_name(name)
    taken = {existing.casefold() for existing, _ in cases}
    candidates = [name, *(f"{name}_{count}" for count in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate.casefold() not in taken)


def _dicom_cases(path: Path, modality: str | None) -> tuple[list[tuple[str, str]], list[str]]:
    from medseg.dicom import find_series

    found = find_series(path)
    notes = [f"{note.path}: {note.why}" for note in found.broken]
    folders = {uid: _folder(files) for uid, files in found.series.items()}
    cases: list[tuple[str, str]] = []
    for uid, folder in sorted(folders.items(), key=lambda item: (str(item[1]), item[0])):
        files = found.series[uid]
        if files.is_localizer or (modality and files.modality != modality):
            expected = f"this bundle contours {modality}" if modality else "an image series is wanted"
            notes.append(f"series {files}{' is a localizer' if files.is_localizer else ''}: {expected}")
            continue
        if path.is_file():
            return [(unique_name(path.stem, []), str(path))], notes
        alone = sum(folder in (other, *other.parents) for other in folders.values()) == 1
        name = "_".join(folder.relative_to(path).parts) or path.resolve().name
        cases.append((unique_name(name, cases), str(folder) if alone else f"{folder}{UID_SEPARATOR}{uid}"))
    return cases, notes


def _folder(files) -> Path:
    return Path(os.path.commonpath([record.path.parent for record in files.records]))
