"""What annotators submitted: every version is kept, none is overwritten, several people work side by side.

On disk: ``labels/<digest of the image's id>/<version>/{label.nii.gz, version.json}``, and beside each version
its ``<version>.notes.json``. A version's folder appears whole, by one rename, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from medseg.cases.nifti import read_mask, write_volume
from medseg.errors import InputError, StructureError
from medseg.files import load_json, make_folder, mark, sweep, write_json
from medseg.geometry import Geometry
from medseg.serve.monai_label.images import Image
from medseg.structures.structure import check_names_are_unique, structure_from_name

FINAL, ORIGINAL = "final", "original"
"""Tags that MONAI Label's clients know: submitted by a person, and the model's own answer."""

TAGS = (FINAL, ORIGINAL)
LABEL_FILE, RECORD_FILE = "label.nii.gz", "version.json"
BY_HAND = "by hand"


class UnknownLabel(InputError):
    """No label has this id, or none that the caller may see."""


@dataclass(frozen=True)
class Version:
    """One submitted label. ``origin``: "by hand", or the model and version that it started from; ``parent``:
    id of the version before it; ``label_names``: {structure: value in the file}; ``notes``: what was said of
    it since, among it ``withdrawn`` and ``chosen``."""

    id: str
    image: str
    tag: str
    annotator: str
    submitted_at: str
    origin: str
    parent: str | None
    label_names: Mapping[str, int]
    sha256: str
    folder: Path
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / LABEL_FILE

    @property
    def is_withdrawn(self) -> bool:
        return bool(self.notes.get("withdrawn"))

    def record(self) -> dict[str, Any]:
        """What clients are told."""
        kept = {key: value for key, value in asdict(self).items() if key != "folder"}
        seconds = int(datetime.fromisoformat(self.submitted_at).timestamp())
        return {**kept, "name": f"{self.id}.nii.gz", "ts": seconds}

    def masks(self, geometry: Geometry) -> dict[str, np.ndarray]:
        """{structure: bool [slice, row, column]} on the image's grid; a structure that nobody drew a voxel of
        is an empty mask."""
        values = read_mask(self.file, geometry).astype(np.int16)
        return {name: values == number for name, number in self.label_names.items()}


@dataclass(frozen=True)
class Submission:
    """What :meth:`Labels.save` is to keep: ``values`` int [slice, row, column] on ``geometry``, 0 where
    nothing was drawn, and what the numbers mean."""

    values: np.ndarray
    geometry: Geometry
    label_names: Mapping[str, int]
    annotator: str
    tag: str = FINAL
    origin: str = BY_HAND
    parent: str | None = None

    def __post_init__(self):
        if self.tag not in TAGS:
            raise InputError(f"tag {self.tag!r}: expected one of {', '.join(TAGS)}.")
        if self.values.shape != self.geometry.shape:
            raise InputError(f"label {self.values.shape} for an image of {self.geometry.shape}.")
        check_names_are_unique(self.label_names)
        for name in self.label_names:
            structure_from_name(name)
        present = set(np.unique(self.values).tolist()) - {0}
        unnamed = sorted(present - set(self.label_names.values()))
        if unnamed:
            raise StructureError(
                f"the label holds the values {', '.join(map(str, unnamed[:8]))}, which no name is given for; "
                f"there are {dict(self.label_names)}."
            )


class Labels:
    """All versions under ``folder``. Safe for threads and for several processes: versions only appear."""

    def __init__(self, folder: Path):
        make_folder(folder)
        self.folder = folder
        self._lock = threading.Lock()
        self._read: dict[str, tuple[int, tuple[Version, ...]]] = {}

    def save(self, image: Image, submission: Submission) -> Version:
        """Keep a submission as a new version. InputError for an unknown parent, GeometryError for a stack
        that a NIfTI file cannot describe."""
        if submission.parent is not None and self.get(submission.parent).image != image.id:
            raise InputError(f"parent {submission.parent} is a label of another image.")
        place = self.folder / image.key
        make_folder(place)
        now = datetime.now(timezone.utc)
        version_id = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"
        unfinished = place / f".partial-{mark()}.{version_id}"
        with self._lock:
            sweep(place)
        unfinished.mkdir()
        try:
            write_volume(submission.values, submission.geometry, unfinished / LABEL_FILE)
            record = {
                "id": version_id,
                "image": image.id,
                "tag": submission.tag,
                "annotator": submission.annotator,
                "submitted_at": now.isoformat(),
                "origin": submission.origin,
                "parent": submission.parent,
                "label_names": dict(submission.label_names),
                "sha256": hashlib.sha256((unfinished / LABEL_FILE).read_bytes()).hexdigest(),
            }
            write_json(record, unfinished / RECORD_FILE)
            for file in (unfinished / LABEL_FILE, unfinished / RECORD_FILE, unfinished):
                _to_disk(file)
            unfinished.rename(place / version_id)
            _to_disk(place)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return self.get(version_id)

    def of(self, image: Image) -> list[Version]:
        """Every version of an image, oldest first; withdrawn ones too."""
        return list(self._versions(image.key))

    def all(self) -> list[Version]:
        """Every version of every image, oldest first."""
        found = [version for key in self._keys() for version in self._versions(key)]
        return sorted(found, key=lambda version: (version.submitted_at, version.id))

    def get(self, version_id: str) -> Version:
        for key in self._keys():
            for version in self._versions(key):
                if version.id == version_id:
                    return version
        raise UnknownLabel(f"no label {version_id[:80]!r}.")

    def note(self, version_id: str, notes: Mapping[str, Any], by: str) -> Version:
        """Say something of a version: its file stays as it is, and who said it stands beside it."""
        with self._lock:
            version = self.get(version_id)
            said = {**version.notes, **notes, "noted_by": by}
            write_json(said, version.folder.parent / f"{version.id}.notes.json")
        return self.get(version_id)

    def _keys(self) -> list[str]:
        with os.scandir(self.folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())

    def _versions(self, key: str) -> tuple[Version, ...]:
        """Read again when something in the image's folder was added or replaced."""
        place = self.folder / key
        try:
            changed = place.stat().st_mtime_ns
        except FileNotFoundError:
            return ()
        known = self._read.get(key)
        if known is None or known[0] != changed:
            found = [_read_version(path.parent) for path in place.glob(f"[!.]*/{RECORD_FILE}")]
            found.sort(key=lambda version: (version.submitted_at, version.id))
            known = self._read[key] = changed, tuple(found)
        return known[1]


