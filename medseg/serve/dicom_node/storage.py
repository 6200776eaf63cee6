"""One received object on its way to the disk: whole, flushed and named by its UIDs before anybody is told."""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom.dsutils import encode_file_meta

from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.opening import read_dicom
from medseg.errors import InputError
from medseg.serve.dicom_node.index import Index, Received

UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
"""PS3.5 section 9.1, but for leading zeros, which some devices write: nothing else becomes a file's name."""

UNFINISHED = ".unfinished-"


class Refused(Exception):
    """An object that is not stored; ``status`` is what the sender is told (PS3.7 annex C, PS3.4 table
    B.2-1)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"0x{status:04X}")
        self.status = status


OUT_OF_RESOURCES, DOES_NOT_MATCH, CANNOT_UNDERSTAND, DUPLICATE = 0xA700, 0xA900, 0xC000, 0x0111


def is_uid(text: str) -> bool:
    """True for a text that may be a UID, and so a file's name."""
    return len(text) <= 64 and UID.fullmatch(text) is not None


def path_of(incoming: Path, received: Received) -> Path:
    """Where an object lies. ValueError unless its UIDs are UIDs."""
    uids = (received.study_uid, received.series_uid, received.sop_uid)
    if not all(map(is_uid, uids)):
        raise ValueError("no UID; it cannot be the name of a file")
    return incoming / uids[0] / uids[1] / f"{uids[2]}.dcm"


def write_unfinished(meta: FileMetaDataset, content: memoryview, incoming: Path) -> Path:
    """The bytes as they came over the wire behind a DICOM file's head, flushed to the disk, under a name that
    nobody reads. OSError when they do not fit."""
    temporary = incoming / f"{UNFINISHED}{uuid.uuid4().hex}"
    try:
        with open(temporary, "xb") as file:
            file.write(b"\0" * 128 + b"DICM" + encode_file_meta(meta))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return temporary


def facts_of(path: Path, sender: str) -> Received:
    """What the file says of itself. Refused when it cannot be understood, or says no UIDs."""
    try:
        dataset = read_dicom(path)
        received = Received(
            *(_text(dataset, word) for word in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")),
            *(_text(dataset, word) for word in ("Modality", "SeriesDescription", "StudyDescription")),
            _text(dataset, "BodyPartExamined"),
            sender,
        )
    except (InputError, *PARSE_ERRORS) as error:
        raise Refused(CANNOT_UNDERSTAND) from error
    if not all(map(is_uid, (received.sop_uid, received.study_uid, received.series_uid))):
        raise Refused(CANNOT_UNDERSTAND)
    return received


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()[:200]


def keep(temporary: Path, path: Path, content: memoryview) -> bool:
    """Give a flushed file its name for good; False when the same object lies there already. Refused for
    another object of that name, of the same encoding: a UID names one object."""
    folder = path.parent
    new_folders = [f for f in (folder, folder.parent) if not f.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        os.link(temporary, path)  # unlike a rename it never replaces
        new = True
    except FileExistsError:
        if not _is_same(path, content, temporary):
            raise Refused(DUPLICATE) from None
        new = False
    finally:
        temporary.unlink(missing_ok=True)
    for changed in (folder, *(f.parent for f in new_folders)):
        _flush_folder(changed)
    return new


def _is_same(path: Path, content: memoryview, temporary: Path) -> bool:
    # Encoded otherwise, the bytes cannot be compared: the first one is kept, a UID names one object.
    ours, theirs = (read_dicom(file).file_meta.get("TransferSyntaxUID") for file in (path, temporary))
    if ours != theirs:
        return True
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - len(content), 0))
        return file.read() == content


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_stock(incoming: Path, index: Index) -> int:
    """Note every file that lies there and is not known, as after a kill between the file's name and its note;
    returns how many. Unfinished files go."""
    for unfinished in incoming.glob(f"{UNFINISHED}*"):
        unfinished.unlink(missing_ok=True)
    found = 0
    for path in sorted(incoming.glob("*/*/*.dcm")):
        if index.study_of(path.stem) is None:
            with suppress(Refused):
                sender = _text(read_dicom(path).file_meta, "SourceApplicationEntityTitle")
                found += index.add(facts_of(path, sender), None)
    return found
