"""A parser that says in one line what is wrong with an option or command, and what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from medseg.cli.words import say


class SuggestingParser(argparse.ArgumentParser):
    """An ArgumentParser whose error is one line: about an unknown option or command it names the nearest one
    that there is, and an option that takes one value is refused when it is given twice. A word that begins
    with a minus and a digit is a value: a point or a box in LPS mm, as in ``--at -31,20,5``.

    A command's own parser is found under ``parser`` of the options: ``command.set_defaults(parser=command)``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register("action", None, _Once)
        # argparse takes -31 for a number and -31,20,5 for an option; it has no public way to say otherwise.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_args(self, args: Sequence[str] | None = None, namespace=None):
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = getattr(options, "parser", self)
            known = [option for action in command._actions for option in action.option_strings]
            command.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown, known)}")
        return options

    def error(self, message: str) -> NoReturn:
        """One line on standard error instead of the whole usage, and exit code 2."""
        line = " ".join(f"error: {self.prog}: {message} ({self.prog} --help lists what there is)".split())
        say(line, file=sys.stderr)
        sys.exit(2)

    def _check_value(self, action: argparse.Action, value) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _meant([str(value)], map(str, action.choices or ()))
            raise


class _Once(argparse._StoreAction):
    """An option that takes one value: the second of two would otherwise count and the first be dropped
    without a word."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        given = namespace.__dict__.setdefault("given", set())
        if option_string is not None and self.dest in given:
            raise argparse.ArgumentError(self, "is given twice; give it once")
        given.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


def path_of(text: str) -> Path:
    """A path of the command line. ArgumentTypeError for an empty one, as an unset variable of a script gives,
    which would be the current folder, and for one that no system can follow (links in a circle)."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; expected a path (. is the current folder)")
    try:
        os.stat(text)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise argparse.ArgumentTypeError(f"{text[:100]}: {error.strerror}") from error
    return Path(text)


def _meant(words: Iterable[str], known: Iterable[str]) -> str:
    known = list(known)
    for word in words:
        nearest = difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=0.6)
        if nearest and nearest[0] == word:
            return f"; {word} goes behind the command"
        if nearest:
            return f"; did you mean {nearest[0]}?"
    return ""
