"""Files appear whole or not at all; plain values as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from medseg import limits
from medseg.errors import InputError, system_error_line


@contextmanager
def atomic_path(out: str | Path) -> Iterator[Path]:
    """A temporary path beside ``out`` that replaces it when the block ends well and vanishes when it does
    not.

    The temporary name starts with a dot and keeps the suffixes of ``out``, since some writers choose their
    format by it. Raises InputError when the folder does not exist or cannot be written.
    """
    out = Path(out)
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist; make it first.")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out}: the folder {out.parent} cannot be written.")
    temporary = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        yield temporary
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


DECIMALS = 6
"""Figures in files are rounded to so many: a nanometre, a millionth of a Dice."""


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numpy's numbers and arrays as Python's, floats rounded, None for nan and
    infinity.

    Goes through dicts, lists and tuples; all else comes back as it is.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return round(value, DECIMALS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def write_json(record: Mapping[str, Any] | Sequence[Any], out: str | Path) -> None:
    """Write plain values as JSON in UTF-8, atomically.

    Nothing is rounded here: :func:`plain` does that where figures are made. ValueError for nan and infinity,
    which JSON does not have, and TypeError for what is no plain value; then nothing is written.
    """
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_path(out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_json(path: str | Path) -> Any:
    """The content of a JSON file in UTF-8. ValueError when it is no JSON, nests too deeply or is above the
    limit ``text_bytes``; OSError when it cannot be read."""
    with open(path, "rb") as file:
        content = file.read(limits.most("text_bytes") + 1)
    try:
        limits.check("text_bytes", len(content), "the file holds")
        return json.loads(content.decode("utf-8"))
    except InputError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def write_csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], out: str | Path) -> None:
    """Write a table in UTF-8 with ``columns`` as its head, atomically.

    Floats are rounded to DECIMALS, nan and inf stand as such, and what a row lacks or has as None is empty. A
    text that a spreadsheet would take for a formula has an apostrophe before it. ValueError for a row with a
    key that is no column.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="")
    table.writeheader()
    for row in rows:
        table.writerow({column: _cell(value) for column, value in row.items()})
    with atomic_path(out) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def _cell(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, DECIMALS)
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """Remove ``folders`` when the block ends, however it ends, if it made them and left nothing in them."""
    new = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in new:
            with suppress(OSError):  # it was not made, or holds something
                folder.rmdir()


@contextmanager
def staging_folder(output_dir: Path) -> Iterator[Path]:
    """A hidden folder in ``output_dir`` for the unfinished files of this process; it goes when the block
    ends.

    What processes that were killed on this computer left behind is removed first. Makes ``output_dir``;
    InputError when it cannot be made or written.
    """
    folder = output_dir / f"{_STAGING}{_host()}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output folder cannot be used: {system_error_line(error)}; choose another one."
        ) from error
    for left in output_dir.glob(f"{_STAGING}*"):
        if not _may_be_alive(left):
            shutil.rmtree(left, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def staged_elsewhere(staging: Path, name: str) -> bool:
    """True when another process that shares the output folder is at work on ``name`` right now."""
    others = (folder for folder in staging.parent.glob(f"{_STAGING}*") if folder != staging)
    return any((folder / name).exists() for folder in others)


_STAGING = ".partial-"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "host"


def _may_be_alive(folder: Path) -> bool:
    """False only when the process that made a staging folder ran on this computer and is gone."""
    host, _, process = folder.name.removeprefix(_STAGING).rpartition("-")
    if (
        host != _host() or not process.isdigit() or os.name != "posix"
    ):  # elsewhere, signal 0 would not be harmless
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        pass
    return True
