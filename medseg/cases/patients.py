"""The series of each patient that a bundle of several modalities takes: found by modality and frame, or as
the caller names them. Where two would do, or nothing says how one lies to the other, the case is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from medseg.cases.find import (
    CaseFiles,
    find_cases,
    series_sources,
    unique_name,
    unreadable_notes,
)
from medseg.cases.nifti import is_nifti
from medseg.cases.volume import source_path
from medseg.dicom.images.scan import FileNote, Found, SeriesFiles, find_series
from medseg.dicom.images.series import why_nothing
from medseg.dicom.together import LostSeries, PatientSeries, frame_of, lost_files, patients_in
from medseg.errors import InputError

NONE = "none"
"""What a caller writes for a modality that is to be left out although there is a series of it."""

REGISTRATION = "REG"
REFERENCE = "image"
"""Item key of the series that is contoured, on whose grid the others are taken."""


def dicom_modality(word: str) -> str:
    """The DICOM Modality that a bundle's word for a series means: "MR" of "MR" and of "MR:T1"."""
    return word.partition(":")[0]


@dataclass(frozen=True)
class Wanted:
    """What a bundle takes, and what its caller said.

    ``modalities``: {item key: modality}, among them "image"; of several series of one modality each has a
    word of its own after a colon, "MR:T1", and since no file says which is which, the caller has to choose.
    ``optional``: the keys that a case may lack. ``chosen``: (modality, what) with a SeriesInstanceUID, a
    folder or file, or "none"; and ("REG", file). InputError for a modality that the bundle does not take, one
    chosen twice, and "none" for one it needs.
    """

    modalities: Mapping[str, str]
    optional: Sequence[str] = ()
    chosen: Sequence[tuple[str, str]] = ()

    def __post_init__(self):
        known = (*self.modalities.values(), REGISTRATION)
        taken = [modality for modality, _ in self.chosen]
        needed = [modality for key, modality in self.modalities.items() if key not in self.optional]
        for modality, what in self.chosen:
            if modality not in known:
                raise InputError(f"`series={modality}={what}`: this bundle takes {', '.join(known)}.")
            if modality != REGISTRATION and taken.count(modality) > 1:
                raise InputError(f"`series`: {modality} is given {taken.count(modality)} times.")
            if what == NONE and modality in needed:
                raise InputError(f"`series={modality}={what}`: this bundle cannot do without it.")

    def choice(self, key: str) -> str:
        """What the caller chose for an item key, "" for nothing."""
        return dict(self.chosen).get(self.modalities[key], "")

    @property
    def registrations(self) -> tuple[str, ...] | None:
        """The REG files that the caller named, () for "none"; None where nothing was said of them."""
        named = [what for modality, what in self.chosen if modality == REGISTRATION]
        return tuple(what for what in named if what != NONE) if named else None


def find_patients(
    path: str | os.PathLike | None,
    wanted: Wanted,
    is_result: Callable[[Path], bool] = lambda file: False,
    scan: Callable[[Path], Found] = find_series,
) -> tuple[list[CaseFiles], list[str]]:
    """Every patient under ``path`` as a case: ([CaseFiles, …] sorted by name, [what was passed over, …]).

    ``path``: a folder of one patient or of many, nested; or a NIfTI file, which is the image. None: all
    series are chosen by path. A patient without a series to contour, with two that fit, or with one that
    nothing links or of which nothing can be read, is a case with a ``refusal``: the others of a cohort go on.
    Files that cannot be read and may be of a series that a case lacks are its ``warnings``. ``scan``: as of
    :func:`medseg.cases.find.find_cases`. Raises InputError for a choice
    that is not there and when nothing is found.
    """
    image = wanted.choice(REFERENCE)
    if path is not None and image and not is_uid(image):
        raise InputError(f"{path} and `series={wanted.modalities[REFERENCE]}={image}`: give one of the two.")
    if path is None or is_nifti(path):
        return [_named_case(wanted, path)], []
    path = Path(path)
    found = scan(path)
    nifti = _nifti_notes(path, is_result)
    notes = unreadable_notes(found) + nifti
    search = _Search(path, found, wanted)
    cases = search.cases()
    if not cases:
        nothing = "" if found.series else why_nothing(found)
        told = notes[:5] if not nothing else nifti
        seen = f" Seen: {'; '.join(told)}." if told else ""
        wanted_series = " or ".join(wanted.modalities.values())
        raise InputError(f"{path}: no series of {wanted_series} found{nothing}.{seen}")
    return sorted(cases, key=lambda case: case.name), notes + search.notes


def _nifti_notes(path: Path, is_result: Callable[[Path], bool]) -> list[str]:
    found = [file for file in path.rglob("*") if is_nifti(file) and file.is_file() and not is_result(file)]
    if not found or path.is_file():
        return []
    return [f"{len(found)} NIfTI files, e.g. {found[0]}: no file says its modality; name each: `series`"]


