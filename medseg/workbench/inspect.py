"""What series and structure sets a folder holds, and what is wrong with them: for people and for machines."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.images.checks import ALLOWABLE, Plan, check_series, tilt_degrees
from medseg.dicom.images.scan import FileNote, Found, SeriesFiles, find_series
from medseg.dicom.patient import differing_field, patient_of
from medseg.dicom.rtstruct.structure_set import StructureSet, read_structure_set
from medseg.dicom.rtstruct.volumes import structure_set_volumes
from medseg.dicom.together import PatientSeries, groups, patients_in
from medseg.errors import MedsegError, printable

_AXES = ("sagittal", "coronal", "axial")


def inspect(path: str | os.PathLike | Iterable[str | os.PathLike]) -> dict:
    """Look at every file of a folder (nested), of one file or of a list of files.

    Pixels are decoded only where two images lie at the same place.

    Returns a dict of plain JSON types: ``patients`` > ``studies`` > ``series`` and ``structure_sets``, and
    lists ``broken`` and ``ignored`` of files with the reason. A series' ``problems`` are the faults that
    read_series would refuse, ``allowable`` where it can be told to accept them. An ROI's ``volume_cc`` is the
    area of its contours times the distance of their planes (structure_set_volumes), None where that is not
    known; its ``damage`` says why it cannot be read, "" where it can. A patient's ``together`` lists which
    series lie to one another and ``through`` what: a shared Frame of Reference, or a registration object of
    ``registrations``. A folder without images gives empty lists. Raises InputError only when ``path`` does
    not exist.
    """
    found = find_series(path)
    broken = list(found.broken)
    patients: list[tuple[dict[str, str], dict]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from values of pydicom that are only shown here
        for files in found.series.values():
            header = files.records[0].dataset
            study = _study(patients, patient_of(header), files.study_uid)
            study["date"], study["description"] = (
                _text(header, "StudyDate"),
                _text(header, "StudyDescription"),
            )
            study["series"].append(_series_entry(files, found))
        for file in found.structure_sets:
            try:
                structure_set = read_structure_set(file)
            except (MedsegError, *PARSE_ERRORS) as error:
                broken.append(FileNote(file, " ".join(str(error).removeprefix(f"{file}: ").split())[:300]))
                continue
            study = _study(patients, structure_set.patient, structure_set.study_instance_uid)
            study["structure_sets"].append(_structure_set_entry(structure_set, found))
        together = {group.series[0].series_uid: group for group in patients_in(found)}
        for _, patient in patients:
            patient |= _together_entry(patient, together)
    return {
        "path": found.root,
        "patients": [{**patient, "studies": list(patient["studies"].values())} for _, patient in patients],
        "broken": [{"file": str(note.path), "why": note.why} for note in broken],
        "ignored": [{"file": str(note.path), "why": note.why} for note in found.ignored],
    }


def _study(patients: list[tuple[dict[str, str], dict]], patient: dict[str, str], study_uid: str) -> dict:
    """The entry of a study, made where it is new; people who share a PatientID, or have none, stay apart."""
    same = (
        entry
        for known, entry in patients
        if known["PatientID"] == patient["PatientID"] and differing_field(known, patient) is None
    )
    entry = next(same, None)
    if entry is None:
        entry = {"patient_id": patient["PatientID"], "patient_name": patient["PatientName"], "studies": {}}
        patients.append((patient, entry))
    empty = {
        "study_instance_uid": study_uid,
        "date": "",
        "description": "",
        "series": [],
        "structure_sets": [],
    }
    return entry["studies"].setdefault(study_uid, empty)


def _together_entry(patient: dict, known: dict[str, PatientSeries]) -> dict:
    """What links the series of a patient; empty lists where there is no series."""
    uids = [series["series_instance_uid"] for s in patient["studies"].values() for series in s["series"]]
    found = next((known[uid] for uid in uids if uid in known), PatientSeries({}))
    return {
        "together": [
            {
                "series_instance_uid": group.first.series_uid,
                "modality": group.first.modality,
                "others": [
                    {"series_instance_uid": files.series_uid, "modality": files.modality, "through": through}
                    for files, through in group.others
                ],
            }
            for group in groups(found)
        ],
        "registrations": [
            {"file": str(reg.path), "frames": list(reg.to_registered), "registered_to": reg.registered_uid}
            for reg in found.registrations
        ],
        "registrations_not_read": [{"file": str(note.path), "why": note.why} for note in found.unread],
    }


def _text(header: Dataset, keyword: str) -> str:
    try:
        return str(header.get(keyword) or "").strip()
    except PARSE_ERRORS:
        return "(unreadable)"


def _series_entry(files: SeriesFiles, found: Found) -> dict:
    first = files.records[0]
    entry = {
        "series_instance_uid": files.series_uid,
        "modality": files.modality,
        "description": files.description,
        "folder": os.path.commonpath([record.path.parent for record in files.records]),
        "slices": len(files.records),
        "rows": first.matrix[0],
        "columns": first.matrix[1],
        "pixel_spacing_mm": [float(mm) for mm in first.spacing_mm],
        "orientation": _orientation(first.orientation),
        "frame_of_reference_uid": _text(first.dataset, "FrameOfReferenceUID") or None,
        "transfer_syntax": first.dataset.file_meta.TransferSyntaxUID.name,
        "slice_gaps_mm": None,
        "tilt_degrees": None,
        "problems": [],
        "remarks": [],
    }
    try:
        plan: Plan = check_series(files, found)
    except MedsegError as error:
        entry["problems"].append({"fault": "geometry", "message": str(error), "allowable": False})
        return entry
    for fault in plan.faults:
        entry["problems"].append(
            {"fault": fault.name, "message": fault.message, "allowable": fault.name in ALLOWABLE}
        )
    entry["remarks"] = plan.warnings
    if plan.geometry is not None and plan.geometry.shape[0] > 1:
        gaps_mm = np.diff(plan.geometry.slice_positions_mm)
        entry["slice_gaps_mm"] = [round(float(gaps_mm.min()), 4), round(float(gaps_mm.max()), 4)]
        entry["tilt_degrees"] = round(tilt_degrees(plan.geometry), 2) if plan.geometry.is_sheared else 0.0
    return entry


def _orientation(cosines: np.ndarray) -> str:
    """Plane in words: axial, coronal or sagittal where all axes run along the patient's, else oblique."""
    normal = np.cross(cosines[:3], cosines[3:])
    straight = min(np.abs(vector).max() for vector in (cosines[:3], cosines[3:], normal)) > 0.9999
    return (
        _AXES[int(np.abs(normal).argmax())]
        if straight
        else f"oblique, near {_AXES[int(np.abs(normal).argmax())]}"
    )


