"""Reading DICOM Segmentations (PS3.3 A.51) on the slices of a series.

highdicom, which writes them, reads them as fast (1.0 s for eight structures on 134 slices, here 1.3 s) and as
the same masks, but either by references to source images, which a file may lack, or as a volume of even
slices that ends where the segments end. Here each frame lies where its own position says, also on uneven and
tilted stacks, and one that lies off the grid is refused.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset

from medseg import limits
from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.derived import check_same_frame, check_same_patient
from medseg.dicom.images.header import integer, stored_bytes
from medseg.dicom.images.pixels import stored_frames
from medseg.dicom.opening import read_dicom
from medseg.dicom.patient import patient_of
from medseg.errors import GeometryError, InputError, MedsegWarning
from medseg.geometry import POSITION_TOLERANCE_MM
from medseg.structures.structure import GENERATION_ALGORITHMS, Structure, stored_name

if TYPE_CHECKING:
    from medseg.dicom.images.series import Series

KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
"""Segmentation Types (DICOM PS3.3 C.8.20.2) that are read."""

SEGMENT_TAG = 0x0062000B
"""Referenced Segment Number, the dimension that tells segments apart."""

DESCRIPTION = ("SegmentAlgorithmType", "SegmentedPropertyTypeCodeSequence")
"""Behind SegmentLabel in the description of every segment, never empty."""


def read_seg(path: str | Path, series: Series) -> dict[Structure, np.ndarray]:
    """{Structure: bool mask [slice, row, column]} of every segment, on the grid of a series.

    Each frame lies at its own position, which must be that of a slice of the series, with its orientation and
    spacing: nothing is resampled. A fractional segment is cut at half of its maximum; a label map is split
    into its segments, without its background. A segment without frames is empty. Frames of one segment on one
    slice are taken together, with a warning, as there is for a frame whose dimension index contradicts it.
    Raises InputError for a damaged file or another kind of it, GeometryError for another patient, Frame of
    Reference or grid.
    """
    path = Path(path)
    with damage_as_input_error(path):
        dataset = read_dicom(path)
        kind = str(dataset.get("SegmentationType", ""))
        if str(dataset.get("Modality", "")) != "SEG" or kind not in KINDS:
            raise InputError(
                f"{path}: is no DICOM Segmentation of a known kind (SegmentationType {kind[:40]!r}); "
                f"expected {', '.join(KINDS)}."
            )
        check_same_patient(patient_of(dataset), series, path)
        check_same_frame((str(dataset.get("FrameOfReferenceUID") or ""),), series, path)
        labels = _labels(dataset, path)
        masks = {number: np.zeros(series.geometry.shape, dtype=bool) for number in labels}
        rows, columns, count = (integer(dataset, name, 1) for name in ("Rows", "Columns", "NumberOfFrames"))
        limits.check("volume_voxels", rows * columns * count, f"{path}: {count} frames of {rows} x {columns}")
        frames = stored_frames(read_dicom(path, pixel_bytes=stored_bytes(dataset)), range(count))
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        drawn_on: Counter[tuple[int, int]] = Counter()
        for frame, own in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            index = _slice_of(own, shared, dataset, series)
            for number, drawn in _drawn(frame, own, shared, dataset).items():
                if number not in masks:
                    raise InputError(
                        f"{path}: a frame names segment {number}, which the file does not describe."
                    )
                masks[number][index] |= drawn
                drawn_on[number, index] += 1
        remarks = [*_repeated(drawn_on, labels), *_contradicted(dataset, shared), *_incomplete(dataset)]
    for remark in remarks:
        warnings.warn(MedsegWarning(f"{path}: {remark}"), stacklevel=2)
    return {labels[number]: mask for number, mask in masks.items()}


def _drawn(frame: np.ndarray, own: Dataset, shared: Dataset, dataset: Dataset) -> dict[int, np.ndarray]:
    """{segment number: bool array [row, column]} of one frame; of a label map without its background."""
    if dataset.SegmentationType == "LABELMAP":
        numbers = set(np.unique(frame).tolist()) - _background(dataset)
        return {number: frame == number for number in sorted(numbers)}
    number = int(_group(own, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
    level = 1 if dataset.SegmentationType == "BINARY" else float(dataset.MaximumFractionalValue) / 2
    return {number: frame >= level}


def _background(dataset: Dataset) -> set[int]:
    """Values of a label map that are no structure: padding, a segment of that name, and 0 if undescribed."""
    rows = {int(row.SegmentNumber): str(row.get("SegmentLabel") or "") for row in dataset.SegmentSequence}
    named = {number for number, label in rows.items() if label.strip().casefold() == "background"}
    padding = dataset.get("PixelPaddingValue")
    return named | ({int(padding)} if isinstance(padding, int) else set()) | ({0} - rows.keys())


def _labels(dataset: Dataset, path: Path) -> dict[int, Structure]:
    labels: dict[int, Structure] = {}
    background = _background(dataset) if dataset.SegmentationType == "LABELMAP" else ()
    for row in dataset.SegmentSequence:
        if int(row.SegmentNumber) in background:
            continue
        name = stored_name(str(row.get("SegmentLabel") or "")) or f"Segment {row.SegmentNumber}"
        if name in {structure.name for structure in labels.values()}:
            raise InputError(f"{path}: two segments are called {name!r}; rename one.")
        drawn_by = str(row.get("SegmentAlgorithmType") or "")
        drawn_by = drawn_by if drawn_by in GENERATION_ALGORITHMS else ""
        labels[int(row.SegmentNumber)] = Structure(
            name, int(row.SegmentNumber) or None, generation_algorithm=drawn_by
        )
    return labels


def _repeated(drawn_on: Counter[tuple[int, int]], labels: dict[int, Structure]) -> list[str]:
    """In words, the first segment that several frames draw on one slice: one of them may be another's."""
    for (number, index), count in drawn_on.items():
        if count > 1:
            where = f"slice {index + 1} of segment {labels[number].name!r}"
            return [f"{count} frames draw {where}; taken together, but one may belong elsewhere."]
    return []


