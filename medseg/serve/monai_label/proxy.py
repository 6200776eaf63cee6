"""OHIF's way to the DICOMweb server behind this one: searching, fetching, and storing what people drew."""

from __future__ import annotations

import re

import requests
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse

from medseg.serve.monai_label.answers import Refused
from medseg.serve.monai_label.dicomweb import DicomWebImages
from medseg.serve.monai_label.door import Asking
from medseg.serve.monai_label.people import Denied
from medseg.serve.monai_label.service import Service

_WORD = r"studies|series|instances|metadata|frames|rendered|thumbnail|bulk|bulkdata|pixeldata"
_PART = rf"({_WORD}|[0-9.]{{1,64}}|[0-9A-Fa-f]{{8}}|[0-9]+(,[0-9]+)*)"
PATH = re.compile(rf"{_PART}(/{_PART})*")
STORE = re.compile(r"studies(/[0-9.]{1,64})?")
PASSED_ON = ("Accept", "Content-Type")
PASSED_BACK = ("Content-Type", "Content-Length", "Content-Encoding")
TIMEOUT_S = (5.0, 120.0)


class ProxyViews:
    """The views of ``/proxy/dicom/``. Only addresses of DICOMweb go through, and no header that could carry
    somebody's credentials."""

    def __init__(self, service: Service):
        self.service = service

    def fetch(self, asking: Asking, path: str) -> HttpResponse:
        """GET: QIDO and WADO."""
        if not PATH.fullmatch(path.strip("/")) or ".." in path:
            raise Refused(404, "no address of DICOMweb.")
        return self._pass("GET", path, asking, None)

    def store(self, asking: Asking, path: str) -> HttpResponse:
        """POST: STOW, of whoever may submit labels."""
        if not STORE.fullmatch(path.strip("/")):
            raise Refused(404, "only instances are stored, under studies.")
        if not asking.person.may("annotator"):
            raise Denied(403, "storing needs the role annotator.")
        return self._pass("POST", path, asking, asking.request)

    def _pass(self, method: str, path: str, asking: Asking, body) -> HttpResponse:
        images = self.service.images
        if not isinstance(images, DicomWebImages):
            raise Refused(404, "the images of this server are not on a DICOMweb server.")
        headers = {name: asking.request.headers[name] for name in PASSED_ON if name in asking.request.headers}
        # What comes back is passed on as it is, so it must be what this client can read.
        headers["Accept-Encoding"] = asking.request.headers.get("Accept-Encoding", "identity")
        if body is not None:
            headers["Content-Length"] = str(asking.request.META["CONTENT_LENGTH"])
        query = asking.request.META.get("QUERY_STRING", "")
        url = f"{images.url}/{path.strip('/')}{'?' + query if query else ''}"
        try:
            found = requests.request(
                method, url, headers=headers, data=body, stream=True, timeout=TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException:
            return JsonResponse({"detail": "the DICOMweb server does not answer."}, status=502)
        chunks = found.raw.stream(65_536, decode_content=False)
        answer = StreamingHttpResponse(chunks, status=found.status_code)
        for name in PASSED_BACK:
            if name in found.headers:
                answer[name] = found.headers[name]
        return answer
