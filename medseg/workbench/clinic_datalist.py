"""A folder of clinic exports (patients nested, CT and RTSTRUCT mixed) as a MONAI datalist.

A structure set belongs to the series of its patient and Frame of Reference that it refers to, or to the only
one there is. Every matched contour is laid on its images once; what cannot be read is listed, and nothing is
chosen in silence: a series with several sets is left out unless the request prefers one, and a rejected set
is never taken. Whole patients are drawn for validation, by the seed and their ID: a patient added later moves
nobody else except at the cut. What shares a PatientID or a study is one patient. Items hold {"image",
"label", "rois", "case_id", "patient_id"}, paths from the folder of exports, for medseg.transforms.LoadCased
and LoadRTStructd; as boxes, "label" is a list of {"class", "low", "high"} in LPS mm. The patient is a running
number; IDs and names are not written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.cases.mask_boxes import mask_boxes
from medseg.cases.mask_sources import is_dicom
from medseg.dicom import find_series, read_series
from medseg.dicom.images.scan import SeriesFiles
from medseg.dicom.rtstruct.read import place
from medseg.dicom.rtstruct.structure_set import StructureSet
from medseg.errors import InputError, MedsegError
from medseg.files import is_stream, require_replaceable, write_json
from medseg.structures import tg263
from medseg.structures.aliases import load_aliases, match_all_rois, match_rois
from medseg.workbench.clinic_sets import (
    DatalistReport,
    NameOf,
    choose,
    describe,
    folder_of,
    link,
    relative,
    same_id,
)

PREFERENCES = ("approved", "newest")
Aliases = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class DatalistRequest:
    """What is listed: the series of ``modality`` below ``export_dir`` with their structure sets.

    ``rois``: a JSON file of which ROI names mean which structure, {"GTV": ["gtv.*"], "Lung_L": []}. Patterns
    are regular expressions of the whole name, tried in order; then the structure's own name and its spellings
    by TG-263 (medseg.structures.aliases). ``out``: the datalist. ``validation``: the share of the patients
    that validate, drawn by ``seed``. ``prefer``: of PREFERENCES, in order: which of several sets of one
    series to take. ``report``: a JSON file for the report. ``boxes``: each connected piece of an ROI becomes
    a box, for detectors, and all ROIs that the first fitting pattern fits are of its class.
    """

    export_dir: Path
    rois: Path
    out: Path
    validation: float = 0.2
    seed: int = 0
    modality: str = "CT"
    prefer: tuple[str, ...] = ()
    report: Path | None = None
    boxes: bool = False


def make_datalist(request: DatalistRequest) -> DatalistReport:
    """Write the datalist and the report; returns the report.

    Where no list can be made (no usable set, one side without a patient, an unreadable file of ROI names),
    the report says so under ``failure`` and only it is written. Raises InputError at once for a share, a
    preference or an output folder that cannot be.
    """
    _check(request)
    report, sections = DatalistReport(), {"training": [], "validation": []}
    try:
        aliases = load_aliases(request.rois)
        items = collect(request, aliases, report)
        if items:
            sections = split(items, request.validation, request.seed)
        else:
            report.failure = "no series has a usable structure set; see the report"
    except MedsegError as error:
        report.failure = str(error)
    report.cases = {side: len(cases) for side, cases in sections.items()}
    report.patients = {side: len({case["patient_id"] for case in cases}) for side, cases in sections.items()}
    if request.report:
        write_json({key: value for key, value in vars(report).items() if key != "failure"}, request.report)
    if not report.failure:
        structures = {name: list(patterns) for name, patterns in aliases.items()}
        write_json({"structures": structures, "seed": request.seed, **sections}, request.out)
    return report


def _check(request: DatalistRequest) -> None:
    if not 0 < request.validation < 1:
        raise InputError(f"`validation={request.validation:g}`: expected a share between 0 and 1.")
    unknown = [name for name in request.prefer if name not in PREFERENCES]
    if unknown:
        raise InputError(f"`prefer={unknown[0]}`: expected one of {', '.join(PREFERENCES)}.")
    taken = [request.rois.resolve()]
    for path in filter(None, (request.out, request.report)):
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist; make it first.")
        if path.resolve() in taken:
            raise InputError(f"{path}: is named twice, and would be replaced; give each file its own name.")
        if path.is_file() and is_dicom(path):
            raise InputError(f"{path}: is a DICOM file, which a datalist never replaces; name another.")
        if not is_stream(path):
            require_replaceable(path)
        taken.append(path.resolve())


# ---- which contours are usable -----------------------------------------------------------------------------


def item_of(
    files: SeriesFiles,
    structure_set: StructureSet,
    aliases: Aliases,
    source: str,
    name_of: NameOf,
    report: DatalistReport,
    boxes: bool = False,
) -> dict | None:
    """The datalist's item of one series, or None with the reason in the report."""
    name = name_of(structure_set.path)
    # A damaged one is kept, so that its being left out stands in the report.
    drawn = [roi for roi in structure_set.rois if roi.damage or any(c.bounds_an_area for c in roi.contours)]
    names = [roi.structure.name for roi in drawn]
    try:
        match = match_all_rois if boxes else match_rois
        chosen = {structure: rois for structure, rois in match(aliases, names, name).items() if rois}
    except MedsegError as error:
        report.ambiguous_names.append(str(error))
        return None
    meant = {roi for rois in chosen.values() for roi in ([rois] if isinstance(rois, str) else rois)}
    report.unmatched_rois.update(set(names) - meant)
    wanted = tuple(roi for roi in drawn if roi.structure.name in meant)
    if not wanted:
        report.notices.append(
            f"{name}: none of the structures is among its ROIs {', '.join(names) or '(none)'}"
        )
        return None
    try:
        # From the folder, as at the training: a damaged file beside the slices may be the missing end of the
        # stack.
        series = read_series(folder_of(files), series_uid=files.series_uid)
        masks, notices = place(replace(structure_set, rois=wanted), series, allow=None)
    except MedsegError as error:
        report.not_readable.append(relative(error, structure_set.path, name_of))
        return None
    report.notices += [f"{name}: {notice}" for notice in (*series.warnings, *notices)]
    usable = [
        (structure, roi)
        for structure, rois in chosen.items()
        for roi in ([rois] if isinstance(rois, str) else rois)
        if roi in masks and masks[roi].any()
    ]
    for structure, roi in usable:
        report.matched[structure][roi] += 1
    report.not_contoured.update(set(aliases) - {structure for structure, _ in usable})
    if not usable:
        return None
    if not boxes:
        return {"image": source, "label": name, "rois": dict(usable)}
    pieces = [box for structure, roi in usable for box in mask_boxes(masks[roi], series.geometry, structure)]
    return {"image": source, "label": pieces}


