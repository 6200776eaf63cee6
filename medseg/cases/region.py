"""Where a planner said to look: a box in mm or an ROI of a structure set.

A tumour model that learned from crops around tumours has to be shown such a crop. The region bounds both what
the network sees (its box) and where contours may lie (its voxels).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.cases.volume import Case, source_path
from medseg.errors import GeometryError, InputError, MedsegWarning
from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of
from medseg.shapes.margins import expand

HELP = "x0,x1,y0,y1,z0,z1 in LPS mm, or STRUCTURE_SET.dcm:ROI name, or STRUCTURE_SET.dcm:ROI name+MM"


def region_mask(within: str | Sequence[float], case: Case) -> np.ndarray:
    """bool [slice, row, column]: the voxels of ``case`` whose centres lie in the region.

    ``within``: six numbers ``x0,x1,y0,y1,z0,z1`` (LPS mm), or ``FILE.dcm:ROI``, or ``FILE.dcm:ROI+MM`` for
    the ROI and so many mm around it (an ROI that is really called "ROI+10" is taken as it is); see
    :func:`region_file` for where a relative FILE is looked for. A sequence of six numbers is a box too:
    MONAI's command line turns the text into one. Raises InputError for anything else, GeometryError for a
    region that holds no voxel of the image.
    """
    within = _text(within)
    found = region_file(within, case.source)
    mask = _roi_mask(*found, case) if found else _box_mask(_box(within), case.geometry)
    if not mask.any():
        raise GeometryError(
            f"`within` {within}: no voxel centre of the image lies in the region; it lies elsewhere or is "
            "smaller than a voxel. Check the Frame of Reference and the millimetres."
        )
    return mask


def check_region(within: str) -> None:
    """Raise InputError for a text that is neither a box nor, by its colon, a file with an ROI; nothing is
    opened."""
    if ":" not in within:
        _box(within)


def region_file(within: str | Sequence[float], source: str) -> tuple[Path, str] | None:
    """(structure set, ROI name) that a region names for a case source, or None for a box.

    A relative file is looked for in the case's own folder, then in the folder above, then in the current
    folder. File and ROI may hold colons: the first colon that follows an existing file parts them. InputError
    when there is no such file.
    """
    within = _text(within)
    if ":" not in within:
        return None
    path = source_path(source)
    folder = path if path.is_dir() else path.parent
    parts = within.split(":")
    for count in range(1, len(parts)):
        name = Path(":".join(parts[:count]))
        for candidate in (folder / name, folder.parent / name, name):  # an absolute name stays as it is
            if candidate.is_file():
                return candidate, ":".join(parts[count:]).strip()
    raise InputError(
        f"`within` {within}: no such structure set, neither in {folder}, nor in the folder above, nor in the "
        f"current folder."
    )


def _text(within: str | Sequence[float]) -> str:
    return within if isinstance(within, str) else ",".join(map(str, within))


def _box(within: str) -> np.ndarray:
    try:
        values = np.array([float(part) for part in within.split(",")])
    except ValueError:
        values = np.empty(0)
    if values.size != 6 or not np.isfinite(values).all():
        raise InputError(f"`within` {within!r}: expected {HELP}.")
    box = values.reshape(3, 2)
    if (box[:, 0] >= box[:, 1]).any():
        raise InputError(f"`within` {within}: each pair must ascend (x0 < x1, y0 < y1, z0 < z1, in LPS mm).")
    return box


def _box_mask(box_mm: np.ndarray, geometry: Geometry) -> np.ndarray:
    rows = np.arange(geometry.shape[1])[:, None, None] * geometry.row_step_lps_mm
    columns = np.arange(geometry.shape[2])[None, :, None] * geometry.column_step_lps_mm
    in_plane_mm = rows + columns
    return np.stack(
        [
            ((in_plane_mm + origin >= box_mm[:, 0]) & (in_plane_mm + origin <= box_mm[:, 1])).all(-1)
            for origin in geometry.origins_lps_mm
        ]
    )


def _roi_mask(file: Path, roi: str, case: Case) -> np.ndarray:
    """The mask of one ROI, with its margin; what is odd about the file's other ROIs is nobody's concern."""
    from medseg.dicom.rtstruct.read import place
    from medseg.dicom.rtstruct.structure_set import read_structure_set

    if case.series is None:
        raise InputError(
            f"`within` {file}:{roi}: an ROI needs a DICOM series; give a box in mm for {case.source}."
        )
    structure_set = read_structure_set(file)
    roi, margin_mm = _margin(roi, [row.structure.name for row in structure_set.rois])
    wanted = tuple(row for row in structure_set.rois if row.structure.name == roi)
    if not wanted:
        names = ", ".join(sorted(repr(row.structure.name) for row in structure_set.rois))
        raise InputError(f"`within` {file}: no ROI {roi!r}; the structure set has {names}.")
    masks, notices = place(replace(structure_set, rois=wanted), case.series, allow=None)
    if roi not in masks:
        raise InputError(f"`within` {file}: {' '.join(notices)}")
    for notice in notices:
        warnings.warn(notice, MedsegWarning, stacklevel=2)
    if not margin_mm or not masks[roi].any():
        return masks[roi]
    return expand(masks[roi], case.geometry, margin_mm) >= 0.5


def _margin(roi: str, names: Sequence[str]) -> tuple[str, float]:
    """(name, mm around it): a name of the set is itself, else what stands behind its last + is a margin."""
    name, plus, mm = roi.rpartition("+")
    if roi in names or not plus or name.strip() not in names:
        return roi, 0.0
    if not re.fullmatch(r"\d+(\.\d+)?", mm.strip()):
        raise InputError(f"`within` …:{roi}: {mm!r} is no margin; expected millimetres, as in {name}+10.")
    return name.strip(), float(mm)


def grid_box(mask: np.ndarray, geometry: Geometry, grid: Geometry) -> tuple[slice, slice, slice]:
    """The smallest box of ``grid`` (x, y, z slices, for MONAI) that covers every set voxel of ``mask`` on
    ``geometry``.

    ``grid`` is ``geometry`` itself or the regular grid that stands for it. An empty mask raises
    GeometryError.
    """
    if not mask.any():
        raise GeometryError("an empty region has no box.")
    inverse = np.linalg.inv(grid.affine_lps)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for index in np.flatnonzero(mask.any((1, 2))):
        rows, columns = box_of(mask[index])
        corners = np.array(
            [[r, c] for r in (rows.start, rows.stop - 1) for c in (columns.start, columns.stop - 1)]
        )
        points = geometry.points_lps_mm(index, corners)
        indices = points @ inverse[:3, :3].T + inverse[:3, 3]
        low, high = np.minimum(low, indices.min(0)), np.maximum(high, indices.max(0))
    start = np.clip(np.floor(low + 1e-6), 0, None).astype(int)
    stop = np.minimum(np.ceil(high - 1e-6).astype(int) + 1, grid.shape)
    zyx = [slice(int(a), int(b)) for a, b in zip(start, stop, strict=True)]
    return zyx[2], zyx[1], zyx[0]
