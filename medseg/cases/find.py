"""What a user points at, as a list of cases: volumes, radiographs or photographs, each with a name for its
folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.cases.photograph import is_photograph_file
from medseg.cases.radiograph import is_picture
from medseg.cases.volume import UID_SEPARATOR, is_volume_file, source_path
from medseg.errors import InputError, unusable

if TYPE_CHECKING:
    from medseg.dicom.images.scan import Found

PROJECTION_MODALITIES = ("CR", "DX")
"""What a bundle's metadata says of its image when it takes radiographs instead of slices."""

PHOTOGRAPH_MODALITIES = ("OP", "XC")
"""The same of photographs, of the eye (ophthalmic photography) and others (external camera)."""

MAX_NAME_BYTES = 120
"""Of a case's folder; file systems take 255, and temporary names beside it need some."""

RESULT = "a file that medseg wrote: results are no cases"
"""Why a picture is passed over; a note counts those."""

Cases = list[tuple[str, str]]
"""(name, source) of each case; names are unique, and good names of folders."""


@dataclass(frozen=True)
class CaseFiles:
    """One case of a cohort: its ``name``, and the ``source`` of the image that is contoured.

    ``others``: {item key: source} of further series of the patient. ``registrations``: REG files that may
    say how these lie. ``refusal``: why the case cannot be contoured, "" where it can. ``address``: where the
    image is fetched from to be its ``source``, "" for one that lies there. ``warnings``: what its user has to
    know of what lies beside it.
    """

    name: str
    source: str
    others: Mapping[str, str] = field(default_factory=dict)
    registrations: tuple[str, ...] = ()
    refusal: str = ""
    address: str = ""
    warnings: tuple[str, ...] = ()

    def item(self) -> dict[str, Any]:
        """What a bundle's preprocessing begins with: ``image``, the keys of ``others``, ``registrations``
        where there are any, ``case_name``."""
        registrations = {"registrations": list(self.registrations)} if self.registrations else {}
        return {"image": self.source, **self.others, **registrations, "case_name": self.name}


def find_cases(
    path: str | Path,
    modality: str | None = None,
    is_result: Callable[[Path], bool] = lambda file: False,
    scan: Callable[[Path], Found] | None = None,
) -> tuple[Cases, list[str]]:
    """Every case under ``path``: ([(name, source), …] sorted by name, [what was passed over and why, …]).

    ``path``: a DICOM folder (one or many series and patients, nested), a NIfTI or MetaImage file or a folder
    of such files, a single DICOM file, which is read alone, or ``FOLDER#SeriesInstanceUID``, one series of a
    folder. Hidden files and what an earlier run of medseg wrote are passed over. ``modality``: only DICOM
    series of it ("CT") are cases; None takes every modality.
    ``is_result``: which files medseg wrote itself, see :func:`medseg.bundles.record.is_result`. ``scan``:
    what looks for series instead of :func:`medseg.dicom.find_series`, such as one that remembers. Names are
    unique and come from the folder names, never from the patient's name. Raises InputError when nothing is
    found. Of projection radiographs ("DX", "CR") and photographs ("OP", "XC") every file is a case, see
    :func:`find_radiographs` and :func:`find_photographs`.
    """
    if modality in PROJECTION_MODALITIES:
        return find_radiographs(path, is_result)
    if modality in PHOTOGRAPH_MODALITIES:
        return find_photographs(path, is_result)
    path = Path(path)
    if not path.exists() and source_path(str(path)).is_dir():
        return [_one_series(str(path), modality)], []
    if is_volume_file(path) and path.is_file():
        return [(unique_name(_file_name(Path(path.name)), []), str(path))], []
    cases, notes, nothing = _dicom_cases(path, modality, scan)
    if path.is_dir():
        found = sorted(
            p
            for p in path.rglob("*")
            if is_volume_file(p) and p.is_file() and not is_hidden(p.relative_to(path))
        )
        own = [file for file in found if is_result(file)]
        if own:
            notes.append(f"{len(own)} NIfTI files that medseg wrote, e.g. {own[0]}: results are no cases")
        for file in found:
            if file not in own:
                cases.append((unique_name(_file_name(file.relative_to(path)), cases), str(file)))
    if not cases:
        seen = f" Seen: {'; '.join(notes[:5])}." if notes and not nothing else ""
        raise InputError(f"{path}: no {modality or 'image'} series and no NIfTI file found{nothing}.{seen}")
    return sorted(cases), notes


