"""A zip of somebody else's: opened entry by entry, counted while it streams, and no name of it believed."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from medseg.errors import InputError

PIECE_BYTES = 2**20
RATIO_FROM_BYTES = 10 * 2**20
"""An unpacked size below which a ratio is not asked for: a few slices of air shrink a thousandfold."""

DIRECTORY_BYTES_A_FILE = 2**10
"""Of the zip's own list, which is read into memory before anything can be counted."""

PACKED = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"Rar!": "rar",
    b"7z\xbc\xaf": "7z",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}


class RefusedUpload(InputError):
    """An upload that breaks a rule; ``reason`` is the rule's name."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Budget:
    """What one upload may hold; every file of it is counted here as it is written."""

    max_files: int
    max_bytes: int
    max_ratio: float
    files: int = 0
    bytes: int = 0

    def add_file(self) -> None:
        self.files += 1
        if self.files > self.max_files:
            raise RefusedUpload("too many files", f"more than {self.max_files} files; upload fewer at once.")

    def add_bytes(self, count: int) -> None:
        self.bytes += count
        if self.bytes > self.max_bytes:
            raise RefusedUpload(
                "too large", f"more than {self.max_bytes / 2**30:.1f} GiB unpacked; upload less at once."
            )


def packed_as(start: bytes) -> str | None:
    """The kind of archive that a file begins like, None for none. A gzip is one only around a tar, which its
    first bytes do not say; a NIfTI file may be gzipped."""
    return next((kind for magic, kind in PACKED.items() if start.startswith(magic)), None)


def unpack(path: Path, out: Path, budget: Budget) -> Iterator[tuple[Path, str]]:
    """Write every file of a zip into ``out`` under an invented name; gives (file, its name in the zip).

    RefusedUpload for an encrypted, nested or damaged entry, a name that leads elsewhere, a link, and for more
    files, bytes or compression than the budget has. What was written until then lies in ``out``.
    """
    _require_small_directory(path, budget)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            for entry in entries:
                _check_entry(entry)
            for number, entry in enumerate(entries, 1):
                budget.add_file()
                target = out / f"{path.name}_{number:06d}"
                with archive.open(entry) as packed:
                    _copy(packed, target, entry, budget)
                yield target, entry.filename
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise RefusedUpload("damaged zip", f"the zip cannot be read ({error}); pack it again.") from error


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if entry.flag_bits & 0x1:
        raise RefusedUpload("encrypted zip", "the zip is encrypted; pack it without a password.")
    if ".." in parts or name.startswith("/") or (parts and parts[0].endswith(":")) or "\0" in name:
        raise RefusedUpload("traversing name", "a name in the zip leads out of it; pack the folder again.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise RefusedUpload("link", "the zip holds a link; pack the files themselves.")


def _copy(packed: BinaryIO, target: Path, entry: zipfile.ZipInfo, budget: Budget) -> None:
    written = 0
    with open(target, "xb") as file:
        while piece := packed.read(PIECE_BYTES):
            if not written and packed_as(piece):
                raise RefusedUpload(
                    "nested zip", "the zip holds another archive; unpack that one and pack its files."
                )
            written += len(piece)
            budget.add_bytes(len(piece))
            if written > RATIO_FROM_BYTES and written > budget.max_ratio * max(entry.compress_size, 1):
                raise RefusedUpload(
                    "zip bomb",
                    f"a file of the zip unpacks to more than {budget.max_ratio:g} times its packed size; "
                    "upload it unpacked.",
                )
            file.write(piece)


def _require_small_directory(path: Path, budget: Budget) -> None:
    """RefusedUpload for a list of entries larger than so many files need: zipfile reads it whole."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - 2**16 - 22))
        end = file.read()
    place = end.rfind(b"PK\x05\x06")
    if place < 0 or len(end) < place + 22:
        raise RefusedUpload("damaged zip", "the zip has no end, so it was not sent whole; upload it again.")
    listed = int.from_bytes(end[place + 12 : place + 16], "little")
    wide = end.rfind(b"PK\x06\x06", 0, place)
    if listed == 2**32 - 1 and wide >= 0 and len(end) >= wide + 48:
        listed = int.from_bytes(end[wide + 40 : wide + 48], "little")
    if listed > DIRECTORY_BYTES_A_FILE * budget.max_files:
        raise RefusedUpload("too many files", f"more than {budget.max_files} files; upload fewer at once.")
