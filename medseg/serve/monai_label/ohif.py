"""OHIF's files, from a folder that the operator names: a build with MONAI Label's panel, such as the one
inside the monailabel wheel. Nothing is fetched from elsewhere, and one script of ours is added: the panel has
no button that submits a label."""

from __future__ import annotations

import mimetypes
import re
from pathlib import Path

from django.http import FileResponse, HttpResponse

from medseg.errors import InputError
from medseg.serve.monai_label.answers import Refused
from medseg.serve.monai_label.door import Asking

ELSEWHERE = re.compile(rb"<link\b[^>]*\bhref=[\"']?https?://[^>]*>", re.IGNORECASE)
"""Fonts of a web host, and connections opened to it beforehand."""

IMPORTED = re.compile(rb"@import url\(https?://[^)]*\)[^;]*;?", re.IGNORECASE)
"""The same fonts, asked for by a style sheet."""

SUBMIT = "medseg-submit.js"
SUBMIT_FILE = Path(__file__).parent / "static" / "submit.js"

POLICY = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; frame-ancestors 'self'"
)


class OhifViews:
    """The view of ``/ohif/``. ``folder``: the build, listed once; None: there is none, 404."""

    def __init__(self, folder: Path | None):
        self.files: dict[str, Path] = {}
        if folder is not None:
            self.files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
            if "index.html" not in self.files:
                raise InputError(f"{folder}: holds no index.html; expected a build of OHIF.")

    def file(self, asking: Asking, path: str = "") -> HttpResponse:
        """GET: a file of the build; for any other address of the viewer its page, which reads the address."""
        if not self.files:
            raise Refused(404, "this server was started without a viewer; name a build of OHIF.")
        found = SUBMIT_FILE if path == SUBMIT else self.files.get(path)
        if found is None and Path(path).suffix:
            raise Refused(404, "no such file of the viewer.")
        if found is None or found.name == "index.html":
            page = ELSEWHERE.sub(b"", self.files["index.html"].read_bytes())
            page = page.replace(b"</head>", f'<script src="/ohif/{SUBMIT}"></script></head>'.encode(), 1)
            answer: HttpResponse = HttpResponse(page, content_type="text/html; charset=utf-8")
        elif found.suffix == ".css":
            answer = HttpResponse(IMPORTED.sub(b"", found.read_bytes()), content_type="text/css")
        else:
            kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
            answer = FileResponse(open(found, "rb"), content_type=kind)
        answer["Content-Security-Policy"] = POLICY
        return answer
