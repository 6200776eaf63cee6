"""What was found in a folder, kept in a database: at the next look only new and changed files are opened.

A row per file says its size and time, the series it belongs to and whether it is a localizer; nothing of the
patient. Headers that tell whose images they are come from one file of each series, read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.queue_storage import SQLite
from medseg.dicom import find_series
from medseg.dicom.images.scan import FileNote, Found, SeriesFiles, files_below
from medseg.errors import InputError

_TABLE = (
    "CREATE TABLE IF NOT EXISTS medseg_files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, "
    "mtime_ns INTEGER NOT NULL, what TEXT NOT NULL, series_uid TEXT, sop_uid TEXT, words TEXT NOT NULL) "
    "WITHOUT ROWID"
)
_PUT = "INSERT OR REPLACE INTO medseg_files VALUES (?, ?, ?, ?, ?, ?, ?)"
AT_ONCE = 2000
"""So many files are read between two entries: a run that is killed has lost no more."""

PLACE = ("position_lps_mm", "orientation", "spacing_mm")


@dataclass(frozen=True)
class _Row:
    """One file. ``what``: "slice", "structure set", "registration", "ignored" or "broken"; ``words``: of a
    slice as JSON where each of its frames lies and its image types, of the last two why."""

    path: str
    size: int
    mtime_ns: int
    what: str
    series_uid: str | None
    sop_uid: str | None
    words: str


class Index:
    """The index in an SQLite file, which may hold other tables. Remembers how many files the last scan had to
    open (``opened``)."""

    def __init__(self, file: Path) -> None:
        self.storage = SQLite(file, (_TABLE,), "index", durable=False)
        self.opened = 0

    def scan(self, folder: str | os.PathLike) -> Found:
        """What :func:`medseg.dicom.find_series` finds in a folder or file, with headers from one file of each
        series; a file that has the size and time of its row is not opened for it."""
        folder = Path(folder)
        if not folder.is_dir():
            return find_series(folder)
        files, refused = files_below(folder)
        known, rows, new = self._known(folder), [], []
        for path in files:
            stat = path.stat()
            row = known.pop(str(path), None)
            if row is not None and (row.size, row.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
                rows.append(row)
            else:
                new.append((path, stat.st_size, stat.st_mtime_ns))
        self.opened = len(new)
        for start in range(0, len(new), AT_ONCE):
            read = list(_read(new[start : start + AT_ONCE]))
            self._put(read)
            rows += read
        self._forget(known)
        found = _found(str(folder), sorted(rows, key=lambda row: row.path))
        found.broken.extend(FileNote(path, why) for path, why in refused.items())
        return found

    def _known(self, folder: Path) -> dict[str, _Row]:
        # Names below the folder begin with its own and a separator; "0" follows "/" in every collation here.
        below = str(folder) + os.sep
        with self.storage.transaction(writes=False) as execute:
            rows = execute(
                "SELECT * FROM medseg_files WHERE path >= ? AND path < ?",
                (below, below[:-1] + chr(ord(os.sep) + 1)),
            )
        return {row[0]: _Row(*row) for row in rows}

    def _put(self, rows: Iterable[_Row]) -> None:
        with self.storage.transaction() as execute:
            for row in rows:
                execute(_PUT, tuple(vars(row).values()))

    def _forget(self, paths: Iterable[str]) -> None:
        """Files that are gone."""
        with self.storage.transaction() as execute:
            for path in paths:
                execute("DELETE FROM medseg_files WHERE path = ?", (path,))


def _read(files: list[tuple[Path, int, int]]) -> Iterator[_Row]:
    """Rows of files that were opened."""
    found = find_series([path for path, _, _ in files])
    of_path: dict[str, tuple[str, str | None, str | None, str]] = {}
    for path in found.structure_sets:
        of_path[str(path)] = ("structure set", None, None, "")
    for path in found.registrations:
        of_path[str(path)] = ("registration", None, None, "")
    for what, notes in (("ignored", found.ignored), ("broken", found.broken)):
        for note in notes:
            of_path[str(note.path)] = (what, note.series_uid, None, note.why)
    for uid, series in found.series.items():
        frames: dict[str, list[Any]] = {}
        for record in series.records:
            path, places = str(record.path), frames.setdefault(str(record.path), [])
            places.append([getattr(record, name).tolist() for name in PLACE] + [list(record.image_types)])
            of_path[path] = ("slice", uid, str(record.dataset.SOPInstanceUID), "")
        for path, places in frames.items():
            of_path[path] = (*of_path[path][:3], json.dumps(places))
    for path, size, mtime_ns in files:
        yield _Row(str(path), size, mtime_ns, *of_path.get(str(path), ("ignored", None, None, "not DICOM")))


# ---- rows as a scan ----------------------------------------------------------------------------------------


def _found(root: str, rows: list[_Row]) -> Found:
    found = Found(root)
    slices: dict[str, list[_Row]] = {}
    for row in rows:
        path = Path(row.path)
        if row.what == "slice":
            slices.setdefault(str(row.series_uid), []).append(row)
        elif row.what == "structure set":
            found.structure_sets.append(path)
        elif row.what == "registration":
            found.registrations.append(path)
        else:
            notes = found.ignored if row.what == "ignored" else found.broken
            notes.append(FileNote(path, row.words, row.series_uid))
    firsts = find_series([Path(own[0].path) for own in slices.values()]).series
    for uid, own in slices.items():
        if uid not in firsts:
            raise InputError(f"{own[0].path}: changed while it was being looked at; run again.")
        found.series[uid] = _series(firsts[uid], own)
    return found


def _series(first: SeriesFiles, rows: list[_Row]) -> SeriesFiles:
    """All slices of a series, each at its own place, with the header of the first for all of them: a scan is
    for finding, and whoever works on the series reads it."""
    told = ("series_uid", "modality", "description", "study_uid", "patient_id")
    series = SeriesFiles(*(getattr(first, name) for name in told))
    for row in rows:
        frames = json.loads(row.words)
        for number, (*place, image_types) in enumerate(frames, 1):
            record = replace(
                first.records[0],
                path=Path(row.path),
                frame=number if first.records[0].frame else None,
                image_types=tuple(image_types),
                **{name: np.array(values) for name, values in zip(PLACE, place, strict=True)},
            )
            series.records.append(record)
    return series