def collect(request: DatalistRequest, aliases: Aliases, report: DatalistReport) -> list[dict]:
    """The items of every usable series, with the DICOM PatientID under "patient_id" as yet."""
    found = find_series(request.export_dir)

    def name_of(path: Path) -> str:
        return path.relative_to(
            request.export_dir
        ).as_posix()  # not resolved: exports may be links into an archive

    report.not_readable += [f"{name_of(note.path)}: {note.why}" for note in found.broken]
    linked = link(found, request.modality, name_of, report)
    folders = Counter(folder_of(files) for files in found.series.values())
    items = []
    for uid, files in sorted(found.series.items(), key=lambda item: (str(folder_of(item[1])), item[0])):
        if files.modality != request.modality or files.is_localizer:
            continue
        folder = folder_of(files)
        alone = folders[folder] == 1 and not any(folder in other.parents for other in folders)
        source = name_of(folder) if alone else f"{name_of(folder)}#{uid}"
        sets = linked.get(uid, [])
        if not sets:
            report.series_without_structure_set.append(source)
            continue
        chosen = choose(sets, request.prefer) if len(sets) > 1 else sets[0]
        if len(sets) > 1:
            listed = ", ".join(sorted(describe(one, name_of) for one in sets))
            taken = f"; taken: {name_of(chosen.path)}" if chosen else "; none taken"
            report.several_structure_sets.append(f"{source}: {listed}{taken}")
        item = item_of(files, chosen, aliases, source, name_of, report, request.boxes) if chosen else None
        if item:
            items.append(
                {**item, "case_id": source, "patient_id": same_id(files.patient_id), "study": files.study_uid}
            )
    return join_patients(items, report)


