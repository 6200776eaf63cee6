"""A line of JSON for everything that happens, without any name: UIDs, AE titles, states and numbers."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Any

FIELDS = frozenset(
    {
        "association",
        "sender",
        "study",
        "series",
        "object",
        "status",
        "rule",
        "job",
        "target",
        "state",
        "attempts",
        "images",
        "files",
        "seconds",
        "error",
        "process",
        "pid",
        "code",
        "port",
    }
)
"""All that a line may tell, beside time, level and event. ``error``: the kind of an error, never its words,
which may quote what a file says."""


def log(event: str, level: str = "info", **values: Any) -> None:
    """Write one line to standard error. ValueError for a field that is not one of :data:`FIELDS`."""
    unknown = set(values) - FIELDS
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: a log line may not tell that.")
    _write({"time": _now(), "level": level, "event": event, **values})


def use_json_logs() -> None:
    """Let other libraries' messages appear as lines too, by their kind alone, and no warnings, which quote
    values of files."""
    warnings.simplefilter("ignore")
    handler = _Handler(logging.WARNING)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else record.name
        where = f"{record.module}:{record.lineno}"
        _write({"time": _now(), "level": record.levelname.lower(), "event": where, "error": error})


def _write(line: dict[str, Any]) -> None:
    sys.stderr.write(json.dumps(line) + "\n")  # one write: lines of several processes do not mix
    sys.stderr.flush()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