def _named_case(wanted: Wanted, path: str | os.PathLike | None) -> CaseFiles:
    """The one case whose series the caller names by path; InputError for one that is no single series of the
    modality it is named for."""
    named = {key: wanted.choice(key) for key in wanted.modalities}
    if path is not None:
        named[REFERENCE] = os.fspath(path)
    sources = {
        key: _source(what, wanted.modalities[key]) for key, what in named.items() if what not in ("", NONE)
    }
    missing = [key for key in wanted.modalities if key not in sources and key not in wanted.optional]
    if missing:
        raise InputError(f"no {wanted.modalities[missing[0]]} series given; this bundle needs it: `series`.")
    image = sources.pop(REFERENCE)
    name = re.sub(r"\.nii(\.gz)?$", "", source_path(image).resolve().name, flags=re.IGNORECASE)
    return CaseFiles(unique_name(name, []), image, sources, wanted.registrations or ())


def _source(what: str, modality: str) -> str:
    """The source of the single series of ``modality`` under a path."""
    if is_uid(what):
        raise InputError(f"`series={modality}={what}`: a UID needs the folder to look in: `input`.")
    cases, notes = find_cases(what, dicom_modality(modality))
    if len(cases) != 1:
        raise InputError(f"{what}: {len(cases)} {modality} series; name the folder or file of one.")
    return cases[0][1]


def is_uid(text: str) -> bool:
    """True for what may be a DICOM UID and is no path that exists."""
    return re.fullmatch(r"\d+(\.\d+)+", text) is not None and not Path(text).exists()