def _one_series(source: str, modality: str | None) -> tuple[str, str]:
    """The case of ``FOLDER#SeriesInstanceUID``. InputError when the folder has no such series of the
    modality."""
    from medseg.dicom import find_series

    folder = source_path(source)
    uid = source.removeprefix(f"{folder}{UID_SEPARATOR}")
    files = find_series(folder).series.get(uid)
    if files is None:
        raise InputError(f"{folder}: no series {uid} in it.")
    if modality and files.modality != modality:
        raise InputError(f"series {files}: this bundle contours {modality}.")
    return unique_name(folder.resolve().name, []), source


def is_hidden(path: Path) -> bool:
    """True when a part of a path below the input begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def _file_name(file: Path) -> str:
    return re.sub(r"\.(nii(\.gz)?|mh[ad])$", "", "_".join(file.parts), flags=re.IGNORECASE)


def folder_name(name: str) -> str:
    """``name`` as the name of one folder: odd characters become ``_``; never empty, hidden, ``..`` or too
    long."""
    safe = re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "case"
    if len(safe.encode()) <= MAX_NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{safe.encode()[: MAX_NAME_BYTES - 9].decode(errors='ignore')}-{digest}"


def unique_name(name: str, cases: Cases) -> str:
    """A folder name that no case has yet; file systems may take upper and lower case for the same."""
    name = folder_name(name)
    taken = {existing.casefold() for existing, _ in cases}
    candidates = [name, *(f"{name}_{count}" for count in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate.casefold() not in taken)


def _dicom_cases(
    path: Path, modality: str | None, scan: Callable[[Path], Found] | None
) -> tuple[Cases, list[str], str]:
    """(cases, what was passed over, what there is where there is no series: the end of a message)."""
    from medseg.dicom import find_series
    from medseg.dicom.images.series import why_nothing

    found = (scan or find_series)(path)
    notes = unreadable_notes(found)
    sources = series_sources(found)
    cases: Cases = []
    for uid, (folder, source) in sorted(sources.items(), key=lambda item: (str(item[1][0]), item[0])):
        files = found.series[uid]
        if files.is_localizer or (modality and files.modality != modality):
            expected = f"this bundle contours {modality}" if modality else "an image series is wanted"
            notes.append(f"series {files}{' is a localizer' if files.is_localizer else ''}: {expected}")
            continue
        if path.is_file():
            return [(unique_name(path.stem, []), str(path))], notes, ""
        name = "_".join(folder.relative_to(path).parts) or path.resolve().name
        cases.append((unique_name(name, cases), source))
    return cases, notes, "" if found.series else why_nothing(found)


def unreadable_notes(found: Found) -> list[str]:
    """Why files of a scan cannot be read: a line for each file, or one for all of a folder with the same
    reason, which are most often the slices of one series."""
    alike: dict[tuple[Path, str], list[Path]] = {}
    for note in found.broken:
        alike.setdefault((note.path.parent, note.why), []).append(note.path)
    lines = []
    for (folder, why), paths in alike.items():
        many = f"{len(paths)} files of {folder}, e.g. {paths[0].name}"
        lines.append(f"{many if len(paths) > 1 else paths[0]}: {why}")
    return lines


def series_sources(found: Found) -> dict[str, tuple[Path, str]]:
    """{SeriesInstanceUID: (its folder, its case source)} of a scan (:class:`medseg.dicom.images.scan.Found`):
    the folder alone where it holds no other series."""
    folders = {uid: _folder(files) for uid, files in found.series.items()}
    sources = {}
    for uid, folder in folders.items():
        alone = sum(folder in (other, *other.parents) for other in folders.values()) == 1
        sources[uid] = folder, str(folder) if alone else f"{folder}{UID_SEPARATOR}{uid}"
    return sources


def _folder(files) -> Path:
    return Path(os.path.commonpath([record.path.parent for record in files.records]))


def find_radiographs(
    path: str | os.PathLike, is_result: Callable[[Path], bool] = lambda file: False
) -> tuple[Cases, list[str]]:
    """Every radiograph under ``path``: ([(name, source), …] sorted by name, [what was passed over and why,
    …]).

    ``path``: a PNG, JPEG or DICOM file, or a folder (nested) of them. Hidden files and what an earlier run of
    medseg wrote are passed over. Names come from file names, never from the patient's name. Raises InputError
    when nothing is found.
    """
    return _find_pictures(
        Path(path), _why_no_radiograph, is_result, "radiograph", "PNG, JPEG, or DICOM of CR or DX"
    )


def find_photographs(
    path: str | os.PathLike, is_result: Callable[[Path], bool] = lambda file: False
) -> tuple[Cases, list[str]]:
    """Every photograph under ``path``, as :func:`find_radiographs` does: PNG, JPEG, TIFF and DICOM files (VL
    Photographic, Ophthalmic Photography)."""
    kinds = "PNG, JPEG, TIFF, or DICOM of VL or Ophthalmic Photography"
    return _find_pictures(Path(path), _why_no_photograph, is_result, "photograph", kinds)


def _find_pictures(
    path: Path,
    why_not: Callable[[Path], str | None],
    is_result: Callable[[Path], bool],
    what: str,
    kinds: str,
) -> tuple[Cases, list[str]]:
    if not (path.is_file() or path.is_dir()):
        raise unusable(path)
    from medseg.dicom.images.scan import files_below

    root = path if path.is_dir() else path.parent
    files, refused = files_below(path) if path.is_dir() else ([path], {})
    cases: Cases = []
    passed_over: dict[str, list[Path]] = {}
    for file in files:
        if path.is_dir() and is_hidden(file.relative_to(root)):
            continue
        why = RESULT if is_result(file) else why_not(file)
        if why is None:
            name = "_".join(file.relative_to(root).parts)
            cases.append((unique_name(name.removesuffix(file.suffix), cases), str(file)))
        elif why:
            passed_over.setdefault(why, []).append(file)
    notes = [f"{folder}: {why}" for folder, why in refused.items()]
    notes += [_note(why, found) for why, found in passed_over.items()]
    if not cases:
        suffixes = Counter(file.suffix.lower() or "no suffix" for file in files)
        seen = (
            notes[:5]
            or [f"{count} files of {kind}" for kind, count in suffixes.most_common(5)]
            or ["no file"]
        )
        raise InputError(f"{path}: no {what} found ({kinds}). Seen: {'; '.join(seen)}.")
    return sorted(cases), notes


def _why_no_radiograph(file: Path) -> str | None:
    """None for a radiograph, "" for a file that is nothing of the kind, else a reason worth telling."""
    if is_picture(file):
        return None
    from medseg.dicom.images.projections import why_no_radiograph

    return why_no_radiograph(file)


def _why_no_photograph(file: Path) -> str | None:
    """The same of a photograph."""
    if is_photograph_file(file):
        return None
    from medseg.dicom.images.photographs import why_no_photograph

    return why_no_photograph(file)


def _note(why: str, files: list[Path]) -> str:
    return f"{files[0]}: {why}" if len(files) == 1 else f"{len(files)} files, e.g. {files[0]}: {why}"
