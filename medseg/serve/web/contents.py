"""What lies in an upload: every file is looked into, none is judged by its name, and each is stored under a
name of our own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from medseg.cases.find import PHOTOGRAPH_MODALITIES, PROJECTION_MODALITIES
from medseg.dicom import find_series
from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.images.checks import check_series
from medseg.dicom.images.scan import Found, SeriesFiles
from medseg.dicom.opening import read_dicom
from medseg.errors import InputError, MedsegError
from medseg.serve.web.deidentify import Names, is_burnt_in

PICTURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg"}
GZIP = b"\x1f\x8b"
NIFTI_MAGIC = (b"n+1\0", b"ni1\0")
MODALITIES_OF_A_PICTURE = (*PROJECTION_MODALITIES, *PHOTOGRAPH_MODALITIES)

Files = list[tuple[Path, str]]


def sorted_in(files: Files, out: Path, deidentify: bool) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Move ``files`` ((path, the user's name of it), …) into ``out`` and say what they are.

    Returns ({"series": …, "pictures": …, "volumes": …, "sets": …}, [{"name", "why"} of what is none]), lists
    of entries with an ``id``, a ``path`` below ``out`` and what a user has to know to choose: descriptions,
    file names, ROI names; never a patient's name. ``deidentify``: DICOM files are stripped first.
    """
    out.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {"series": [], "pictures": [], "volumes": [], "sets": [], "warnings": []}
    refused: list[dict[str, str]] = []
    dicom = out / "dicom"
    dicom.mkdir(exist_ok=True)
    names: dict[Path, str] = {}
    strip = Names() if deidentify else None
    for path, name in files:
        kind = kind_of(path)
        if kind == "dicom":
            target = dicom / f"{len(names) + 1:06d}.dcm"
            try:
                strip.write_without(path, target) if strip else shutil.move(path, target)
                names[target] = name
            except (InputError, *PARSE_ERRORS, NotImplementedError) as error:
                refused.append({"name": name, "why": f"cannot be stripped of names ({type(error).__name__})"})
        elif kind in (".png", ".jpg"):
            _add_file(contents["pictures"], path, out, "p", kind, name)
        elif kind in (".nii", ".nii.gz"):
            _add_file(contents["volumes"], path, out, "n", kind, name)
        else:
            refused.append({"name": name, "why": "no DICOM, NIfTI, PNG or JPEG"})
    _sort_dicom(dicom, out, contents, refused, names)
    return contents, refused


def kind_of(path: Path) -> str:
    """ "dicom", ".png", ".jpg", ".nii", ".nii.gz", or "" by a file's first bytes."""
    with open(path, "rb") as file:
        start = file.read(352)
    if start[128:132] == b"DICM":
        return "dicom"
    for magic, suffix in PICTURES.items():
        if start.startswith(magic):
            return suffix
    if start[344:348] in NIFTI_MAGIC or start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):
        return ".nii"
    if start.startswith(GZIP):
        return ".nii.gz" if _is_gzipped_nifti(path) else ""
    return ""


def _is_gzipped_nifti(path: Path) -> bool:
    import zlib

    with open(path, "rb") as file:
        try:
            start = zlib.decompressobj(31).decompress(file.read(2**16), 352)
        except zlib.error:
            return False
    return start[344:348] in NIFTI_MAGIC


def _add_file(entries: list, path: Path, out: Path, letter: str, suffix: str, name: str) -> None:
    id_ = f"{letter}{len(entries) + 1:04d}"
    shutil.move(path, out / f"{id_}{suffix}")
    entries.append({"id": id_, "path": f"{id_}{suffix}", "name": name, "modality": ""})


# ---- DICOM -------------------------------------------------------------------------------------------------


def _sort_dicom(dicom: Path, out: Path, contents: dict, refused: list, names: dict[Path, str]) -> None:
    """Give every series, and every picture, a folder of its own; structure sets and registrations stay in
    ``dicom``, where a bundle of several series finds them."""
    found = find_series(dicom)
    patients: dict[str, int] = {}
    for number, files in enumerate(found.series.values(), 1):
        id_ = f"s{number:04d}"
        checked = _checked(files, found)
        folder = dicom / id_
        folder.mkdir()
        for path in dict.fromkeys(record.path for record in files.records):
            shutil.move(path, folder / path.name)
        header = files.records[0].dataset
        contents["series"].append(
            {
                "id": id_,
                "path": f"dicom/{id_}",
                "uid": files.series_uid,
                "study_uid": files.study_uid,
                "modality": files.modality,
                "description": files.description[:200],
                "body_part": _text(header, "BodyPartExamined"),
                "date": _text(header, "StudyDate"),
                "slices": len(files.records),
                "patient": patients.setdefault(files.patient_id, len(patients) + 1),
                "localizer": files.is_localizer,
                **checked,
            }
        )
        if is_burnt_in(header):
            contents["warnings"].append(f"{id_}: may show a name in its pixels; look at it")
    for path in found.structure_sets:
        _add_set(path, contents, refused, names)
    for note in found.ignored:
        _add_picture(note.path, out, contents, refused, names, note.why)
    for note in found.broken:
        refused.append({"name": names.get(note.path, ""), "why": note.why})
        note.path.unlink(missing_ok=True)


def _checked(files: SeriesFiles, found: Found) -> dict[str, Any]:
    """What is wrong with a series, and whether its slices are a plain box of voxels, as NIfTI wants."""
    try:
        plan = check_series(files, found)
    except MedsegError as error:
        return {"problems": [" ".join(str(error).split())[:300]], "regular": False}
    regular = plan.geometry is not None and plan.geometry.is_regular
    return {"problems": [fault.message for fault in plan.faults], "regular": regular}


def _add_set(path: Path, contents: dict, refused: list, names: dict[Path, str]) -> None:
    from medseg.dicom.rtstruct.structure_set import read_structure_set

    try:
        structure_set = read_structure_set(path)
    except (MedsegError, *PARSE_ERRORS) as error:
        refused.append(
            {"name": names[path], "why": " ".join(str(error).replace(str(path), "").split())[:300]}
        )
        path.unlink()
        return
    entry = {"id": f"r{len(contents['sets']) + 1:04d}", "path": f"dicom/{path.name}", "name": names[path]}
    rois = [roi.structure.name for roi in structure_set.rois if not roi.is_points_only]
    contents["sets"].append({**entry, "label": structure_set.label[:80], "rois": rois})


def _add_picture(path: Path, out: Path, contents: dict, refused: list, names: dict, why: str) -> None:
    """A radiograph or photograph in DICOM; any other object, such as a dose, stays where it is, unused."""
    header = read_dicom(path)
    modality = _text(header, "Modality")
    if modality not in MODALITIES_OF_A_PICTURE:
        refused.append({"name": names[path], "why": why})
        path.unlink()
        return
    id_ = f"p{len(contents['pictures']) + 1:04d}"
    shutil.move(path, out / f"{id_}.dcm")
    contents["pictures"].append(
        {
            "id": id_,
            "path": f"{id_}.dcm",
            "name": names[path],
            "modality": modality,
            "body_part": _text(header, "BodyPartExamined"),
            "description": _text(header, "SeriesDescription"),
        }
    )
    if is_burnt_in(header):
        contents["warnings"].append(f"{id_}: may show a name in its pixels; look at it")


def _text(header, keyword: str) -> str:
    try:
        return str(header.get(keyword) or "").strip()[:200]
    except PARSE_ERRORS:
        return ""
