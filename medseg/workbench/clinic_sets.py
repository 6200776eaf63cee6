"""Which structure set of a folder of clinic exports belongs to which series, and what was found on the
way."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.dicom import read_structure_set
from medseg.dicom.images.scan import Found, SeriesFiles
from medseg.dicom.patient import differing_field, patient_of
from medseg.dicom.rtstruct.structure_set import StructureSet
from medseg.errors import MedsegError

NameOf = Callable[[Path], str]
"""The name of a file as the report gives it: its path from the folder of exports."""


@dataclass
class DatalistReport:
    """What was found; every list holds sentences or names, with paths from the folder of exports.

    ``failure``: why there is no datalist, "" when there is one.
    """

    matched: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    not_contoured: Counter = field(default_factory=Counter)
    unmatched_rois: Counter = field(default_factory=Counter)
    series_without_structure_set: list[str] = field(default_factory=list)
    structure_sets_without_series: list[str] = field(default_factory=list)
    other_frame_of_reference: list[str] = field(default_factory=list)
    several_structure_sets: list[str] = field(default_factory=list)
    rejected_structure_sets: list[str] = field(default_factory=list)
    ambiguous_names: list[str] = field(default_factory=list)
    not_readable: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    patients: dict[str, int] = field(default_factory=dict)
    cases: dict[str, int] = field(default_factory=dict)
    failure: str = ""


def link(
    found: Found, modality: str, name_of: NameOf, report: DatalistReport
) -> dict[str, list[StructureSet]]:
    """{series UID: its structure sets}; sets that cannot be read or belong to no series go to the report."""
    linked: dict[str, list[StructureSet]] = defaultdict(list)
    of_patient: dict[str, dict[str, SeriesFiles]] = defaultdict(dict)
    for uid, files in found.series.items():
        of_patient[same_id(files.patient_id)][uid] = files
    for file in found.structure_sets:
        try:
            structure_set = read_structure_set(file)
            if structure_set.approval_status == "REJECTED":
                report.rejected_structure_sets.append(describe(structure_set, name_of))
                continue
            own = replace(found, series=of_patient[same_id(structure_set.patient_id)])
            linked[series_of(structure_set, own, modality, name_of, report)].append(structure_set)
        except MedsegError as error:
            report.not_readable.append(relative(error, file, name_of))
    linked.pop("", None)
    return linked


def series_of(
    structure_set: StructureSet, found: Found, modality: str, name_of: NameOf, report: DatalistReport
) -> str:
    """The UID of the series that a set was drawn on, or "" with the reason in the report."""
    name, frames = name_of(structure_set.path), structure_set.frame_of_reference_uids
    own = [
        files
        for files in found.series.values()
        if same_id(files.patient_id) == same_id(structure_set.patient_id)
        and differing_field(patient_of(files.records[0].dataset), structure_set.patient) is None
        and files.modality == modality
        and not files.is_localizer
    ]
    fitting = [files for files in own if frame_uid(files) in frames]
    named = [files for files in own if files.series_uid in structure_set.referenced_series_uids]
    for files in named:
        if files not in fitting:
            report.other_frame_of_reference.append(
                f"{name}: Frame of Reference {', '.join(frames) or 'missing'}, but the series it refers to, "
                f"{name_of(folder_of(files))}, has {frame_uid(files) or 'none'}"
            )
    both = [files for files in fitting if files in named]
    chosen = both if both else ([] if named else fitting)
    if len(chosen) == 1:
        if not both:
            report.notices.append(
                f"{name}: refers to no series that is here; laid on the only one of its frame"
            )
        return chosen[0].series_uid
    if not named or fitting:
        count = (
            f"{len(chosen)} series could be meant"
            if chosen
            else f"no {modality} series of its patient and frame"
        )
        report.structure_sets_without_series.append(f"{name}: {count}")
    return ""


def same_id(patient_id: str) -> str:
    """A PatientID in the form that is compared: systems differ in letter case and in what they pad with."""
    return patient_id.strip().casefold()


def frame_uid(files: SeriesFiles) -> str:
    return str(files.records[0].dataset.get("FrameOfReferenceUID") or "")


def folder_of(files: SeriesFiles) -> Path:
    return Path(os.path.commonpath([record.path.parent for record in files.records]))


def choose(sets: list[StructureSet], prefer: Sequence[str]) -> StructureSet | None:
    """The one set that is left after the preferences, in order; None where several are."""
    for preference in prefer:
        if preference == "approved":
            sets = [one for one in sets if one.approval_status == "APPROVED"] or sets
        else:
            latest = max(one.date_time for one in sets)
            sets = [one for one in sets if one.date_time == latest] if latest else sets
    return sets[0] if len(sets) == 1 else None


def relative(error: Exception, file: Path, name_of: NameOf) -> str:
    """An error's sentence, with the file's name as it is given from the folder of exports."""
    text = str(error)
    return text.replace(str(file), name_of(file)) if str(file) in text else f"{name_of(file)}: {text}"


def describe(structure_set: StructureSet, name_of: NameOf) -> str:
    words = [structure_set.label, structure_set.approval_status, structure_set.date_time]
    return f"{name_of(structure_set.path)} ({', '.join(word for word in words if word)})"
