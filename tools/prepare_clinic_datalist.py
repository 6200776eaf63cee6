"""Turn a folder of clinic exports (patients nested, CT and RTSTRUCT mixed) into a MONAI datalist.

    python tools/prepare_clinic_datalist.py EXPORT_DIR ROIS.json OUT.json --validation 0.2 --seed 0 [--prefer
newest]

ROIS.json says which ROI names mean which structure: {"GTV": ["gtv.*"], "Lung_L": []}. Patterns are regular
expressions of the whole name, tried in order; then the structure's own name and its spellings by TG-263
(medseg.structures.aliases).

A structure set belongs to the series of its patient and Frame of Reference that it refers to, or to the only
one there is. Every matched contour is laid on its images once; what cannot be read is listed, and nothing is
chosen in silence: a series with several sets is left out unless --prefer decides, and a rejected set is never
taken. Whole patients are drawn for validation, by the seed and their ID: a patient added later moves nobody
else except at the cut. What shares a PatientID or a study is one patient. Items hold {"image", "label",
"rois", "case_id", "patient_id"}, paths from EXPORT_DIR, for medseg.transforms.LoadCased and
medseg.transforms.LoadRTStructd. The patient is a running number; IDs and names are not written. --report FILE
writes the report as JSON too.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.dicom import find_series, read_series, read_structure_set
from medseg.dicom.images.scan import Found, SeriesFiles
from medseg.dicom.rtstruct.read import place
from medseg.dicom.rtstruct.structure_set import StructureSet
from medseg.errors import InputError, MedsegError
from medseg.files import atomic_path
from medseg.structures import tg263
from medseg.structures.aliases import load_aliases, match_rois

PREFERENCES = ("approved", "newest")


@dataclass
class Report:
    """What was found; every list holds sentences or names, with paths from the folder of exports."""

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


# ---- which set belongs to which series ---------------------------------------------------------------------


def link(found: Found, modality: str, name_of, report: Report) -> dict[str, list[StructureSet]]:
    """{series UID: its structure sets}; sets that cannot be read or belong to no series go to the report."""
    linked: dict[str, list[StructureSet]] = defaultdict(list)
    for file in found.structure_sets:
        try:
            structure_set = read_structure_set(file)
            if structure_set.approval_status == "REJECTED":
                report.rejected_structure_sets.append(describe(structure_set, name_of))
                continue
            linked[series_of(structure_set, found, modality, name_of, report)].append(structure_set)
        except MedsegError as error:
            report.not_readable.append(relative(error, file, name_of))
    linked.pop("", None)
    return linked


def series_of(structure_set: StructureSet, found: Found, modality: str, name_of, report: Report) -> str:
    """The UID of the series that a set was drawn on, or "" with the reason in the report."""
    name, frames = name_of(structure_set.path), structure_set.frame_of_reference_uids
    own = [
        files
        for files in found.series.values()
        if same_id(files.patient_id) == same_id(structure_set.patient_id)
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


def choose(sets: list[StructureSet], prefer: list[str]) -> StructureSet | None:
    """The one set that is left after the preferences, in order; None where several are."""
    for preference in prefer:
        if preference == "approved":
            sets = [one for one in sets if one.approval_status == "APPROVED"] or sets
        else:
            latest = max(one.date_time for one in sets)
            sets = [one for one in sets if one.date_time == latest] if latest else sets
    return sets[0] if len(sets) == 1 else None


# ---- which contours are usable -----------------------------------------------------------------------------


def item_of(
    files: SeriesFiles, structure_set: StructureSet, aliases, source: str, name_of, report: Report
) -> dict | None:
    """The datalist's item of one series, or None with the reason in the report."""
    name = name_of(structure_set.path)
    drawn = [roi for roi in structure_set.rois if any(contour.bounds_an_area for contour in roi.contours)]
    names = [roi.structure.name for roi in drawn]
    try:
        chosen = {
            structure: roi for structure, roi in match_rois(aliases, names, name).items() if roi is not None
        }
    except MedsegError as error:
        report.ambiguous_names.append(str(error))
        return None
    report.unmatched_rois.update(set(names) - set(chosen.values()))
    wanted = tuple(roi for roi in drawn if roi.structure.name in chosen.values())
    if not wanted:
        report.notices.append(
            f"{name}: none of the structures is among its ROIs {', '.join(names) or '(none)'}"
        )
        return None
    try:
        # From the folder, as at the training: a damaged file beside the slices may be the missing end of the
        # stack.
        series = read_series(folder_of(files), series_uid=files.series_uid)
        masks, notices = place(replace(structure_set, rois=wanted), series)
    except MedsegError as error:
        report.not_readable.append(relative(error, structure_set.path, name_of))
        return None
    report.notices += [f"{name}: {notice}" for notice in (*series.warnings, *notices)]
    usable = {structure: roi for structure, roi in chosen.items() if roi in masks and masks[roi].any()}
    for structure, roi in usable.items():
        report.matched[structure][roi] += 1
    report.not_contoured.update(set(aliases) - set(usable))
    return {"image": source, "label": name, "rois": usable} if usable else None


