"""What a value of the node's file may be beside its kind: ranges of numbers, titles, codes, files."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg.errors import InputError

ANYONE = "*"
_MOST_TITLE = 16
"""Characters of an AE title (PS3.5, AE)."""

RANGES: dict[str, tuple[float, float]] = {
    "port": (1, 65_535),
    "metrics_port": (1, 65_535),
    "associations": (1, 1000),
    "at_least": (1, math.inf),
    "workers": (1, 64),
    "quiet_s": (0, 86_400),
    "lease_s": (1, 86_400),
    "keep_days": (0.01, 36_500),
    "keep_trying_days": (0.01, 3650),
    "least_free_gb": (0, math.inf),
    "worker_memory_gb": (0.1, math.inf),
}
"""{key of a number: (least, most)}; a number that is none (NaN) is in no range."""


def title(value: str) -> str:
    """Why it is no AE title; "" of one."""
    right = 0 < len(value.strip()) and len(value) <= _MOST_TITLE and "\\" not in value
    return "" if right and value.isascii() and value.isprintable() else f"1 to {_MOST_TITLE} ASCII characters"


def _titles(values: tuple[str, ...]) -> str:
    if not values:
        return f'AE titles, or ["{ANYONE}"] for anyone'
    return next((why for value in values if (why := title(value))), "")


def _code(value: str) -> str:
    """Modalities are capitals: another one would match nothing."""
    return "" if value and value == value.upper() else f"the code of the images, {value.upper() or 'CT'!r}"


def _addresses(values: dict[str, str]) -> str:
    for sender, address in values.items():
        host, _, port = str(address).rpartition(":")
        if title(sender) or not host or not port.isdecimal() or not 1 <= int(port) <= 65_535:
            return '{"AE title": "host:port"}'
    return ""


def _file(value: str) -> str:
    return "" if Path(value).is_file() else "a PEM file that is there"


_CHECKS: dict[str, Callable[[Any], str]] = {
    "ae_title": title,
    "sender": title,
    "allowed": _titles,
    "modality": _code,
    "formats": lambda values: "" if values else "at least one",
    "commitment": _addresses,
    "authority": _file,
    "certificate": _file,
    "key": _file,
}


def check_value(key: str, value: Any, where: str) -> None:
    """InputError for a value of the right kind that cannot be meant. None, what is not said, is fine."""
    expected = ""
    if value is None:
        return
    if key in RANGES:
        low, high = RANGES[key]
        if not low <= value <= high or math.isinf(value):
            most = "" if math.isinf(high) else f" to {high:g}"
            expected = f"{low:g}{most or ' or more'}"
    elif key in _CHECKS:
        expected = _CHECKS[key](value)
    if expected:
        raise InputError(f"{where}: `{key}` is {value!r}; expected {expected}.")