def join_patients(items: list[dict], report: DatalistReport) -> list[dict]:
    """The items without "study"; one "patient_id" for all that share a PatientID or a study, through others
    too."""
    patient_of: dict[str, str] = {}
    for item in items:
        patient, study = item["patient_id"], f"study {item['study']}"
        if not patient:
            report.notices.append(f"{item['case_id']}: no PatientID; its study counts as a patient")
        known = patient_of.get(patient or study, patient or study)
        joined = {known, patient_of.get(study, known)}
        kept = min(joined)
        if len(joined) > 1:
            report.notices.append(
                f"{item['case_id']}: shares a study with another PatientID; both count as one patient"
            )
        patient_of.update({patient or study: kept, study: kept})
        patient_of.update({key: kept for key, value in patient_of.items() if value in joined})
    return [
        {
            **{key: value for key, value in item.items() if key != "study"},
            "patient_id": patient_of[f"study {item['study']}"],
        }
        for item in items
    ]


# ---- split and output --------------------------------------------------------------------------------------


def split(items: list[dict], validation: float, seed: int) -> dict[str, list[dict]]:
    """{"training": items, "validation": items}, as :func:`drawn` has it; patients are then numbered."""
    patients = {item["patient_id"] for item in items}
    validating = drawn(patients, validation, seed)
    numbers = {patient: f"P{number:03d}" for number, patient in enumerate(sorted(patients), start=1)}
    sections: dict[str, list[dict]] = {"training": [], "validation": []}
    for item in items:
        side = "validation" if item["patient_id"] in validating else "training"
        sections[side].append({**item, "patient_id": numbers[item["patient_id"]]})
    return sections


def drawn(patients: set[str], validation: float, seed: int) -> set[str]:
    """The patients that validate: the first ``validation`` of all, in the order of a digest of seed and ID.
    InputError when that leaves nobody on one side."""
    order = sorted(patients, key=lambda ID: hashlib.sha256(f"{seed} {ID}".encode()).hexdigest())
    count = round(validation * len(order))
    if not 0 < count < len(order):
        raise InputError(
            f"{len(order)} patients and `validation={validation:g}` leave one side empty; need at least 1 on "
            "each. Patients are told apart by PatientID and study."
        )
    return set(order[:count])


HEADS = {
    "series_without_structure_set": "Series without a structure set",
    "structure_sets_without_series": "Structure sets without a series",
    "other_frame_of_reference": "Structure sets in another Frame of Reference than their series",
    "rejected_structure_sets": "Structure sets that somebody rejected",
    "several_structure_sets": "Series with several structure sets",
    "ambiguous_names": "Names that could mean several structures",
    "not_readable": "Not readable",
    "notices": "Notices",
}


def report_lines(report: DatalistReport) -> list[str]:
    """The report as text; empty lists are left out."""
    lines = [
        f"{side}: {report.cases[side]} cases of {report.patients[side]} patients" for side in report.cases
    ]
    for structure in sorted({*report.matched, *report.not_contoured}):
        names = ", ".join(
            f"{name} ({count})" for name, count in report.matched.get(structure, Counter()).most_common()
        )
        lines.append(
            f"{structure}: {names or 'never matched'}; not contoured in {report.not_contoured[structure]}"
        )
    if report.unmatched_rois:
        lines.append(f"ROI names that matched nothing ({len(report.unmatched_rois)})")
        for name, count in report.unmatched_rois.most_common():
            hint = tg263.suggest(name)
            lines.append(f"  {count:>4}  {name}" + (f"  (TG-263: {hint})" if hint else ""))
    for key, head in HEADS.items():
        found = getattr(report, key)
        if found:
            lines += [f"{head} ({len(found)})", *(f"  {line}" for line in found)]
    return lines