def _contradicted(dataset: Dataset, shared: Dataset) -> list[str]:
    """In words, the first frame whose segment is not that of others with the same index of segments.

    Dimension indices (DICOM PS3.3 C.7.6.17) say a second time to which segment a frame belongs.
    """
    pointers = [int(row.DimensionIndexPointer) for row in dataset.get("DimensionIndexSequence") or ()]
    if SEGMENT_TAG not in pointers:
        return []
    place, numbers = pointers.index(SEGMENT_TAG), defaultdict[int, set[int]](set)
    for own in dataset.PerFrameFunctionalGroupsSequence:
        content = (own.get("FrameContentSequence") or [Dataset()])[0]
        values = np.atleast_1d(content.get("DimensionIndexValues", ()))
        if len(values) == len(pointers):
            segment = _group(own, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber
            numbers[int(values[place])].add(int(segment))
    mixed = next((sorted(found) for found in numbers.values() if len(found) > 1), None)
    if mixed is None:
        return []
    return [f"frames of one dimension index name several segments {mixed}; one may belong elsewhere."]


def _incomplete(dataset: Dataset) -> list[str]:
    """In words, the first segment whose description lacks what every one has (DICOM PS3.3 C.8.20.4)."""
    for row in dataset.SegmentSequence:
        missing = [keyword for keyword in DESCRIPTION if not row.get(keyword)]
        if missing:
            return [f"segment {row.SegmentNumber} has no {' and no '.join(missing)}; its name may be cut."]
    return []


def _slice_of(own: Dataset, shared: Dataset, dataset: Dataset, series: Series) -> int:
    """The slice of the series on which a frame lies; GeometryError when its corners lie elsewhere."""
    position = np.array(_group(own, shared, "PlanePositionSequence").ImagePositionPatient, dtype=float)
    cosines = np.array(_group(own, shared, "PlaneOrientationSequence").ImageOrientationPatient, dtype=float)
    spacing_mm = np.array(_group(own, shared, "PixelMeasuresSequence").PixelSpacing, dtype=float)
    if not np.isfinite([*position, *cosines, *spacing_mm]).all():
        raise GeometryError(f"{dataset.filename}: the place of a frame is not given in numbers.")
    geometry = series.geometry
    index, _ = geometry.nearest_slice(position[None])
    last = np.array([dataset.Rows - 1, dataset.Columns - 1])
    corners = [
        position,
        position + cosines[3:] * spacing_mm[0] * last[0],
        position + cosines[:3] * spacing_mm[1] * last[1],
    ]
    expected = geometry.points_lps_mm(index, np.array([[0, 0], [last[0], 0], [0, last[1]]]))
    apart_mm = float(np.linalg.norm(np.array(corners) - expected, axis=1).max())
    if (dataset.Rows, dataset.Columns) != geometry.shape[1:] or apart_mm > 5 * POSITION_TOLERANCE_MM:
        raise GeometryError(
            f"{dataset.filename}: a frame of {dataset.Rows} x {dataset.Columns} pixels lies {apart_mm:.2f} "
            f"mm from the nearest slice's grid of {geometry.shape[1]} x {geometry.shape[2]}. Nothing is "
            "flipped or resampled to fit."
        )
    return index


def _group(own: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """A functional group of a frame, or the one that all frames share."""
    return (own.get(keyword) or shared[keyword].value)[0]
