"""Images on a DICOMweb server: found by QIDO, fetched by WADO when somebody works on them, contours stored
back by STOW."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread

from medseg.errors import InputError
from medseg.files import make_folder, staging_folder
from medseg.serve.monai_label.images import Image, Listed

MODALITIES = ("CT", "MR", "PT")
MOST_SERIES = 10_000


class DicomWebImages(Listed):
    """Series of a DICOMweb server, each with its SeriesInstanceUID for an id, as OHIF names it.

    A series is fetched once into ``cache``: whole, or not at all. ``modalities``: which are listed.
    InputError when the server cannot be reached; ``tries``: how often that is tried, in growing distances.
    """

    def __init__(self, url: str, cache: Path, modalities: Sequence[str] = MODALITIES, tries: int = 5):
        self.url, self.cache, self.modalities, self.tries = url.rstrip("/"), cache, tuple(modalities), tries
        self.shown = _without_password(self.url)
        self._fetching = threading.Lock()
        super().__init__()

    def _client(self) -> DICOMwebClient:
        client = DICOMwebClient(self.url)
        client.set_http_retry_params(max_attempts=self.tries)
        return client

    def look(self) -> dict[str, Image]:
        found = {}
        for modality in self.modalities:
            for row in self._asked(
                lambda client, modality=modality: client.search_for_series(
                    search_filters={"Modality": modality}, limit=MOST_SERIES
                )
            ):
                uid, study = _value(row, "0020000E"), _value(row, "0020000D")
                if uid and study:
                    info = {"name": f"{uid}.nii", "StudyInstanceUID": study, "SeriesInstanceUID": uid}
                    found[uid] = Image(uid, self._source(uid), {**info, "Modality": modality})
        return found

    def unknown(self, image_id: str) -> str:
        return f"no series {image_id[:80]!r} on the DICOMweb server."

    def _asked(self, question) -> Any:
        try:
            return question(self._client()) or []
        except (requests.RequestException, OSError, ValueError) as error:
            reason = " ".join(str(error).split()).replace(self.url, self.shown)[:200]
            raise InputError(f"DICOMweb server {self.shown}: {type(error).__name__}: {reason}") from error

    def _folder(self, uid: str) -> Path:
        return self.cache / Image(uid, "", {}).key

    def _source(self, uid: str) -> str:
        folder = self._folder(uid)
        return str(folder) if folder.is_dir() else ""

    def local(self, image_id: str) -> Image:
        """The image with its files here. InputError when they cannot be fetched."""
        image = self.get(image_id)
        if self._source(image_id):
            return Image(image.id, self._source(image_id), image.info)
        with self._fetching:  # a second annotator of the same series waits for the first one's copy
            if not self._source(image_id):
                self._fetch(image)
        return Image(image.id, self._source(image_id), image.info)

    def _fetch(self, image: Image) -> None:
        make_folder(self.cache)
        study, uid = image.info["StudyInstanceUID"], image.id
        with staging_folder(self.cache) as staging:
            whole = staging / image.key
            whole.mkdir()
            slices = self._asked(lambda client: client.retrieve_series(study, uid))
            for number, dataset in enumerate(slices):
                # The file's name is ours: no UID of a server becomes part of a path.
                dataset.save_as(whole / f"{number:05d}.dcm", enforce_file_format=True)
            if not slices:
                raise InputError(f"DICOMweb server {self.shown}: series {uid} has no instances.")
            whole.rename(self._folder(uid))

    def store(self, file: Path) -> None:
        """Store a structure set or segmentation on the server (STOW). InputError when it refuses it."""
        dataset = dcmread(file)
        self._asked(lambda client: client.store_instances([dataset]))

    def forget(self, image_id: str) -> None:
        """Remove the local copy of a series; it is fetched again when it is needed."""
        shutil.rmtree(self._folder(image_id), ignore_errors=True)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _value(row: Mapping[str, Any], tag: str) -> str:
    values = row.get(tag, {}).get("Value") or [""]
    return str(values[0])
