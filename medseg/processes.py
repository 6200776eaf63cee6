"""Who works on a file: marks of processes, and locks that name their holder and end with it."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from medseg.errors import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system: runs that share a folder are then not kept apart
    fcntl = None  # type: ignore[assignment]


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
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())
        self._descriptor = descriptor
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
        os.close(self._descriptor)
        self._descriptor = None


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
