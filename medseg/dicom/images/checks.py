"""What may be wrong between the slices of one series, and the geometry of those that fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medseg.dicom.images.kind import (
    absence_remarks,
    another_modality,
    another_quantity,
    kind_remarks,
    mixed_rescale,
    mixed_units,
)
from medseg.dicom.images.pixels import read_slices
from medseg.dicom.images.scan import Found, SeriesFiles, SliceRecord
from medseg.dicom.patient import PATIENT_FIELDS, name_words, patient_of
from medseg.dicom.plain import value_of
from medseg.geometry import POSITION_TOLERANCE_MM, Geometry

ALLOWABLE = {
    "missing_slice": "read on with the hole; every slice keeps its own position",
    "duplicate_position": "keep one of several identical images at the same place",
    "localizer": "leave localizer images out of the series",
    "broken_file": "read on without files of the folder that are damaged",
    "mixed_study": "read a series whose slices name several studies, as some converters write them",
    "missing_rescale": "take stored numbers of a CT as HU",
    "mixed_rescale": "read each slice of a CT by its own RescaleSlope, RescaleIntercept and sign",
    "not_hu": "take numbers of a CT that are declared to be no HU (iodine, electron density) as they are",
}
"""Faults that read_series can be told to accept (``allow=``), and what it then does. All others are always
refused."""

IN_PLANE_TOLERANCE_MM = 0.05
"""How far the corners of two slices may differ by rounding of orientation and spacing and still count as one
grid."""


class Fault(NamedTuple):
    """A reason to refuse a series: a fixed name, and one line that says what was seen and what to do."""

    name: str
    message: str


@dataclass(frozen=True, eq=False)
class Plan:
    """Slices in stack order, every fault seen (accepted ones too), and remarks; no geometry where there is
    none."""

    records: list[SliceRecord]
    geometry: Geometry | None
    faults: list[Fault]
    warnings: list[str]


def check_series(files: SeriesFiles, found: Found) -> Plan:
    """Everything that is wrong between the slices of one series, and its geometry where it has one.

    Pixels are decoded only where images lie at the same position: equal ones may be accepted, others never.
    """
    records = list(files.records)
    faults, remarks = _broken_files(files, found)
    scouts = [record for record in records if record.is_localizer]
    if len(scouts) == len(records):
        faults.append(
            Fault("only_localizer", "every image is a localizer (scout); choose the series of slices.")
        )
    elif scouts:
        what = f"{len(scouts)} of {len(records)} images are localizers, e.g. {_name(scouts[0])}."
        faults.append(Fault("localizer", what))
        records = [record for record in records if not record.is_localizer]
    faults += _mixed(records) + _values(files.modality, records)
    if any(fault.name not in ALLOWABLE for fault in faults):
        return Plan(records, None, faults, remarks)
    records = _sorted_along_normal(records)
    records, duplicate_faults = _without_duplicates(records)
    faults += duplicate_faults
    if any(fault.name == "overlapping_slices" for fault in duplicate_faults):
        return Plan(records, None, faults, remarks)
    faults += _holes(records)
    geometry = _geometry(records)
    return Plan(records, geometry, faults, remarks + _remarks(files.modality, records, geometry))


def _broken_files(files: SeriesFiles, found: Found) -> tuple[list[Fault], list[str]]:
    """Damaged files beside the slices: a fault when one may be a slice of this series, else only a remark."""
    folders = {record.path.parent for record in files.records}
    near = [note for note in found.broken if note.path.parent in folders]
    own = [note for note in near if note.series_uid in (None, files.series_uid)]
    others = [note for note in near if note not in own]
    faults, remarks = [], []
    if own:
        count = f"{len(own)} files" if len(own) > 1 else "a file"
        what = f"{count} beside its slices could not be read and may be a slice: "
        what += f"{own[0].path.name}: {own[0].why}."
        faults.append(Fault("broken_file", what))
    for note in others[:3]:
        remarks.append(
            f"{note.path.name} beside the slices, of series {note.series_uid}, could not be read: {note.why}."
        )
    return faults, remarks


_ONE_PER_SERIES = {
    "mixed_study": "StudyInstanceUID",
    "mixed_frame_of_reference": "FrameOfReferenceUID",
}


def _mixed(records: Sequence[SliceRecord]) -> list[Fault]:
    """Slices that cannot belong to one stack: compared with the first one."""
    faults = _mixed_patient(records)
    for name, keyword in _ONE_PER_SERIES.items():
        values = sorted({str(value_of(record.dataset, keyword, "") or "none") for record in records})
        if len(values) > 1:
            listed = "" if name == "mixed_patient" else f": {', '.join(values[:3])}"  # no names in a message
            what = f"{len(values)} different values of {keyword}{listed}; expected one."
            faults.append(Fault(name, what))
    first = records[0]
    rows, columns = first.matrix
    for record in records:
        if record.matrix != first.matrix:
            what = f"{_name(record)} has {record.matrix} rows and columns, {_name(first)} {first.matrix}."
            faults.append(Fault("mixed_matrix", what))
            break
    spacings = np.array([record.spacing_mm for record in records])
    apart_mm = (np.abs(spacings - first.spacing_mm) * (rows, columns)).max(axis=1)
    if apart_mm.max() > IN_PLANE_TOLERANCE_MM:
        other = records[int(apart_mm.argmax())]
        what = f"{_name(other)} has pixels of {_mm(other)}, {_name(first)} of {_mm(first)}."
        faults.append(Fault("mixed_spacing", what))
    turns = np.array([record.orientation for record in records]) - first.orientation
    extents_mm = np.array([columns * first.spacing_mm[1]] * 3 + [rows * first.spacing_mm[0]] * 3)
    apart_mm = np.abs(turns * extents_mm).max(axis=1)
    if apart_mm.max() > IN_PLANE_TOLERANCE_MM:
        other = records[int(apart_mm.argmax())]
        what = f"{_name(other)} is oriented {_cosines(other)}, {_name(first)} {_cosines(first)}."
        faults.append(Fault("mixed_orientation", what))
    return faults


def _mixed_patient(records: Sequence[SliceRecord]) -> list[Fault]:
    """A fault for slices of several patients, which names the field and never what stands in it."""
    patients = [patient_of(record.dataset) for record in records]
    for field in PATIENT_FIELDS:
        normal = name_words if field == "PatientName" else str.casefold
        values = {normal(patient[field]) for patient in patients}
        if len(values) > 1:
            empty = "" if all(values) else ", one of them empty"
            what = f"{len(values)} different values of {field}{empty}: slices of several patients"
            return [Fault("mixed_patient", f"{what} under one SeriesInstanceUID.")]
    return []


def _values(modality: str, records: Sequence[SliceRecord]) -> list[Fault]:
    """What is wrong with the numbers of the slices, by what their headers say of them."""
    found = {"modality": another_modality(modality, records), "mixed_units": mixed_units(modality, records)}
    if modality == "CT":
        found["not_hu"] = another_quantity(records)
        found["mixed_rescale"] = mixed_rescale(records)
        if any(record.rescale is None for record in records):
            found["missing_rescale"] = "no RescaleSlope, RescaleIntercept: values are not known to be HU"
    return [Fault(name, f"{what}.") for name, what in found.items() if what]


def _name(record: SliceRecord) -> str:
    return record.path.name if record.frame is None else f"{record.path.name} frame {record.frame}"


def _mm(record: SliceRecord) -> str:
    return "{:g} x {:g} mm".format(*record.spacing_mm)


def _cosines(record: SliceRecord) -> str:
    return "(" + ", ".join(f"{cosine:.4g}" for cosine in record.orientation) + ")"


def _normal_lps(record: SliceRecord) -> np.ndarray:
    return np.cross(record.orientation[:3], record.orientation[3:])


def _sorted_along_normal(records: Sequence[SliceRecord]) -> list[SliceRecord]:
    normal = _normal_lps(records[0])
    return sorted(records, key=lambda record: float(record.position_lps_mm @ normal))


def _without_duplicates(records: list[SliceRecord]) -> tuple[list[SliceRecord], list[Fault]]:
    """One slice per position; a fault for images that share one, which tells equal pixels from other ones."""
    normal = _normal_lps(records[0])
    kept, doubles = [records[0]], []
    for record in records[1:]:
        offset_mm = record.position_lps_mm - kept[-1].position_lps_mm
        if offset_mm @ normal > POSITION_TOLERANCE_MM:
            kept.append(record)
        elif np.linalg.norm(offset_mm) > POSITION_TOLERANCE_MM:
            sideways_mm = np.linalg.norm(offset_mm)
            what = f"{_name(record)} lies in the plane of {_name(kept[-1])}, {sideways_mm:.2f} mm sideways"
            return kept, [Fault("overlapping_slices", f"{what}; expected one image per plane.")]
        else:
            doubles.append((kept[-1], record))
    if not doubles:
        return kept, []
    for first, second in doubles:
        values = dict(read_slices([first, second]))
        if not np.array_equal(values[0], values[1]):
            what = f"{_name(first)} and {_name(second)} lie at the same position with different pixels"
            return kept, [Fault("overlapping_slices", f"{what} (several phases in one series?).")]
    where = f"{_name(doubles[0][0])} and {_name(doubles[0][1])}"
    return kept, [
        Fault("duplicate_position", f"{len(doubles)} images lie where another one lies, e.g. {where}.")
    ]


def _holes(records: Sequence[SliceRecord]) -> list[Fault]:
    """A fault for gaps that are holes in a regular stack, as opposed to blocks of another spacing.

    Equal gaps are taken together as runs. A run of one or two gaps is a hole when it is a multiple of each
    adjoining run (or at least three times as wide); a longer run is a block that was planned.
    """
    positions_mm = np.array([record.position_lps_mm for record in records]) @ _normal_lps(records[0])
    runs: list[list[int]] = []
    gaps_mm = np.diff(positions_mm)
    for index, gap_mm in enumerate(gaps_mm):
        if runs and abs(gap_mm - gaps_mm[runs[-1][0]]) <= 0.05 * gaps_mm[runs[-1][0]] + POSITION_TOLERANCE_MM:
            runs[-1].append(index)
        else:
            runs.append([index])
    holes = []
    for number, run in enumerate(runs):
        beside = [gaps_mm[other[0]] for other in runs[max(number - 1, 0) : number + 2] if other is not run]
        ratios = np.array([gaps_mm[run[0]] / gap_mm for gap_mm in beside])
        multiple = (np.rint(ratios) >= 2) & (np.abs(ratios - np.rint(ratios)) <= 0.1)
        if beside and len(run) < 3 and (multiple.all() or ratios.min() >= 3):
            holes += [(index, float(min(beside))) for index in run]
    if not holes:
        return []
    index, beside_mm = holes[0]
    what = f"{gaps_mm[index]:.2f} mm between slices {index + 1} and {index + 2} ({_name(records[index])}, "
    what += f"{_name(records[index + 1])}), {beside_mm:.2f} mm beside it"
    more = f" and {len(holes) - 1} more holes" if len(holes) > 1 else ""
    return [Fault("missing_slice", f"{what}{more}; a slice is missing. Export the series again.")]


def _geometry(records: Sequence[SliceRecord]) -> Geometry:
    first = records[0]
    frame_of_reference = str(first.dataset.get("FrameOfReferenceUID", "") or "") or None
    return Geometry(
        (len(records), *first.matrix),
        np.array([record.position_lps_mm for record in records]),
        first.orientation[3:] * first.spacing_mm[0],
        first.orientation[:3] * first.spacing_mm[1],
        frame_of_reference,
    )


def tilt_degrees(geometry: Geometry) -> float:
    """Angle between the way from the first slice to the last and the slice normal; 0.0 for a single slice."""
    step = geometry.origins_lps_mm[-1] - geometry.origins_lps_mm[0]
    length_mm = float(np.linalg.norm(step))
    return (
        float(np.degrees(np.arccos(np.clip(step @ geometry.normal_lps / length_mm, -1, 1))))
        if length_mm
        else 0.0
    )


def _lean(geometry: Geometry) -> str:
    """In words, how slices lie sideways of one another: in line, as a tilted gantry makes them, or not."""
    offsets = geometry.origins_lps_mm - geometry.origins_lps_mm[0]
    heights_mm = offsets @ geometry.normal_lps
    off_line_mm = np.linalg.norm(offsets - np.outer(heights_mm / heights_mm[-1], offsets[-1]), axis=1).max()
    if off_line_mm > 0.1 * min(geometry.pixel_spacing_mm):
        return f"slices are shifted sideways by up to {off_line_mm:.2f} mm against one another"
    return f"the stack is sheared by {tilt_degrees(geometry):.1f} degrees (gantry tilt)"


def _remarks(modality: str, records: Sequence[SliceRecord], geometry: Geometry) -> list[str]:
    """What a reader of the run record should know although nothing is wrong."""
    remarks = []
    if geometry.frame_of_reference_uid is None:
        remarks.append(
            "no FrameOfReferenceUID: whether other objects share this patient position is not known."
        )
    if not geometry.is_uniform:
        gaps_mm = np.diff(geometry.slice_positions_mm)
        remarks.append(
            f"slices are {gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm apart; each keeps its own position."
        )
    if geometry.is_sheared:
        remarks.append(f"{_lean(geometry)}; each slice keeps its own position.")
    remarks += absence_remarks(records, np.abs(np.diff(geometry.slice_positions_mm)))
    return remarks + kind_remarks(modality, records)
