"""The images that annotators work on, by id. An id is looked up in a table and never part of a path."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.bundles.record import is_result
from medseg.cases.find import find_cases, folder_name
from medseg.cases.nifti import is_nifti, write_volume
from medseg.cases.volume import UID_SEPARATOR, fingerprint, open_case, source_path
from medseg.errors import InputError
from medseg.files import make_folder
from medseg.geometry import Geometry

if TYPE_CHECKING:
    from medseg.dicom import Series

RESCAN_AFTER_S, LIST_LASTS_S = 10.0, 60.0
"""Images are looked for again when an id is not known, at most so often; and otherwise after a minute."""


class UnknownImage(InputError):
    """No image has this id."""


@dataclass(frozen=True)
class Image:
    """One image. ``source``: a case source of :mod:`medseg.cases.volume`, "" while it is still on a DICOMweb
    server. ``info``: what clients are told of it; no patient's name."""

    id: str
    source: str
    info: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A name of a folder for what belongs to the image: of the id's digest, so that no id can leave its
        place."""
        return hashlib.sha256(self.id.encode(errors="surrogateescape")).hexdigest()[:32]

    @property
    def is_dicom(self) -> bool:
        return not is_nifti(self.source)


class Listed:
    """A table of images by id, which is made anew for an id that is not known, and in the background when it
    is a minute old: whoever asks for the list never waits for it. A subclass says how: :meth:`look`."""

    def __init__(self):
        self._lock, self._scanned, self._images = threading.Lock(), 0.0, {}
        self.rescan()

    def look(self) -> dict[str, Image]:
        """{id: image} as things are now. InputError when it cannot be found out."""
        raise NotImplementedError

    def unknown(self, image_id: str) -> str:
        """What to say of an id that is not there."""
        raise NotImplementedError

    def rescan(self) -> None:
        """Look again."""
        self._images, self._scanned = self.look(), time.monotonic()

    def _rescan_quietly(self) -> None:
        try:
            self.rescan()
        except (InputError, OSError) as error:  # what was there before stays
            self._scanned = time.monotonic()
            logging.getLogger("medseg.label").warning("%s", error)
        finally:
            self._lock.release()

    def ids(self) -> list[str]:
        is_old = time.monotonic() - self._scanned > LIST_LASTS_S
        if is_old and self._lock.acquire(blocking=False):
            threading.Thread(target=self._rescan_quietly, name="rescan", daemon=True).start()
        return sorted(self._images)

    def get(self, image_id: str) -> Image:
        if image_id not in self._images:
            with self._lock:
                if time.monotonic() - self._scanned > RESCAN_AFTER_S:
                    self.rescan()
        try:
            return self._images[image_id]
        except KeyError:
            raise UnknownImage(self.unknown(image_id)) from None


class FolderImages(Listed):
    """The volumes under a folder: DICOM series and NIfTI files, and what annotators uploaded.

    Ids are the case names of :func:`medseg.cases.find.find_cases`, which come from folders and files.
    """

    def __init__(self, folder: Path, uploads: Path):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected one of DICOM series or NIfTI files.")
        self.folder, self.uploads = folder, uploads
        super().__init__()

    def look(self) -> dict[str, Image]:
        """An upload never takes the place of an image of the folder."""
        found: dict[str, Image] = {}
        for root in (self.uploads, self.folder):
            try:
                cases = find_cases(root, None, is_result)[0] if root.is_dir() else []
            except InputError:  # nothing there yet; images may be uploaded
                cases = []
            for name, source in cases:
                found[name] = Image(name, source, {"name": _file_name(name, source)})
        return found

    def unknown(self, image_id: str) -> str:
        return f"no image {image_id[:80]!r}; GET /datastore/?output=all lists them."

    def local(self, image_id: str) -> Image:
        return self.get(image_id)

    def add(self, name: str, upload: Path) -> Image:
        """Take an uploaded NIfTI file as an image called like ``name``. InputError when it is no volume that
        medseg reads, or an image of that name is there."""
        name = folder_name(name)
        with self._lock:
            if name.casefold() in {known.casefold() for known in self._images}:
                raise InputError(f"an image {name!r} is there already; choose another id.")
            open_case(str(upload))
            make_folder(self.uploads)
            target = self.uploads / f"{name}.nii.gz"
            upload.replace(target)
            image = Image(name, str(target), {"name": target.name})
            self._images = {**self._images, name: image}
        return image


def _file_name(name: str, source: str) -> str:
    """What a client may call its copy: clients choose the format by the suffix."""
    return f"{name}.nii.gz" if source.lower().endswith(".gz") else f"{name}.nii"


# ---- what lies behind an image -----------------------------------------------------------------------------


def series_of(image: Image) -> Series | None:
    """The checked DICOM series of an image that is here; None of a NIfTI file. InputError as
    :func:`medseg.dicom.read_series` says."""
    return _series(image.source, fingerprint(image.source)) if image.is_dicom else None


@lru_cache(maxsize=8)
def _series(source: str, _files: tuple) -> Series:
    from medseg.dicom import read_series

    path = source_path(source)
    uid = source.removeprefix(f"{path}{UID_SEPARATOR}") if str(path) != source else None
    return read_series(path, series_uid=uid)


def geometry_of(image: Image) -> Geometry:
    """The grid that labels of the image lie on."""
    series = series_of(image)
    return open_case(image.source).geometry if series is None else series.geometry


def as_one_file(image: Image, cache: Path) -> Path:
    """The image as one NIfTI file for a client to download: itself, or a copy of its series in ``cache``.

    GeometryError for uneven and tilted slices, which no NIfTI file describes.
    """
    if not image.is_dicom:
        return source_path(image.source)
    digest = hashlib.sha256(repr(fingerprint(image.source)).encode()).hexdigest()[:16]
    target = cache / f"{image.key}-{digest}.nii"
    if not target.exists():
        make_folder(cache)
        case = open_case(image.source)
        write_volume(case.volume, case.geometry, target)
    return target