def _read_version(folder: Path) -> Version:
    record = load_json(folder / RECORD_FILE)
    notes_file = folder.parent / f"{folder.name}.notes.json"
    notes = load_json(notes_file) if notes_file.exists() else {}
    return Version(**record, folder=folder, notes=notes)


def _to_disk(path: Path) -> None:
    """What lies there survives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- which of several --------------------------------------------------------------------------------------


def current(versions: Iterable[Version], tag: str = FINAL, annotator: str | None = None) -> Version | None:
    """The version that counts: the one that a reviewer chose last, else the newest that is not withdrawn;
    None without one. ``annotator``: only this person's."""
    kept = [
        version
        for version in versions
        if version.tag == tag and not version.is_withdrawn and annotator in (None, version.annotator)
    ]
    chosen = [version for version in kept if version.notes.get("chosen")]
    if chosen:
        return max(chosen, key=lambda version: str(version.notes["chosen"]))
    return kept[-1] if kept else None


def newest_of_each(versions: Iterable[Version], tag: str = FINAL) -> dict[str, Version]:
    """{annotator: their newest version that is not withdrawn}."""
    found = {}
    for version in versions:
        if version.tag == tag and not version.is_withdrawn:
            found[version.annotator] = version
    return found


def plain_notes(text: str) -> dict[str, Any]:
    """Notes as a client sends them: a JSON object. InputError for anything else and for above 64 KiB."""
    if len(text) > 65_536:
        raise InputError("notes of more than 65536 characters are not kept.")
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"notes are no JSON ({str(error)[:80]}).") from error
    if not isinstance(notes, dict):
        raise InputError("notes: expected a JSON object.")
    reserved = {"chosen", "withdrawn", "noted_by"} & set(notes)
    if reserved:
        raise InputError(f"notes: {', '.join(sorted(reserved))} cannot be set this way.")
    return notes