def _structure_set_entry(structure_set: StructureSet, found: Found) -> dict:
    fitting = [
        files.series_uid
        for files in found.series.values()
        if differing_field(patient_of(files.records[0].dataset), structure_set.patient) is None
        and _text(files.records[0].dataset, "FrameOfReferenceUID") in structure_set.frame_of_reference_uids
    ]
    problems = []
    if found.series and not fitting:
        problems.append("no series found here has its patient and Frame of Reference, so it cannot be placed")
    missing = [uid for uid in structure_set.referenced_series_uids if uid not in found.series]
    if found.series and missing:
        problems.append(f"refers to series {', '.join(missing)}, not found here")
    return {
        "file": str(structure_set.path),
        "label": structure_set.label,
        "approval_status": structure_set.approval_status,
        "date_time": structure_set.date_time,
        "frame_of_reference_uids": list(structure_set.frame_of_reference_uids),
        "referenced_series_uids": list(structure_set.referenced_series_uids),
        "series_with_same_frame_of_reference": fitting,
        "rois": [
            {
                "number": roi.structure.number,
                "name": roi.structure.name,
                "type": roi.raw_type,
                "contours": len(roi.contours),
                "points_only": roi.is_points_only,
                "damage": roi.damage,
                "volume_cc": None if volume_cc is None or roi.damage else round(volume_cc, 3),
            }
            for roi, volume_cc in zip(structure_set.rois, structure_set_volumes(structure_set), strict=True)
        ],
        "problems": problems,
        "remarks": list(structure_set.notices),
    }


# ---- text --------------------------------------------------------------------------------------------------


