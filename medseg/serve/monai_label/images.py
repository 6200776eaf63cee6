"""The images that annotators work on, by id. An id is looked up in a table and never part of a path."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.bundles.record import is_result
from medseg.cases.find import Cases, find_cases, find_radiographs, folder_name, unique_name
from medseg.cases.nifti import is_nifti, write_volume
from medseg.cases.radiograph import is_picture, open_radiograph
from medseg.cases.volume import UID_SEPARATOR, fingerprint, is_volume_file, open_case, source_path
from medseg.errors import InputError
from medseg.files import make_folder
from medseg.geometry import Geometry
from medseg.serve.monai_label.films import pixel_grid

if TYPE_CHECKING:
    from medseg.dicom import Series

RESCAN_AFTER_S, LIST_LASTS_S = 10.0, 60.0
"""Images are looked for again when an id is not known, at most so often; and otherwise after a minute."""


def is_dicomweb(studies: str) -> bool:
    """True for the address of a server, False for a folder."""
    return studies.startswith(("http://", "https://"))


class UnknownImage(InputError):
    """No image has this id."""


@dataclass(frozen=True)
class Image:
    """One image. ``source``: a case source of :mod:`medseg.cases.volume`, "" while it is still on a DICOMweb
    server. ``info``: what clients are told of it; no patient's name.
    ``kind``: "volume" or "radiograph"."""

    id: str
    source: str
    info: Mapping[str, Any]
    kind: str = "volume"

    @property
    def key(self) -> str:
        """A name of a folder for what belongs to the image: of the id's digest, so that no id can leave its
        place."""
        return hashlib.sha256(self.id.encode(errors="surrogateescape")).hexdigest()[:32]

    @property
    def is_dicom(self) -> bool:
        return not (is_volume_file(self.source) or is_picture(self.source))


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
    """The images of ``kinds`` under a folder, and what annotators uploaded: volumes are DICOM series and
    NIfTI files, radiographs are CR, DX, PNG and JPEG files.

    Ids are the case names of :mod:`medseg.cases.find`, which come from folders and files.
    """

    def __init__(self, folder: Path, uploads: Path, kinds: Collection[str] = ("volume",)):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected one of images.")
        self.folder, self.uploads, self.kinds = folder, uploads, kinds
        super().__init__()

    def look(self) -> dict[str, Image]:
        """An upload never takes the place of an image of the folder."""
        found: dict[str, Image] = {}
        for root in (self.uploads, self.folder):
            taken: Cases = []
            for kind in FINDERS:
                for name, source in _cases(root, kind) if kind in self.kinds else ():
                    taken.append((unique_name(name, taken), source))
                    name = taken[-1][0]
                    found[name] = Image(name, source, {"name": _file_name(name, source)}, kind)
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


FINDERS = {
    "volume": lambda folder: find_cases(folder, None, is_result),
    "radiograph": lambda folder: find_radiographs(folder, is_result),
}
"""What looks for images of a kind; the kinds are those of :func:`medseg.bundles.kinds.case_kind`."""


def _cases(folder: Path, kind: str) -> Cases:
    try:
        return FINDERS[kind](folder)[0]
    except InputError:  # nothing there yet; images may be uploaded
        return []


def _file_name(name: str, source: str) -> str:
    """What a client may call its copy: clients choose the format by the suffix."""
    return f"{name}.nii.gz" if source.lower().endswith(".gz") else f"{name}.nii"


# ---- what lies behind an image -----------------------------------------------------------------------------


def series_of(image: Image) -> Series | None:
    """The checked DICOM series of a volume that is here; None of another file.
    InputError as :func:`medseg.dicom.read_series` says."""
    is_series = image.is_dicom and image.kind == "volume"
    return _series(image.source, fingerprint(image.source)) if is_series else None


@lru_cache(maxsize=8)
def _series(source: str, _files: tuple) -> Series:
    from medseg.dicom import read_series

    path = source_path(source)
    uid = source.removeprefix(f"{path}{UID_SEPARATOR}") if str(path) != source else None
    return read_series(path, series_uid=uid)


def geometry_of(image: Image) -> Geometry:
    """The grid that labels of the image lie on."""
    if image.kind == "radiograph":
        return pixel_grid(open_radiograph(image.source))
    series = series_of(image)
    return open_case(image.source).geometry if series is None else series.geometry


def voxels_of(image: Image) -> np.ndarray:
    """float32 [slice, row, column]: HU of a CT; of a radiograph one slice of grey values, 0 to 1."""
    if image.kind == "radiograph":
        return open_radiograph(image.source).pixels[None]
    return open_case(image.source).volume


def as_one_file(image: Image, cache: Path) -> Path:
    """The image as one NIfTI file for a client to download: itself, or a copy of it in ``cache``.

    GeometryError for uneven and tilted slices, which no NIfTI file describes.
    """
    if is_nifti(image.source):
        return source_path(image.source)
    digest = hashlib.sha256(repr(fingerprint(image.source)).encode()).hexdigest()[:16]
    target = cache / f"{image.key}-{digest}.nii"
    if not target.exists():
        make_folder(cache)
        write_volume(voxels_of(image), geometry_of(image), target)
    return target
