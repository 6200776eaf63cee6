"""Files appear whole or not at all, and who works on one says so; plain values as JSON and CSV."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from medseg import limits
from medseg.errors import InputError, system_error_line

try:
    import fcntl
except ImportError:  # not a POSIX system: runs that share a folder are then not kept apart
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_path(out: str | Path) -> Iterator[Path]:
    """A temporary path beside ``out`` that replaces it when the block ends well and vanishes when it does
    not.

    The temporary name starts with a dot and keeps the suffixes of ``out``, since some writers choose their
    format by it. What a killed process left beside ``out`` is removed. A device or FIFO is never replaced: it
    gets the finished bytes. InputError for a folder that does not exist or cannot be written, and for an
    ``out`` that is a folder or a link to a file; an OSError of the block that names no file, or the temporary
    one, names ``out``.
    """
    out = Path(out)
    if is_stream(out):
        with _naming(out, out), tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / out.name
            yield temporary
            with open(temporary, "rb") as whole, _opened_stream(out) as stream:
                shutil.copyfileobj(whole, stream)
        return
    require_replaceable(out)
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist; make it first.")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out}: the folder {out.parent} cannot be written.")
    sweep(out.parent)
    temporary = out.with_name(f"{_UNFINISHED}{mark()}.{out.name}")
    try:
        with _naming(temporary, out):
            yield temporary
            os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """True for a character device or FIFO, itself or at the end of a link (``/dev/stdout``)."""
    return path.is_char_device() or path.is_fifo()


def _opened_stream(out: Path) -> BinaryIO:
    """A device or FIFO opened for writing. InputError for a FIFO that nobody reads: waiting for a reader may
    take for ever."""
    deadline = time.monotonic() + _READER_WITHIN_S
    while True:
        try:
            descriptor = os.open(out, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                raise InputError(f"{out} is a FIFO that no process reads; start the reader first.") from None
            time.sleep(0.05)
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "wb")


_READER_WITHIN_S = 5.0


def require_replaceable(out: Path) -> None:
    """InputError unless ``out`` is a plain file or nothing yet: renaming a file over anything else destroys
    it."""
    if out.is_symlink():
        raise InputError(f"{out} is a link; name the file that is meant, or remove the link.")
    if out.is_dir():
        raise InputError(f"{out} is a folder; expected the name of a file to write.")
    if out.exists() and not out.is_file():
        raise InputError(f"{out} is a socket or block device; expected the name of a file to write.")


@contextmanager
def _naming(temporary: Path, out: Path) -> Iterator[None]:
    """Within the block an OSError without a file, or with the temporary one, is raised with ``out`` as its
    file: "no space left" says nothing about which disk, and pydicom hides it behind words of its own."""
    try:
        yield
    except OSError as error:
        first = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if first.errno is None or str(first.filename or temporary) != str(temporary):
            raise
        raise OSError(first.errno, first.strerror, str(out)) from error


FILE_ENDINGS = tuple(
    ".csv .dcm .gz .html .jpg .json .log .mha .mhd .nii .nrrd .pdf .png .pt .stl .tar .txt .zip".split()
)
"""Who writes ``-o scores.csv`` expects a file: no new folder is called so."""


def make_folder(folder: Path) -> None:
    """Make an output folder and those above it. InputError when it is a file, is named as one or cannot be
    made."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; expected a folder to write into.")
    if folder.suffix.lower() in FILE_ENDINGS and not folder.exists():
        raise InputError(
            f"{folder} is named as a file; a folder is written: leave out {folder.suffix}, or make it first."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output folder cannot be used: {system_error_line(error)}; choose another one."
        ) from error


