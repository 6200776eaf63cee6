"""RT Structure Sets that hold both contours, the label's and the prediction's, to look at in a planning
viewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from medseg.audit.evidence import Evidence, file_stem
from medseg.cases.mask_sources import modality
from medseg.cases.volume import open_case, source_path
from medseg.errors import MedsegError
from medseg.geometry import LPS_TO_RAS, Geometry

SUFFIX = "_model"
LABEL = "medseg audit"


def sample_on_slices(probability: np.ndarray, affine_ras: np.ndarray, geometry: Geometry) -> np.ndarray:
    """float32 [slice, row, column]: a map on the turned grid of an Evidence, linear at every voxel of a stack
    of slices.

    Each slice is taken where it really lies, so uneven and tilted stacks need no other grid. Outside the map
    it is 0.
    """
    to_index = np.linalg.inv(affine_ras) @ LPS_TO_RAS
    rows, columns = np.mgrid[: geometry.shape[1], : geometry.shape[2]]
    pixels = np.stack([rows.ravel(), columns.ravel()], axis=1)
    result = np.zeros(geometry.shape, np.float32)
    for number in range(geometry.shape[0]):
        points = geometry.points_lps_mm(number, pixels) @ to_index[:3, :3].T + to_index[:3, 3]
        inside = ((points > -1) & (points < probability.shape)).all(axis=1)
        if inside.any():
            result[number].reshape(-1)[inside] = map_coordinates(
                probability, points[inside].T, order=1, mode="constant"
            )
    return result


def recentre(probability: np.ndarray, threshold: float) -> np.ndarray:
    """A map from 0 to 1 that passes 0.5 where the given one passes ``threshold``: contours are drawn at
    0.5."""
    below, above = probability / threshold / 2, 0.5 + (probability - threshold) / (1 - threshold) / 2
    return np.clip(np.where(probability < threshold, below, above), 0, 1).astype(np.float32)


def write_viewer_set(
    evidence: Evidence, structures: Sequence[str], thresholds: dict[str, float], data_dir: Path, folder: Path
) -> Path | str:
    """Write FOLDER/<case>.dcm: the label's own structure set and a "<Structure>_model" for each of
    ``structures``.

    Where the labels are no RT Structure Set, they are written as contours too. UNAPPROVED, and marked as
    research use by the writer. Returns the path, or a sentence why there is none: the image is no DICOM
    series, or the set cannot be added to.
    """
    from medseg.dicom import write_rtstruct

    source = str(data_dir / evidence.image_source) if evidence.image_source else ""
    if not source or not (source_path(source).is_dir()) or evidence.affine_ras is None:
        return "the image is no DICOM series"
    series = open_case(source).series
    masks = {}
    label = data_dir / evidence.label_source
    own_set = label if label.is_file() and modality(label) == "RTSTRUCT" else None
    for name in structures:
        number = evidence.names.index(name)
        if own_set is None:
            values = sample_on_slices(
                evidence.label[number].astype(np.float32), evidence.affine_ras, series.geometry
            )
            masks[name] = values >= 0.5
        values = sample_on_slices(evidence.probability[number], evidence.affine_ras, series.geometry)
        masks[f"{name}{SUFFIX}"] = recentre(values, thresholds[name])
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{file_stem(evidence.case)}.dcm"
    try:
        return write_rtstruct(masks, series, out, append_to=own_set, label=LABEL, overwrite=True)
    except MedsegError as error:
        return str(error)
