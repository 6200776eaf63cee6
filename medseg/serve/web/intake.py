"""An upload that has come in whole becomes a study: unpacked, stripped of names where wanted, sorted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from medseg.errors import InputError
from medseg.serve.web.archives import Budget, RefusedUpload, packed_as, unpack
from medseg.serve.web.contents import sorted_in
from medseg.serve.web.models import Study
from medseg.serve.web.uploads import budget, declared, piece_path

MOST_NAMED = 50
"""So many refused files are named with their reason; the rest is counted."""


def take_in(study: Study) -> None:
    """Sort what lies in ``study.incoming`` into ``study.folder``/files and make the study ready.

    RefusedUpload when the upload is incomplete, breaks a rule of :mod:`medseg.serve.web.archives` or holds no
    image; nothing of it is kept then.
    """
    try:
        names, sizes = declared(study)
        paths = [piece_path(study, number) for number in range(len(names))]
        for path, size in zip(paths, sizes, strict=True):
            if (path.stat().st_size if path.exists() else 0) != size:
                raise RefusedUpload("incomplete", "the upload is not complete; go on with it.")
        files = [entry for path, name in zip(paths, names, strict=True) for entry in _opened(path, name)]
        _finish(study, files)
    except RefusedUpload as error:
        if error.reason != "incomplete":
            shutil.rmtree(study.folder, ignore_errors=True)
        raise


def take_in_folder(study: Study, folder: Path) -> None:
    """The same of DICOM files that lie in ``folder`` already, fetched from an archive or made by the demo;
    the files are moved."""
    study.incoming.mkdir(parents=True, exist_ok=True)
    files = []
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        files.append((Path(shutil.move(path, study.incoming / f"{number:06d}")), path.name))
    _finish(study, files)


def _opened(path: Path, name: str) -> list[tuple[Path, str]]:
    """An uploaded file, or the files of the zip that it is; none for an empty file."""
    if not path.exists() or not path.stat().st_size:
        return []
    with open(path, "rb") as file:
        kind = packed_as(file.read(8))
    if kind is None:
        return [(path, name)]
    if kind != "zip":
        raise RefusedUpload("other archive", f"a {kind} archive is not opened; pack the files as a zip.")
    count: Budget = budget()
    files = list(unpack(path, path.parent, count))
    path.unlink()
    return files


def _finish(study: Study, files: list[tuple[Path, str]]) -> None:
    contents, refused = sorted_in(files, study.folder / "files", study.deidentify)
    if not any(contents[kind] for kind in ("series", "pictures", "volumes", "sets")):
        seen = f" Seen: {refused[0]['name']}: {refused[0]['why']}." if refused else ""
        raise RefusedUpload(
            "no image", f"no DICOM image, NIfTI file, PNG or JPEG among {len(files)} files.{seen}"
        )
    contents["refused"] = refused[:MOST_NAMED]
    contents["refused_count"] = len(refused)
    study.contents = contents
    study.ready = True
    study.save()
    shutil.rmtree(study.incoming, ignore_errors=True)


def bytes_of(folder: Path) -> int:
    """What a folder holds, in bytes."""
    return sum((Path(root) / name).lstat().st_size for root, _, names in os.walk(folder) for name in names)


def source_of(study: Study, kind: str, id_: str) -> tuple[dict[str, Any], Path]:
    """The entry of a study's contents and where it lies. InputError when there is none of that kind and
    id."""
    for entry in study.contents.get(kind, ()):
        if entry["id"] == id_:
            return entry, study.folder / "files" / entry["path"]
    raise InputError("the study has no such image; choose one of those listed.")