def sweep(folder: Path) -> None:
    """Remove what processes of this computer that were killed left unfinished in ``folder``."""
    for path in list(folder.glob(f"{_UNFINISHED}*")):
        if may_be_alive(path.name.removeprefix(_UNFINISHED)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


_UNFINISHED = ".partial-"
"""How the name of an unfinished file or folder begins; who works on it follows, see :func:`mark`."""


DECIMALS = 6
"""Figures in files are rounded to so many: a nanometre, a millionth of a Dice."""


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numpy's numbers and arrays as Python's, floats rounded, None for nan and
    infinity, also in dicts, lists and tuples; all else comes back as it is."""
    value = value.tolist() if hasattr(value, "tolist") else value
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
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def load_json(path: str | Path) -> Any:
    """The content of a JSON file in UTF-8, with a byte-order mark or without. ValueError when it is no JSON,
    nests too deeply or is above the limit ``text_bytes``; OSError when it cannot be read."""
    with open(path, "rb") as file:
        content = file.read(limits.most("text_bytes") + 1)
    try:
        limits.check("text_bytes", len(content), "the file holds")
        return json.loads(content.decode("utf-8-sig"))
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
        temporary.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace", newline="")


def _cell(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
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

    What processes that were killed on this computer left behind is removed first, and locks that nobody
    holds. Makes ``output_dir``, and removes it again when it stays empty; InputError when it cannot be made
    or written.
    """
    folder = output_dir / f"{_UNFINISHED}{mark()}"
    with no_empty_folders(output_dir):
        make_folder(output_dir)
        sweep(output_dir)
        remove_free_locks(output_dir)
        make_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Within the block the output folder is there, without what killed processes left in it, and no other
    process that asks for it so writes into it.

    InputError when it is a file, or another process has it, with that process. A folder that was made for
    this and stays empty goes again.
    """
    with no_empty_folders(folder):
        make_folder(folder)
        sweep(folder)
        with held(folder / f"{LOCK_PREFIX}run", str(folder)):
            yield


def mark() -> str:
    """This process in the name of a file: host, process and when it began, so that a number that the system
    gives out again is not taken for the same process."""
    return f"{_host()}-{os.getpid()}-{_began(os.getpid())}"


def may_be_alive(marked: str) -> bool:
    """False only when the process of a :func:`mark` ran on this computer and is gone. After a dot anything
    may follow the mark."""
    found = _MARK.match(marked)
    if found is None or found["host"] != _host() or os.name != "posix":
        return True  # elsewhere, signal 0 would not be harmless
    process = int(found["process"])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        pass
    return _began(process) == found["began"]


_MARK = re.compile(r"(?P<host>[A-Za-z0-9._]+)-(?P<process>\d+)-(?P<began>\d+)(?:\.|$)")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "host"


def _began(process: int) -> str:
    """Clock ticks from the computer's start to the process's, "0" where the system does not tell."""
    try:
        # The command, second and in brackets, may hold anything; the start is the 22nd field.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


LOCK_PREFIX = ".lock-"
"""How the name of a lock's file begins."""


class Lock:
    """A file that one process holds while it works on what the file is named after.

    The system lets go of it when the process ends, however it ends, so no lock is ever stale; the file says
    who holds it. Not for two threads of one process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def take(self) -> str | None:
        """None when the lock is ours from now on, else who has it: "process 4711 on host, since 10:31:07"."""
        if fcntl is None:
            return None
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                try:
                    return _holder(os.read(descriptor, 1000))
                finally:
                    os.close(descriptor)
            except OSError:  # a file system without locks: as on a system without them
                os.close(descriptor)
                self.path.unlink(missing_ok=True)
                return None
            if self._is_still(descriptor):
                break
            os.close(descriptor)  # its holder removed the file between our two steps
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
        with suppress(OSError):  # on a full disk the lock holds all the same
            os.truncate(descriptor, 0)
            os.write(descriptor, json.dumps(holder).encode())
        self._descriptor = descriptor
        _HELD.add(descriptor)
        return None

    def _is_still(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go of the lock and remove its file; nothing happens when it is not held."""
        if self._descriptor is None:
            return
        self.path.unlink(missing_ok=True)
        _HELD.discard(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = None


_HELD: set[int] = set()
"""Descriptors of held locks. A forked child lets go of them: it may outlive a parent that is killed."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: any(map(os.close, _HELD)))


def remove_free_locks(folder: Path) -> None:
    """Remove the files of locks in ``folder`` that nobody holds: what killed processes left."""
    for path in folder.glob(f"{LOCK_PREFIX}*"):
        lock = Lock(path)
        if lock.take() is None:
            lock.release()


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock for the length of the block. InputError that names the other process when it has it;
    ``what`` is being written."""
    lock = Lock(path)
    holder = lock.take()
    if holder is not None:
        raise InputError(
            f"{what} is being written by another run ({holder}); wait for it or choose another output folder."
        )
    try:
        yield
    finally:
        lock.release()


def _holder(content: bytes) -> str:
    try:
        holder = json.loads(content)
        since = datetime.fromisoformat(holder["since"]).strftime("%H:%M:%S")
        return f"process {int(holder['process'])} on {holder['host']}, since {since}"
    except (ValueError, KeyError, TypeError):  # it has not said so yet
        return "another process"
