"""The errors a user can meet. Each message says what was seen, what was expected and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path


class MedsegError(Exception):
    """Base of every error that medseg raises on purpose; the command line prints it as one line and exits
    with 2."""


class InputError(MedsegError):
    """A file, folder or argument is not what it should be (unreadable, empty, of the wrong kind)."""


class GeometryError(MedsegError):
    """Slices, grids or Frames of Reference do not fit together; a contour drawn on them would be
    misplaced."""


class StructureError(MedsegError):
    """A structure's name, number, type or colour is missing, repeated or not allowed."""


class BundleError(MedsegError):
    """A bundle's files, weights or overrides are incomplete or do not belong together."""


class MedsegWarning(UserWarning):
    """Something a user should know that does not stop the work; ``medseg segment`` collects these in
    run.json.

    A warning notes itself where :func:`noted_in` says, when it is made: Python's own recorder
    (``catch_warnings``) is one for all threads, so with cases in several threads it would mix up or lose what
    belongs to a patient.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        notes = _NOTES.get()
        if notes is not None:
            notes.append(str(self))


_NOTES: ContextVar[list[str] | None] = ContextVar("notes of the case that this thread works on", default=None)


@contextmanager
def noted_in(notes: list[str]) -> Iterator[None]:
    """Within the block, the words of every MedsegWarning of this thread are appended to ``notes``, shown or
    not."""
    token = _NOTES.set(notes)
    try:
        yield
    finally:
        _NOTES.reset(token)


def unusable(path: Path, expected: str = "a file or folder") -> InputError:
    """What to raise for a path where there is nothing, or a device, pipe, socket, file or folder where
    ``expected`` should be."""
    kinds = {
        "a folder": path.is_dir(),
        "a file": path.is_file(),
        "a device": path.is_char_device() or path.is_block_device(),
        "a pipe": path.is_fifo(),
        "a socket": path.is_socket(),
        "a link to nothing": path.is_symlink() and not path.exists(),
    }
    seen = next((f"is {kind}" for kind, true in kinds.items() if true), "no such file or folder")
    return InputError(f"{path}: {seen}; expected {expected}.")


def system_error_line(error: OSError) -> str:
    """What the operating system refused, and for which file: "OUT/CT: Permission denied"."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def why(error: BaseException) -> str:
    """What stopped the reading of a file, for people: a KeyError tells what is missing, an OSError what the
    system said, and what only speaks of Python's types that something is of another kind."""
    if isinstance(error, KeyError):
        return f"there is no {str(error.args[0] if error.args else '')!r}"
    if isinstance(error, TypeError | AttributeError | IndexError):
        return "a value in it is of another kind"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:160] or "it is damaged"


def sizes(shape: Iterable[int]) -> str:
    """The shape of an array as words: "30 x 48 x 56"."""
    return " x ".join(map(str, shape))


def printable(text: str, keep: str = "\n\t") -> str:
    """``text`` with control characters and those that turn the direction of writing as ``\\u001b``, but for
    those in ``keep``: a name from a file must not clear a screen, name a window or reorder a line.

    JSON stays the same JSON. ``keep=""`` makes one line of any text.
    """
    return _UNPRINTABLE.sub(lambda c: c[0] if c[0] in keep else f"\\u{ord(c[0]):04x}", text)


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