def relative(error: Exception, file: Path, name_of) -> str:
    """An error's sentence, with the file's name as it is given from the folder of exports."""
    text = str(error)
    return text.replace(str(file), name_of(file)) if str(file) in text else f"{name_of(file)}: {text}"


def collect(export_dir: Path, aliases, modality: str, prefer: list[str], report: Report) -> list[dict]:
    """The items of every usable series, with the DICOM PatientID under "patient_id" as yet."""
    found = find_series(export_dir)

    def name_of(path: Path) -> str:
        return path.relative_to(export_dir).as_posix()  # not resolved: exports may be links into an archive

    report.not_readable += [f"{name_of(note.path)}: {note.why}" for note in found.broken]
    linked = link(found, modality, name_of, report)
    folders = Counter(folder_of(files) for files in found.series.values())
    items = []
    for uid, files in sorted(found.series.items(), key=lambda item: (str(folder_of(item[1])), item[0])):
        if files.modality != modality or files.is_localizer:
            continue
        folder = folder_of(files)
        alone = folders[folder] == 1 and not any(folder in other.parents for other in folders)
        source = name_of(folder) if alone else f"{name_of(folder)}#{uid}"
        sets = linked.get(uid, [])
        if not sets:
            report.series_without_structure_set.append(source)
            continue
        chosen = choose(sets, prefer) if len(sets) > 1 else sets[0]
        if len(sets) > 1:
            listed = ", ".join(sorted(describe(one, name_of) for one in sets))
            taken = f"; taken: {name_of(chosen.path)}" if chosen else "; none taken"
            report.several_structure_sets.append(f"{source}: {listed}{taken}")
        item = item_of(files, chosen, aliases, source, name_of, report) if chosen else None
        if item:
            items.append(
                {**item, "case_id": source, "patient_id": same_id(files.patient_id), "study": files.study_uid}
            )
    return with_patients(items, report)


def describe(structure_set: StructureSet, name_of) -> str:
    words = [structure_set.label, structure_set.approval_status, structure_set.date_time]
    return f"{name_of(structure_set.path)} ({', '.join(word for word in words if word)})"


def with_patients(items: list[dict], report: Report) -> list[dict]:
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
    """{"training": items, "validation": items}: patients in the order of a digest of seed and ID, then
    numbered."""
    order = sorted(
        {item["patient_id"] for item in items},
        key=lambda ID: hashlib.sha256(f"{seed} {ID}".encode()).hexdigest(),
    )
    count = round(validation * len(order))
    if not 0 < count < len(order):
        raise InputError(
            f"{len(order)} patients and --validation {validation:g} leave one side empty; need at least 1 on "
            f"each. "
            "Patients are told apart by PatientID and study."
        )
    validating = set(order[:count])
    numbers = {patient: f"P{number:03d}" for number, patient in enumerate(sorted(order), start=1)}
    sections: dict[str, list[dict]] = {"training": [], "validation": []}
    for item in items:
        side = "validation" if item["patient_id"] in validating else "training"
        sections[side].append({**item, "patient_id": numbers[item["patient_id"]]})
    return sections


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


def report_lines(report: Report) -> list[str]:
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


def write_json(path: Path, content: dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export_dir", type=Path, metavar="EXPORT_DIR")
    parser.add_argument("rois", type=Path, metavar="ROIS.json")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument(
        "--validation", type=float, default=0.2, help="share of the patients that validate (default 0.2)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modality", default="CT")
    parser.add_argument(
        "--prefer",
        action="append",
        choices=PREFERENCES,
        default=[],
        help="which of several sets of one series to take; may be given twice, in order",
    )
    parser.add_argument("--report", type=Path, help="write the report as JSON too")
    given = parser.parse_args(arguments)
    if not 0 < given.validation < 1:
        parser.error(f"--validation {given.validation:g}: expected a share between 0 and 1")
    for path in filter(None, (given.out, given.report)):
        if not path.parent.is_dir():
            parser.error(f"{path}: the folder {path.parent} does not exist; make it first")
    report = Report()
    try:
        aliases = load_aliases(given.rois)
        items = collect(given.export_dir, aliases, given.modality, given.prefer, report)
        sections = split(items, given.validation, given.seed) if items else {"training": [], "validation": []}
        failure = None if items else "no series has a usable structure set; see the report"
    except MedsegError as error:
        sections, failure = {"training": [], "validation": []}, str(error)
    report.cases = {side: len(cases) for side, cases in sections.items()}
    report.patients = {side: len({case["patient_id"] for case in cases}) for side, cases in sections.items()}
    print("\n".join(report_lines(report)))
    if given.report:
        write_json(given.report, vars(report))
    if failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    structures = {name: list(patterns) for name, patterns in aliases.items()}
    write_json(given.out, {"structures": structures, "seed": given.seed, **sections})
    return 0


if __name__ == "__main__":
    sys.exit(main())
