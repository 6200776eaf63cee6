"""Images that a client brings along: kept for an hour, for whoever sent them."""

from __future__ import annotations

import re
import shutil
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.cases.volume import open_case
from medseg.errors import InputError
from medseg.files import load_json, make_folder, mark, sweep, write_json
from medseg.serve.monai_label.images import Image

LASTS_S = 3600
MOST_SESSIONS = 50
"""At a time, of everyone together: each holds an image."""

MOST_FILES = 3000
_ID = re.compile(r"[0-9a-f]{32}")


class UnknownSession(InputError):
    """There is no such session, or it has ended."""


class TooManySessions(InputError):
    """No more images are taken until older sessions have ended."""


@dataclass(frozen=True)
class Session:
    """``image``: what was sent, as a case source. Times are UTC seconds."""

    id: str
    owner: str
    image: str
    created_at: float
    expires_at: float

    def record(self) -> dict[str, Any]:
        """What clients are told: no path of the server."""
        return {
            "name": self.id,
            "create_ts": int(self.created_at),
            "expiry": int(self.expires_at - self.created_at),
            "meta": {},
        }

    def as_image(self) -> Image:
        return Image(f"session {self.id}", self.image, {"name": "session.nii.gz"})


class Sessions:
    """All sessions under ``folder``; they survive a restart until they end."""

    def __init__(self, folder: Path, now=time.time):
        make_folder(folder)
        self.folder, self.now, self._lock = folder, now, threading.Lock()
        sweep(folder)

    def create(self, files: Sequence[tuple[str, Any]], owner: str, expiry_s: int = 0) -> Session:
        """A session of the uploaded ``files``: (the client's name, an object with ``chunks()``): one NIfTI
        file, or the DICOM files of one series.

        Of the client's names only the suffix is used. InputError for what is no image that medseg reads,
        TooManySessions.
        """
        if not 1 <= len(files) <= MOST_FILES:
            raise InputError(f"{len(files)} files: expected one NIfTI file, or the DICOM files of a series.")
        with self._lock:
            self._end_old()
            if len(self._ids()) >= MOST_SESSIONS:
                raise TooManySessions(f"{MOST_SESSIONS} sessions are open; try again later.")
            session_id = uuid.uuid4().hex
            unfinished = self.folder / f".partial-{mark()}.{session_id}"
            unfinished.mkdir()
        lasts_s = min(expiry_s, LASTS_S) if expiry_s > 0 else LASTS_S
        try:
            name = self._write(files, unfinished)
            open_case(str(unfinished / name))
            folder, now = self.folder / session_id, self.now()
            session = Session(session_id, owner, str(folder / name), now, now + lasts_s)
            write_json(asdict(session), unfinished / "session.json")
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return session

    @staticmethod
    def _write(files: Sequence[tuple[str, Any]], folder: Path) -> str:
        suffix = next((s for s in (".nii.gz", ".nii") if files[0][0].lower().endswith(s)), None)
        if suffix is not None and len(files) == 1:
            names, image = [f"image{suffix}"], f"image{suffix}"
        else:
            (folder / "dicom").mkdir()
            names, image = [f"dicom/{number:05d}.dcm" for number in range(len(files))], "dicom"
        for name, (_, upload) in zip(names, files, strict=True):
            with open(folder / name, "wb") as out:
                for chunk in upload.chunks():
                    out.write(chunk)
        return image

    def get(self, session_id: str) -> Session:
        """UnknownSession for one that there is not, or no longer."""
        if _ID.fullmatch(session_id):
            try:
                session = Session(**load_json(self.folder / session_id / "session.json"))
            except (OSError, ValueError, TypeError):
                session = None
            if session is not None and session.expires_at > self.now():
                return session
        raise UnknownSession("no such session; it has ended, or never was.")

    def remove(self, session_id: str) -> Session:
        session = self.get(session_id)
        shutil.rmtree(self.folder / session.id, ignore_errors=True)
        return session

    def _ids(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name)]

    def _end_old(self) -> None:
        for session_id in self._ids():
            try:
                self.get(session_id)
            except UnknownSession:
                shutil.rmtree(self.folder / session_id, ignore_errors=True)
