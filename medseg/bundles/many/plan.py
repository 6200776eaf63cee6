"""What a run over many cases does with each of them: the verbs, and the cases they find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medseg.bundles.many.engine import Run
from medseg.dicom.images.scan import Found


@dataclass(frozen=True)
class Case:
    """One case. ``name``: of its folder. ``values``: plain values that the worker gets, "case" among them.
    ``state``: changes when the case's files do. ``size``: in bytes, by which the largest go first."""

    name: str
    values: Mapping[str, Any]
    state: str
    size: int


class Verb(Protocol):
    """One kind of work over many cases, as plain values that can be pickled.

    ``record()``: what of the request decides the results, as plain values; raises InputError or BundleError
    for what concerns the whole run, before any case. ``cases(scan)``: the cases and what was passed over.
    ``is_there(case)``: whether what a finished case left still stands there; a look, no reading. ``open()``:
    in a worker, a context that gives what does one case, returning its record: {"case", "status": "done" or
    "failed", …}. ``end(records)``: what is left to do when all cases have ended; sentences about what was
    odd.
    """

    verb: str
    output_dir: Path

    def record(self) -> dict[str, Any]: ...

    def cases(self, scan: Callable[[Path], Found]) -> tuple[list[Case], list[str]]: ...

    def is_there(self, case: Case) -> bool: ...

    def open(self) -> AbstractContextManager[Run]: ...

    def end(self, records: Sequence[Mapping[str, Any]]) -> list[str]: ...


class FolderPerCase:
    """Of a verb whose results lie in OUT/<case>, with a run.json that is written last."""

    output_dir: Path

    def is_there(self, case: Case) -> bool:
        return (self.output_dir / case.name / "run.json").is_file()

    def end(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        return []


def digest(*values: Any) -> str:
    """Hex SHA-256 of plain values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
