"""Cases that lie elsewhere: on a DICOMweb server, or wherever fsspec reaches (s3://, gs://, sftp://, …). They
are listed here and fetched by the worker that has their turn, never through the process that hands them out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from medseg.cases.find import CaseFiles, find_cases, unique_name
from medseg.cases.nifti import is_nifti
from medseg.errors import InputError

SERIES = "/series/"
MOST_SERIES = 1_000_000
PAGE = 1000
"""So many series are asked for at once: servers cut longer answers off, some without a word."""


def is_address(text: str) -> bool:
    """True for what is a URL and no path."""
    return "://" in text


def listed(url: str, modality: str | None) -> tuple[list[tuple[CaseFiles, str, int]], list[str]]:
    """([(case, its state, its bytes), …] under an address, [what was passed over, …]); nothing is fetched.

    ``http://…`` and ``https://…`` are DICOMweb roots, whose series of ``modality`` are cases; of any other
    address every folder with files in it is one, and every NIfTI file. A case whose state is another one
    than at the last run is another case. InputError when there is none, nobody answers, or the address holds
    a password, which would stand in every record.
    """
    if urlsplit(url).password is not None:
        raise InputError(
            f"{without_password(url)}: a password does not belong in an address; put it into ~/.netrc, or "
            "where the file system's library looks for it."
        )
    cases = _dicomweb(url, modality) if urlsplit(url).scheme in ("http", "https") else _fsspec(url)
    if not cases:
        raise InputError(f"{url}: no {modality or 'image'} series found.")
    return cases, []


@contextmanager
def fetched(files: CaseFiles, modality: str | None) -> Iterator[CaseFiles]:
    """Within the block the case with its files on this computer; after it they are gone.

    The folder's name and the files' times are always the same, so that a case that was finished is known
    again. InputError when it cannot be fetched or is no single series of ``modality``.
    """
    digest = hashlib.sha256(files.address.encode()).hexdigest()[:24]
    place = Path(tempfile.gettempdir()) / f"medseg-cases-{os.getuid() if hasattr(os, 'getuid') else 0}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.stat().st_mode & 0o077:
        raise InputError(f"{place}: others may read it; remove it, so that it is made anew.")
    folder = place / digest
    shutil.rmtree(folder, ignore_errors=True)  # what a killed worker left
    folder.mkdir()
    try:
        if urlsplit(files.address).scheme in ("http", "https"):
            _fetch_series(files.address, folder)
        else:
            _fetch_files(files.address, folder)
        for file in folder.rglob("*"):
            os.utime(file, (0, 0))
        found = find_cases(folder, modality)[0]
        if len(found) != 1:
            raise InputError(f"{files.address}: {len(found)} series of {modality}; expected one.")
        yield replace(files, source=found[0][1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- DICOMweb ----------------------------------------------------------------------------------------------


def _dicomweb(url: str, modality: str | None) -> list[tuple[CaseFiles, str, int]]:
    client, root = _client(url), url.rstrip("/")
    filters = {"Modality": modality} if modality else {}
    rows: list[dict[str, Any]] = []
    with _named(url):
        while True:
            page = client.search_for_series(search_filters=filters, limit=PAGE, offset=len(rows)) or []
            rows += page
            if len(page) < PAGE or len(rows) >= MOST_SERIES:
                break
    cases, names = [], []
    for row in rows:
        study, series = _value(row, "0020000D"), _value(row, "0020000E")
        images = int(_value(row, "00201209") or 0)
        name = unique_name(series, [])  # a UID: no patient's name
        if not (study and series) or name in names:
            continue
        names.append(name)
        address = f"{root}/studies/{study}{SERIES}{series}"
        cases.append((CaseFiles(name, address, address=address), str(images), images))
    return cases


def _fetch_series(address: str, folder: Path) -> None:
    head, _, series = address.rpartition(SERIES)
    root, _, study = head.rpartition("/studies/")
    count = 0
    with _named(root):
        for dataset in _client(root).iter_series(study, series):
            dataset.save_as(folder / f"{count:06d}.dcm", enforce_file_format=True)
            count += 1
    if not count:
        raise InputError(f"{address}: the server has no instance of it.")


def _client(url: str) -> Any:
    try:
        from dicomweb_client.api import DICOMwebClient
    except ImportError:
        raise InputError("a DICOMweb server needs dicomweb-client: pip install 'medseg[serve]'.") from None
    return DICOMwebClient(url.rstrip("/"))


def _value(row: dict[str, Any], tag: str) -> str:
    values = row.get(tag, {}).get("Value") or [""]
    return str(values[0])


# ---- file systems of fsspec --------------------------------------------------------------------------------


def _fsspec(url: str) -> list[tuple[CaseFiles, str, int]]:
    with _named(url):
        system, root = _system(url)
        found = system.find(root, detail=True)
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path, info in sorted(found.items()):
        hidden = any(part.startswith(".") for part in PurePosixPath(path).parts)
        if info.get("type", "file") == "file" and not hidden:
            own = path if is_nifti(Path(path)) else str(PurePosixPath(path).parent)
            groups.setdefault(own, []).append((path, info))
    cases: list[tuple[CaseFiles, str, int]] = []
    for own, files in groups.items():
        below = PurePosixPath(own).relative_to(PurePosixPath(root).as_posix()).parts
        word = "_".join(below) or PurePosixPath(own).name
        name = unique_name(word.removesuffix(".gz").removesuffix(".nii"), [(c.name, "") for c, _, _ in cases])
        marks = [(path, info.get("size"), str(info.get("ETag") or info.get("mtime"))) for path, info in files]
        state = hashlib.sha256(repr(marks).encode()).hexdigest()
        size = sum(int(info.get("size") or 0) for _, info in files)
        address = f"{urlsplit(url).scheme}://{own.lstrip('/') if not own.startswith('/') else own}"
        cases.append((CaseFiles(name, address, address=address), state, size))
    return cases


def _fetch_files(address: str, folder: Path) -> None:
    with _named(address):
        system, path = _system(address)
        sources = [path] if system.isfile(path) else system.find(path, maxdepth=1)
        for source in sources:
            system.get_file(source, str(folder / PurePosixPath(source).name))


def _system(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise InputError("addresses need fsspec: pip install fsspec, and what it asks for.") from None
    return fsspec.core.url_to_fs(url)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """What a library raises within the block is an InputError with the address."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # every file system and server has its own kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{url}: {type(error).__name__}: {reason}") from error


def without_password(url: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