def report_lines(report: dict) -> list[str]:
    """The report of :func:`inspect` as text lines, for people; problems start with "!"."""
    lines = []
    for patient in report["patients"]:
        name = f"  {patient['patient_name']}" if patient["patient_name"] else ""
        lines.append(f"Patient {patient['patient_id'] or '(no ID)'}{name}")
        for study in patient["studies"]:
            words = (study["study_instance_uid"], study["date"], study["description"])
            lines.append("  Study " + "  ".join(word for word in words if word))
            for series in study["series"]:
                lines += [f"    {line}" for line in _series_lines(series)]
            for structure_set in study["structure_sets"]:
                lines += [f"    {line}" for line in _structure_set_lines(structure_set)]
        lines += [f"  {line}" for line in _together_lines(patient)]
    if not any(study["series"] for patient in report["patients"] for study in patient["studies"]):
        lines.append(f"No CT, MR or PET series in {report['path']}")
    if report["broken"]:
        lines.append(f"Broken or unreadable files ({len(report['broken'])})")
        lines += [f"  ! {note['file']}: {note['why']}" for note in report["broken"]]
    if report["ignored"]:
        lines.append(f"Ignored files ({len(report['ignored'])})")
        by_reason: dict[str, list[str]] = {}
        for note in report["ignored"]:
            by_reason.setdefault(note["why"], []).append(Path(note["file"]).name)
        for why, names in by_reason.items():
            listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            lines.append(f"  {len(names)} {why}: {listed}")
    return [printable(line, keep="") for line in lines]


def _series_lines(series: dict) -> list[str]:
    row_mm, column_mm = series["pixel_spacing_mm"]
    size = f"{series['slices']} x {series['rows']} x {series['columns']}"
    gaps_mm = series["slice_gaps_mm"]
    if gaps_mm is None:
        height = "slice spacing not known"
    elif gaps_mm[1] - gaps_mm[0] <= 0.02:
        height = f"{gaps_mm[0]:.4g} mm slices"
    else:
        height = f"{gaps_mm[0]:.4g} to {gaps_mm[1]:.4g} mm slices"
    tilt = f", tilt {series['tilt_degrees']:.1f} degrees" if series["tilt_degrees"] else ""
    words = [
        series["modality"],
        size,
        f"{row_mm:.4g} x {column_mm:.4g} mm, {height}",
        series["orientation"] + tilt,
    ]
    lines = [
        "  ".join([*words, series["description"]]).rstrip(),
        f"    Series {series['series_instance_uid']}",
    ]
    lines.append(f"    Frame of Reference {series['frame_of_reference_uid'] or 'not known'}")
    for problem in series["problems"]:
        hint = f" (can be accepted: `allow={problem['fault']}`)" if problem["allowable"] else ""
        lines.append(f"  ! {problem['fault']}: {problem['message']}{hint}")
    return lines + [f"    note: {remark}" for remark in series["remarks"]]


def _together_lines(patient: dict) -> list[str]:
    """Which series belong together; nothing is said of a patient with a single series and no REG file."""
    lines = []
    for registration in patient["registrations"]:
        others = [uid for uid in registration["frames"] if uid != registration["registered_to"]]
        name = Path(registration["file"]).name
        lines.append(
            f"REG  {name}  maps {', '.join(others) or 'no other frame'} to {registration['registered_to']}"
        )
    for note in patient["registrations_not_read"]:
        lines.append(f"! REG  {Path(note['file']).name}: {note['why']}")
    if len(patient["together"]) + len(lines) < 2 and not any(g["others"] for g in patient["together"]):
        return lines
    for group in patient["together"]:
        name = f"{group['modality']} {group['series_instance_uid']}"
        if not group["others"]:
            lines.append(
                f"Alone: {name}: no series here has its Frame of Reference and no REG file leads to one"
            )
            continue
        lines.append(f"Together: {name}")
        for other in group["others"]:
            lines.append(f"    and {other['modality']} {other['series_instance_uid']}: {other['through']}")
    return lines


def _structure_set_lines(structure_set: dict) -> list[str]:
    head = [
        "RTSTRUCT",
        Path(structure_set["file"]).name,
        structure_set["label"],
        structure_set["approval_status"],
    ]
    lines = ["  ".join(word for word in head if word)]
    places = ", ".join(structure_set["series_with_same_frame_of_reference"]) or "no series here"
    lines.append(f"    same patient and Frame of Reference as: {places}")
    width = max((len(roi["name"]) for roi in structure_set["rois"]), default=0)
    for roi in structure_set["rois"]:
        kind = "points or lines" if roi["points_only"] else "contours"
        amount = f"{roi['contours']} {kind}" if roi["contours"] else "empty"
        if kind == "contours" and roi["contours"]:
            amount += f", {roi['volume_cc']:.2f} cc" if roi["volume_cc"] is not None else ", volume not known"
        amount = f"! damaged: {roi['damage']}" if roi["damage"] else amount
        number = "-" if roi["number"] is None else roi["number"]
        lines.append(f"    {number:>4}  {roi['name']:<{width}}  {roi['type'] or '(no type)':<10}  {amount}")
    lines += [f"  ! {problem}" for problem in structure_set["problems"]]
    return lines + [f"    note: {remark}" for remark in structure_set["remarks"]]
