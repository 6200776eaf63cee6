"""``/datastore``, ``/session``: images, labels in versions, and what clients bring along."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from django.http import HttpResponse, JsonResponse

from medseg.errors import InputError
from medseg.serve.monai_label.answers import Refused, file_answer
from medseg.serve.monai_label.description import objects, status
from medseg.serve.monai_label.door import Asking, int_or_0
from medseg.serve.monai_label.export import DICOM_FILES, write_dicom
from medseg.serve.monai_label.images import FolderImages, as_one_file
from medseg.serve.monai_label.label_files import suffix_of
from medseg.serve.monai_label.labels import FINAL, plain_notes
from medseg.serve.monai_label.people import Denied
from medseg.serve.monai_label.service import Asked, Service

DIGESTS = ("SHA256", "SHA512", "MD5")


class StoreViews:
    """The views of ``/datastore/`` and ``/session/``."""

    def __init__(self, service: Service):
        self.service = service

    def datastore(self, asking: Asking) -> HttpResponse:
        """GET: counts; ``output=all`` every image with its labels; ``output=train`` those with a label."""
        output = asking.query("output") or "stats"
        if output == "stats":
            return JsonResponse(status(self.service))
        found = objects(self.service, asking.person)
        if output == "all":
            return JsonResponse(found)
        if output != "train":
            raise Refused(400, f"output {output[:40]!r}: expected stats, all or train.")
        rows = [
            {"image": name, "label": row["labels"][FINAL]["info"]["id"]}
            for name, row in found["objects"].items()
            if FINAL in row["labels"]
        ]
        return JsonResponse(rows, safe=False)

    # ---- images --------------------------------------------------------------------------------------------

    def image(self, asking: Asking) -> HttpResponse:
        """GET: the image as one NIfTI file."""
        image = self.service.images.local(asking.query("image"))
        file = as_one_file(image, self.service.places.cache / "files")
        wanted = asking.query("check_sum")
        if wanted:
            _check_sum(file, wanted)
        name = str(image.info.get("name") or "image.nii")
        return file_answer(file, name)

    def add_image(self, asking: Asking) -> HttpResponse:
        """PUT: take an uploaded NIfTI file as a new image."""
        if not isinstance(self.service.images, FolderImages):
            raise InputError("images of a DICOMweb server are stored there, not here.")
        upload = _one_file(asking, "file")
        suffix = suffix_of(upload.name)
        if suffix != ".nii.gz":
            raise InputError("expected an image as .nii.gz.")
        name = asking.query("image") or upload.name.removesuffix(suffix)
        with tempfile.TemporaryDirectory(dir=self.service.places.temporary) as folder:
            file = _written(upload, Path(folder) / f"image{suffix}")
            image = self.service.images.add(name, file)
        return JsonResponse({"image": image.id})

    def image_info(self, asking: Asking) -> HttpResponse:
        """GET: what is known of an image."""
        return JsonResponse(dict(self.service.images.get(asking.query("image")).info))

    # ---- labels --------------------------------------------------------------------------------------------

    def label(self, asking: Asking) -> HttpResponse:
        """GET: a label's file, as it was submitted or as ``output=rtstruct`` or ``dicom_seg``."""
        name = asking.query("label") or asking.query("image")
        version = self.service.label(name, asking.query("tag"), asking.person)
        output = asking.query("output") or "image"
        if output == "image":
            return file_answer(version.file, f"{version.id}.nii.gz")
        if output not in DICOM_FILES:
            raise Refused(400, f"output {output[:40]!r}: expected image, rtstruct or dicom_seg.")
        image = self.service.images.local(version.image)
        with tempfile.TemporaryDirectory(dir=self.service.places.temporary) as folder:
            content = write_dicom(version, image, output, Path(folder)).read_bytes()
        answer = HttpResponse(content, content_type="application/dicom")
        answer["Content-Disposition"] = f'attachment; filename="{DICOM_FILES[output]}"'
        return answer

    def save_label(self, asking: Asking) -> HttpResponse:
        """PUT: submit a label. Every one is kept as a version of its own."""
        upload = _one_file(asking, "label")
        suffix = suffix_of(upload.name)
        asked = Asked(asking.person, asking.query("tag") or FINAL)
        with tempfile.TemporaryDirectory(dir=self.service.places.temporary) as folder:
            file = _written(upload, Path(folder) / f"label{suffix}")
            version = self.service.submit(asking.query("image"), file, suffix, asking.params, asked)
        stored = self.service.store_back(version) if asked.tag == FINAL else {}
        return JsonResponse({"image": version.image, "label": version.id, **stored})

    def label_info(self, asking: Asking) -> HttpResponse:
        """GET: what is known of a label, and of all versions of its image that the person may see."""
        version = self.service.label(asking.query("label"), asking.query("tag"), asking.person)
        image = self.service.images.get(version.image)
        seen = [one.id for one in self.service.labels.of(image) if asking.person.owns(one.annotator)]
        return JsonResponse({**version.record(), "versions": seen})

    def note_label(self, asking: Asking) -> HttpResponse:
        """PUT: say something of a label (form field ``info``), or choose it (``chosen`` true; reviewers)."""
        version = self.service.label(asking.query("label"), asking.query("tag"), asking.person)
        if asking.flag("chosen"):
            if not asking.person.may("reviewer"):
                raise Denied(403, "to choose among labels needs the role reviewer.")
            version = self.service.choose_label(version, asking.person)
        said = asking.params.get("info")
        if said:
            version = self.service.labels.note(version.id, plain_notes(str(said)), asking.person.name)
        return JsonResponse(version.record())

    def remove_label(self, asking: Asking) -> HttpResponse:
        """DELETE: withdraw a label; it is kept, and no longer counts."""
        name = asking.query("id") or asking.query("label")
        version = self.service.label(name, asking.query("tag"), asking.person)
        return JsonResponse(self.service.withdraw(version, asking.person).record())

    # ---- sessions ------------------------------------------------------------------------------------------

    def create_session(self, asking: Asking) -> HttpResponse:
        """PUT: an image that is contoured and then forgotten."""
        files = [(str(upload.name), upload) for upload in asking.files.getlist("files")]
        if not files:
            raise Refused(400, "no file under `files`.")
        expiry_s = int_or_0(asking.query("expiry"))
        session = self.service.sessions.create(files, asking.person.name, expiry_s)
        return JsonResponse({"session_id": session.id, "session_info": session.record()})

    def session(self, asking: Asking, session: str) -> HttpResponse:
        """GET: a session that is open."""
        return JsonResponse(self._session(asking, session).record())

    def remove_session(self, asking: Asking, session: str) -> HttpResponse:
        """DELETE: end a session."""
        return JsonResponse(self.service.sessions.remove(self._session(asking, session).id).record())

    def _session(self, asking: Asking, name: str):
        session = self.service.sessions.get(name)
        if not asking.person.owns(session.owner):
            raise Refused(404, "no such session; it has ended, or never was.")
        return session


def _one_file(asking: Asking, field: str):
    files = asking.files.getlist(field)
    if len(files) != 1:
        raise Refused(400, f"expected one file under `{field}`; {len(files)} were sent.")
    return files[0]


def _written(upload, path: Path) -> Path:
    with open(path, "wb") as out:
        for chunk in upload.chunks():
            out.write(chunk)
    return path


def _check_sum(file: Path, wanted: str) -> None:
    kind, _, digest = wanted.rpartition(":")
    kind = (kind or "SHA256").upper()
    if kind not in DIGESTS:
        raise Refused(400, f"check_sum: expected one of {', '.join(DIGESTS)}.")
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, kind.lower()) if hasattr(hashlib, "file_digest") else None
        found = found or hashlib.new(kind.lower(), stream.read())
    if found.hexdigest() != digest.lower():
        raise Refused(404, "the image has another check sum.")
