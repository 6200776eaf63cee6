"""What every request passes before its view sees it: size, kind, origin and person; and the log of all."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation, TooManyFilesSent
from django.core.files.uploadhandler import MemoryFileUploadHandler, TemporaryFileUploadHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.views.decorators.csrf import csrf_exempt

from medseg.errors import printable
from medseg.serve.monai_label.answers import Refused, as_error
from medseg.serve.monai_label.people import Denied, Person
from medseg.serve.monai_label.service import Service

LOG = logging.getLogger("medseg.label.access")
MOST_JSON_BYTES = 2**20
MOST_UPLOAD_BYTES = 2**31
ANYONE = ""


class Known(Protocol):
    """Who finds out who asks: :class:`medseg.serve.monai_label.people.People`, or a site's own accounts."""

    enabled: bool

    def person(self, request: HttpRequest, client_id: str) -> Person: ...

    def token(self, request: HttpRequest, name: str, password: str) -> str: ...


@dataclass(frozen=True)
class Asking:
    """A request that was let in. ``params``: the JSON object of the body or of its form field ``params``."""

    request: HttpRequest
    person: Person
    params: dict[str, Any]

    def query(self, name: str, most: int = 512) -> str:
        """A value of the address, "" where there is none. Refused(400) for a longer one, or one with NUL."""
        value = self.request.GET.get(name, "")
        if len(value) > most or "\0" in value:
            raise Refused(400, f"{name}: expected at most {most} characters.")
        return value

    def flag(self, name: str) -> bool:
        return self.query(name).lower() in ("true", "1", "yes")

    @property
    def files(self):
        return self.request.FILES


class Door:
    """Lets requests in to views: functions of (asking, …) that answer."""

    def __init__(self, service: Service, known: Known, most_upload_bytes: int = MOST_UPLOAD_BYTES):
        self.service, self.known, self.most_upload_bytes = service, known, most_upload_bytes

    def view(self, **views: tuple[str, Callable[..., HttpResponse]]):
        """One address: {method: (role that it takes, function)}; other methods are 405. ``ANYONE`` for a role
        lets everybody in, who then is nobody in particular."""

        @csrf_exempt  # by Origin and by token, not by a form's token: clients are no browsers' forms
        def answer(request: HttpRequest, **parts: str) -> HttpResponse:
            began = time.monotonic()
            name, person = "-", None
            try:
                method = "GET" if request.method == "HEAD" and "HEAD" not in views else str(request.method)
                if method not in views:
                    raise Refused(405, f"{request.method} is not for this address: {', '.join(views)}.")
                role, function = views[method]
                name = function.__name__
                asking = self._let_in(request, role)
                person = asking.person
                answered = function(asking, **parts)
            except Exception as error:
                answered = self._error(error)
            took_ms = (time.monotonic() - began) * 1000
            who = printable(person.name if person else "-", keep="")
            # Neither address nor query: ids may be names of folders, and these may be names of patients.
            LOG.info("%s %s %s %d %.0f ms", request.method, name, who, answered.status_code, took_ms)
            answered["X-Content-Type-Options"] = "nosniff"
            answered["Cache-Control"] = "no-store"
            return answered

        return answer

    def _error(self, error: Exception) -> JsonResponse:
        if isinstance(error, (RequestDataTooBig, TooManyFilesSent)):
            error = Refused(413, "the request is larger than this address takes.")
        elif isinstance(error, (MultiPartParserError, BadRequest, SuspiciousOperation, UnicodeDecodeError)):
            error = Refused(400, "the request's body cannot be read.")
        answer = as_error(error, self.service.roots)
        if answer.status_code == 500:
            logging.getLogger("medseg.label").error("a fault", exc_info=error)
        return answer

    def _let_in(self, request: HttpRequest, role: str) -> Asking:
        _check_origin(request)
        kind = _content_kind(request)
        self._check_size(request, kind)
        if self.known.enabled and role != ANYONE:  # before the body is read
            self._check_role(self.known.person(request, ""), role)
        # Its own, wherever it is mounted: a site's may count and refuse by rules for its own pages.
        request.upload_handlers = [MemoryFileUploadHandler(request), TemporaryFileUploadHandler(request)]
        params = _params(request, kind)
        if role == ANYONE:
            return Asking(request, Person("-", "annotator"), params)
        person = self.known.person(request, str(params.get("client_id") or ""))
        self._check_role(person, role)
        return Asking(request, person, params)

    @staticmethod
    def _check_role(person: Person, role: str) -> None:
        if not person.may(role):
            raise Denied(403, f"this needs the role {role}; {person.name} is {person.role}.")

    def _check_size(self, request: HttpRequest, kind: str) -> None:
        if request.headers.get("Transfer-Encoding"):
            raise Refused(411, "send a Content-Length.")
        try:
            length = int(request.META.get("CONTENT_LENGTH") or 0)
        except ValueError:
            raise Refused(400, "the Content-Length is no number.") from None
        most = self.most_upload_bytes if kind not in ("", "application/json") else MOST_JSON_BYTES
        if not 0 <= length <= most:
            raise Refused(413, f"{length} bytes; this address takes at most {most}.")


def _check_origin(request: HttpRequest) -> None:
    """A page of another site that the annotator's browser shows must not act in their name, neither under its
    own name nor under one that it let point to this computer (DNS rebinding): get_host() raises for that."""
    origin, host = request.headers.get("Origin"), request.get_host()
    if origin is not None and urlsplit(origin).netloc != host:
        raise Refused(403, "requests from pages of another site are not taken.")


FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
BODIES = ("multipart/related",)
"""What a STOW request to a DICOMweb server consists of."""


def _content_kind(request: HttpRequest) -> str:
    """The media type of the body, "" without one. Refused(415) for one that no address takes."""
    if not int_or_0(request.META.get("CONTENT_LENGTH")):
        return ""
    kind = str(request.content_type or "").lower()
    if kind in ("", "text/plain"):
        raise Refused(415, "the body has no Content-Type; expected application/json or multipart/form-data.")
    if kind != "application/json" and kind not in FORMS and kind not in BODIES:
        raise Refused(415, f"a body of {kind[:60]}; expected application/json or multipart/form-data.")
    return kind


def int_or_0(text: Any) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _params(request: HttpRequest, kind: str) -> dict[str, Any]:
    if kind == "application/json":
        return json_object(request.body)
    if kind not in FORMS:
        return {}
    if request.method not in ("POST",):  # Django reads forms of POST only
        if kind == FORMS[0]:
            post, files = request.parse_file_upload(request.META, request)
            request._post, request._files = post, files
        else:
            return {}
    fields = request.POST
    params = json_object(fields.get("params") or "{}")
    own = {key: fields[key] for key in ("client_id", "info", "username", "password") if key in fields}
    return {**own, **params}


def json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object of a request, {} for null and for nothing. Refused(400) for anything else."""
    try:
        content = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        raise Refused(400, "the body is no JSON.") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise Refused(400, "expected a JSON object.")
    return content
