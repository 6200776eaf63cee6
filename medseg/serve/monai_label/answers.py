"""Answers as MONAI Label's clients read them, and errors as JSON with the right status and no path in it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.http import FileResponse, HttpResponse, JsonResponse

from medseg.bundles.queue import UnknownJob
from medseg.errors import BundleError, MedsegError
from medseg.serve.monai_label.images import UnknownImage
from medseg.serve.monai_label.inference import JobFailed, StillRunning
from medseg.serve.monai_label.labels import UnknownLabel
from medseg.serve.monai_label.models import UnknownModel
from medseg.serve.monai_label.people import Denied
from medseg.serve.monai_label.sessions import TooManySessions, UnknownSession
from medseg.serve.monai_label.strategies import NothingKnown, UnknownStrategy

MEDIA_TYPES = {
    ".nii.gz": "application/gzip",
    ".nii": "application/octet-stream",
    ".nrrd": "application/octet-stream",
    ".dcm": "application/dicom",
}


class Refused(Exception):
    """A request that is no good as such. ``status``: of 4xx."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


STATUS: Mapping[type[Exception], int] = {
    UnknownImage: 404,
    UnknownLabel: 404,
    UnknownModel: 404,
    UnknownSession: 404,
    UnknownStrategy: 404,
    UnknownJob: 404,
    NothingKnown: 409,
    BundleError: 409,
    JobFailed: 422,
    TooManySessions: 429,
    MedsegError: 422,
}
"""The first class that fits decides; what is not here is a fault of medseg, 500."""


def status_of(error: Exception) -> int:
    """The HTTP status of an error of the library."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def as_error(error: Exception, roots: Sequence[Path]) -> JsonResponse:
    """An error as JSON ``{"detail", "error"}``. The folders ``roots`` are cut out of its words; of a fault of
    medseg nothing but its kind is told."""
    if isinstance(error, StillRunning):
        words = "the job is not finished yet; send the same request again, or look at /infer/jobs/."
        return retry_later({"detail": words, "error": "StillRunning", "job": error.job_id})
    status = error.status if isinstance(error, (Denied, Refused)) else status_of(error)
    words = "a fault in medseg; the server's log says more." if status == 500 else str(error)
    for root in sorted(map(str, roots), key=len, reverse=True):
        words = words.replace(f"{root}/", "").replace(root, "…")
    answer = JsonResponse({"detail": " ".join(words.split()), "error": type(error).__name__}, status=status)
    if status == 401:
        answer["WWW-Authenticate"] = 'Bearer, Basic realm="medseg"'
    return answer


def retry_later(content: Mapping[str, Any], after_s: int = 5) -> JsonResponse:
    """503 with Retry-After."""
    return JsonResponse(dict(content), status=503, headers={"Retry-After": str(after_s)})


def file_answer(path: Path, name: str, headers: Mapping[str, str] | None = None) -> FileResponse:
    """A file under ``name``, streamed."""
    answer = FileResponse(open(path, "rb"), as_attachment=True, filename=name, content_type=media_type(name))
    for key, value in (headers or {}).items():
        answer[key] = value
    return answer


def media_type(name: str) -> str:
    kinds = (kind for suffix, kind in MEDIA_TYPES.items() if name.endswith(suffix))
    return next(kinds, "application/octet-stream")


def multipart(params: Mapping[str, Any], name: str, content: bytes) -> HttpResponse:
    """``multipart/form-data`` of a part ``params`` (JSON) and a part ``image`` (a file): what 3D Slicer reads
    with Python's cgi.FieldStorage."""
    mark = secrets.token_hex(16)
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="params"\r\nContent-Type: application/json\r\n\r\n'
        f"{json.dumps(params)}\r\n"
        f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        f"Content-Type: {media_type(name)}\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    return HttpResponse(body, content_type=f"multipart/form-data; boundary={mark}")