class _Search:
    """One scan of a folder, and the cases that it makes."""

    def __init__(self, path: Path, found: Found, wanted: Wanted) -> None:
        self.path, self.wanted = path, wanted
        self.sources = series_sources(found)
        named = wanted.registrations
        self.patients = patients_in(found, None if named is None else [Path(file) for file in named])
        self.lost = lost_files(found, self.patients)
        self.by_uid = {files.series_uid: files for patient in self.patients for files in patient.series}
        self.notes: list[str] = []
        for modality, what in wanted.chosen:
            files = self.by_uid.get(what)
            if is_uid(what) and (files is None or files.modality != dicom_modality(modality)):
                there = "; ".join(map(str, self.by_uid.values())) or "no series"
                raise InputError(f"{path}: no {modality} series {what}. There: {there}.")

    def cases(self) -> list[CaseFiles]:
        """Of every patient that has a series of a wanted modality."""
        made: list[CaseFiles] = []
        chosen = self.wanted.choice(REFERENCE)
        for patient in self.patients:
            taken = set(map(dicom_modality, self.wanted.modalities.values()))
            there = [f for f in patient.series if f.modality in taken]
            wanted = dicom_modality(self.wanted.modalities[REFERENCE])
            references = [f for f in there if f.modality == wanted]
            if is_uid(chosen):
                references = [files for files in references if files.series_uid == chosen]
                if not references:
                    continue
            for case in (of_patient := self._of_patient(patient, there, references)):
                name = self._name(patient, case.source if len(of_patient) > 1 else None)
                made.append(replace(case, name=unique_name(name, [(other.name, "") for other in made])))
        near = _nearest(self.lost, made, self.path) if made else []
        made = [
            replace(case, warnings=self._warnings(case, notes))
            for case, notes in zip(made, near, strict=True)
        ]
        named = [m for m, what in self.wanted.chosen if what != NONE and m != REGISTRATION]
        if named and not chosen and len(made) > 1:
            raise InputError(
                f"{self.path}: `series` names one {named[0]} series, and {len(made)} patients are there; "
                f"choose the {self.wanted.modalities[REFERENCE]} series too."
            )
        return made

    def _of_patient(
        self, patient: PatientSeries, there: list[SeriesFiles], references: list[SeriesFiles]
    ) -> list[CaseFiles]:
        """A case, still without a name, for each series that is to be contoured; one refusal where that is
        not clear."""
        modality = self.wanted.modalities[REFERENCE]
        if there and not references:
            why = f"series {there[0]}: its patient has no {modality} series here that could be contoured."
            return [CaseFiles("", self.sources[there[0].series_uid][1], refusal=why)]
        for one, other in combinations(references, 2):
            if patient.links(one, other):
                why = f"two {modality} series fit: {one}; {other}. Choose one: `series={modality}=UID`."
                return [CaseFiles("", self.sources[one.series_uid][1], refusal=why)]
        return [self._of_reference(patient, reference, references) for reference in references]

    def _of_reference(
        self, patient: PatientSeries, reference: SeriesFiles, references: list[SeriesFiles]
    ) -> CaseFiles:
        image, others = self.sources[reference.series_uid][1], {}
        registrations = tuple(str(registration.path) for registration in patient.registrations)
        case = CaseFiles("", image, others, registrations)
        elsewhere = [files for files in references if files is not reference]
        try:
            for key in self.wanted.modalities:
                choice = self.wanted.choice(key)
                if key == REFERENCE and not choice:
                    own = [lost for lost in patient.lost if lost.frame_uid == frame_of(reference)]
                    self._require_read(own, key, [reference])
                if key == REFERENCE or choice == NONE:
                    continue
                if choice and not is_uid(choice):
                    others[key] = _source(choice, self.wanted.modalities[key])
                    continue
                files = self.by_uid[choice] if choice else self._linked(patient, key, reference, elsewhere)
                if files is not None:
                    others[key] = self.sources[files.series_uid][1]
        except InputError as error:
            return replace(case, refusal=str(error))
        return case

    def _linked(
        self, patient: PatientSeries, key: str, reference: SeriesFiles, elsewhere: list[SeriesFiles]
    ) -> SeriesFiles | None:
        """The one series of a modality that lies in the frame of ``reference``, None where it may be missing.

        InputError for two of them, for one that nothing links with any reference, and for none where one is
        needed.
        """
        modality = self.wanted.modalities[key]
        own = dicom_modality(modality)
        if own != modality:
            raise InputError(
                f"which series is {modality}? No file says it: `series={modality}=UID`, or a path."
            )
        there = [files for files in patient.series if files.modality == own and files is not reference]
        there = [f for f in there if not any(patient.links(f, other) for other in elsewhere)]
        linked = [files for files in there if patient.links(files, reference)]
        if len(linked) > 1:
            listed = "; ".join(map(str, linked))
            raise InputError(
                f"{len(linked)} {modality} series fit: {listed}. Choose one: `series={modality}=UID`."
            )
        frames = {frame_of(files) for files in elsewhere}
        self._require_read([lost for lost in patient.lost if lost.frame_uid not in frames], key, linked)
        for files in there:
            if files not in linked and linked:
                self.notes.append(f"series {files}: in another frame than {reference}; {linked[0]} is taken")
        if not linked and there:
            try:
                patient.link(there[0], reference)
            except InputError as error:
                raise InputError(f"{error} To do without it: `series={modality}={NONE}`.") from error
        if not linked and key not in self.wanted.optional:
            raise InputError(f"no {modality} series of this patient, which the bundle cannot do without.")
        return linked[0] if linked else None

    def _require_read(self, series: Sequence[LostSeries], key: str, linked: list[SeriesFiles]) -> None:
        """InputError for a series that may be the one of this modality and of which nothing can be read:
        whoever brought it expects it to be looked at. ``linked``: what would be taken without it."""
        modality = self.wanted.modalities[key]
        for lost in series:
            if lost.modality != modality:
                continue
            if linked:
                raise InputError(
                    f"{modality} series {lost} cannot be read, and {linked[0]} fits. Export the first again, "
                    f"or choose: `series={modality}={linked[0].series_uid}`."
                )
            way_out = f" To do without it: `series={modality}={NONE}`." if key in self.wanted.optional else ""
            raise InputError(f"{modality} series {lost} cannot be read; export it again.{way_out}")

    def _warnings(self, case: CaseFiles, near: Sequence[FileNote]) -> tuple[str, ...]:
        """What to say of files that cannot be read and lie nearest to this case, where it lacks a series."""
        lacking = [
            modality
            for key, modality in self.wanted.modalities.items()
            if key not in (REFERENCE, *case.others) and self.wanted.choice(key) != NONE
        ]
        if not lacking or not near:
            return ()
        many = f"{len(near)} files" if len(near) > 1 else "1 file"
        place = near[0].path.relative_to(self.path)
        return (
            f"{many} that cannot be read may be a {' or '.join(lacking)} of this patient, e.g. {place}: "
            f"{near[0].why}.",
        )

    def _name(self, patient: PatientSeries, source: str | None) -> str:
        """After the folder of a source, or else of all that is here of the patient."""
        folders = [self.sources[files.series_uid][0] for files in patient.series]
        folders += [reg.path.parent for reg in patient.registrations if reg.path.is_relative_to(self.path)]
        folder = source_path(source) if source else Path(os.path.commonpath(folders))
        return "_".join(folder.relative_to(self.path).parts) or self.path.resolve().name


def _nearest(notes: Sequence[FileNote], cases: Sequence[CaseFiles], root: Path) -> list[list[FileNote]]:
    """Of each case the files that share a deeper folder with its image than with others'; what lies in the
    folder of all of several cases is nobody's."""
    near: list[list[FileNote]] = [[] for _ in cases]
    for note in notes:
        shared = [
            len(Path(os.path.commonpath([note.path, source_path(case.source)])).parts) for case in cases
        ]
        if len(cases) == 1 or max(shared) > len(root.parts):
            for number, depth in enumerate(shared):
                if depth == max(shared):
                    near[number].append(note)
    return near
