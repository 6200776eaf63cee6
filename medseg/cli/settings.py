"""ID=VALUE words, as --set takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from medseg.errors import InputError


def settings_of(pairs: Sequence[str]) -> dict:
    """ID=VALUE words to a dict; a value is JSON where it can be, else text. Nothing is evaluated."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{pair!r}: expected ID=VALUE, as in min_volume_cc=2.")
        if re.search(r"(^|[#:])_\w+_$", key):
            raise InputError(f"{pair!r}: what a config calls, and how, is changed in the config alone.")
        if key in settings:
            raise InputError(f"{pair!r}: {key} is set twice; give it once.")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
        _require_plain(pair, settings[key])
    return settings


def _require_plain(pair: str, value) -> None:
    """InputError for what MONAI would evaluate, look up or build, however deep in lists it stands."""
    if isinstance(value, list):
        for part in value:
            _require_plain(pair, part)
    elif isinstance(value, dict) or isinstance(value, str) and value.lstrip().startswith(("$", "@", "%")):
        raise InputError(
            f"{pair!r}: expressions, references and definitions are not taken from the command line; give a "
            f"plain value."
        )
