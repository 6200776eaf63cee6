"""A parser that says what a mistyped option or command was probably meant to be."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence


class SuggestingParser(argparse.ArgumentParser):
    """An ArgumentParser whose error about an unknown option or command names the nearest one that there is.

    A command's own parser is found under ``parser`` of the options: ``command.set_defaults(parser=command)``.
    """

    def parse_args(self, args: Sequence[str] | None = None, namespace=None):
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = getattr(options, "parser", self)
            known = [option for action in command._actions for option in action.option_strings]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown, known)}")
        return options

    def _check_value(self, action: argparse.Action, value) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _meant([str(value)], map(str, action.choices or ()))
            raise


def _meant(words: Iterable[str], known: Iterable[str]) -> str:
    known = list(known)
    for word in words:
        nearest = difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=0.6)
        if nearest:
            return f"; did you mean {nearest[0]}?"
    return ""
