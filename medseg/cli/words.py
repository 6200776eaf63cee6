"""What a message of the library calls a field, said as the option that sets it; and the way all words go to
the terminal."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from medseg.errors import printable

FLAGS = {
    "allow": "--allow",
    "append_to": "--append-to",
    "at": "--at",
    "bundle": "--bundle",
    "certificate": "--certificate",
    "configuration": "--configuration",
    "datalist": "--datalist",
    "days": "--days",
    "device": "--device",
    "engine": "--engine",
    "folds": "--folds",
    "format": "--format",
    "formats": "--format",
    "group": "--group",
    "hash_key": "--hash-key",
    "holes": "--holes",
    "image_columns": "--image-columns",
    "images": "--reference",
    "input": "INPUT",
    "key": "--key",
    "modalities": "--modalities",
    "name": "--to",
    "output_dir": "-o",
    "overwrite": "--overwrite",
    "pairs": "--map",
    "port": "--port",
    "predictions": "--predictions",
    "record_columns": "--record-columns",
    "reference": "--reference",
    "region_margins_mm": "--region-margins-mm",
    "resume": "--resume",
    "rois": "--roi",
    "series": "--series",
    "settings": "--set",
    "shift_dates": "--shift-dates",
    "simplify_mm": "--simplify-mm",
    "sql_table": "--sql-table",
    "structure_names": "--names",
    "tolerances": "--tolerance",
    "trust_bundle": "--trust-bundle",
    "truth": "--truth",
    "users": "--users",
    "validation": "--validation",
    "variant": "--variant",
    "weights": "--weights",
    "within": "--within",
}
"""Field of a request, as messages write it in backquotes, and the option of the command line that sets it."""


def in_flags(message: str) -> str:
    """The message with every `field` and `field=value` as an option: --field, --field value. Other words in
    backquotes stay."""

    def flag(found: re.Match) -> str:
        field, value = found.group(1), found.group(2)
        if field not in FLAGS:
            return found.group(0)
        return FLAGS[field] if value is None else f"{FLAGS[field]} {value}"

    return re.sub(r"`(\w+)(?:=([^`]*))?`", flag, message)


def add_trust(command: argparse.ArgumentParser) -> None:
    """The option of every command that runs a bundle."""
    command.add_argument(
        "--trust-bundle",
        action="store_true",
        help="once: a bundle is a program; let this one run that did not come with medseg",
    )


def say(text: str, file: TextIO | None = None) -> None:
    """Print, on standard output unless ``file`` says otherwise, with what would steer a terminal escaped.

    When the reader went away (``| head``), the words are lost and the work goes on.
    """
    with _reader_may_go(file or sys.stdout) as stream:
        print(printable(text), file=stream)


def say_the_rest() -> None:
    """Send out what standard output still holds back. OSError when there is no room for it; Python's own try,
    at the end, would turn that into exit code 120."""
    if sys.stdout is not None:
        with _reader_may_go(sys.stdout) as stream:
            stream.flush()


@contextmanager
def _reader_may_go(stream: TextIO) -> Iterator[TextIO]:
    """Within the block a broken pipe is no error; after that, as after a full disk, words go nowhere."""
    try:
        yield stream
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def say_lines(lines: Iterable[str]) -> None:
    """Print each on a line of its own, whatever line ends a name from a file may hold."""
    for line in lines:
        say(printable(line, keep=""))


_NAME_OR_NUMBER = r"'[^']*'|\"[^\"]*\"|(?<=structure )\w+|\d+(?:\.\d+)?"

MOST_LISTED = 8
"""So many of a kind fit a line; the record has them all."""


def merged(sentences: Iterable[str]) -> list[str]:
    """Each kind of sentence once: those that differ in names and numbers alone become the first of them and
    what tells the others apart from it."""
    kinds: dict[str, list[str]] = {}
    for sentence in dict.fromkeys(sentences):
        kinds.setdefault(re.sub(_NAME_OR_NUMBER, "#", sentence), []).append(sentence)
    return [_with_others(*alike) for alike in kinds.values()]


def _with_others(first: str, *others: str) -> str:
    if not others:
        return first
    own = re.findall(_NAME_OR_NUMBER, first)
    told_apart = [
        next(word for word, mine in zip(re.findall(_NAME_OR_NUMBER, other), own, strict=True) if word != mine)
        for other in others
    ]
    more = ", …" if len(told_apart) > MOST_LISTED else ""
    return f"{first} (and {len(others)} more of this kind: {', '.join(told_apart[:MOST_LISTED])}{more})"
