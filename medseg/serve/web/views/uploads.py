"""From the browser onto the disk: in pieces by script, or as one plain form."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from medseg.serve.web import uploads
from medseg.serve.web.access import note
from medseg.serve.web.archives import RefusedUpload
from medseg.serve.web.intake import take_in
from medseg.serve.web.models import Study
from medseg.serve.web.pages import refusal
from medseg.serve.web.site import the_site


def new_study(request: HttpRequest, title: str, deidentify: bool) -> Study:
    """A study of the user that is not ready; what the site says of names goes before what the user says."""
    wanted = {"always": True, "never": False}.get(the_site().deidentify, deidentify)
    title = title.strip()[:120] or f"{timezone.now():%Y-%m-%d %H:%M}"
    return Study(owner=request.user, title=title, deidentify=wanted)


@require_http_methods(["GET", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """The form; without scripts it sends the files itself."""
    if request.method == "GET":
        return render(request, "web/upload.html")
    files = request.FILES.getlist("files")
    refused = getattr(request, "upload_refused", None)
    if refused is not None:
        note(request, "upload refused", refused.reason)
        return refusal(request, str(refused), 413)
    study = new_study(request, request.POST.get("title", ""), bool(request.POST.get("deidentify")))
    try:
        uploads.begin(study, [file.name for file in files], [file.size for file in files])
        for number, file in enumerate(files):
            shutil.move(file.temporary_file_path(), uploads.piece_path(study, number))
        study.save()
        take_in(study)
    except RefusedUpload as error:
        _forget(request, study, error)
        return refusal(request, str(error), 413 if error.reason in TOO_MUCH else 400)
    note(request, "upload", study.id)
    return redirect("study", study.id)


TOO_MUCH = ("too large", "too many files", "disk full")


def _forget(request: HttpRequest, study: Study, error: RefusedUpload) -> None:
    shutil.rmtree(study.folder, ignore_errors=True)
    if study.pk and Study.objects.filter(pk=study.pk).exists():
        study.delete()
    note(request, "upload refused", error.reason)


# ---- in pieces ---------------------------------------------------------------------------------------------


def _answers_in_json(view: Callable) -> Callable:
    """A refused upload is an answer that the script can show."""

    @wraps(view)
    def answered(request: HttpRequest, **parts) -> HttpResponse:
        try:
            return view(request, **parts)
        except uploads.WrongPlace as error:
            return JsonResponse({"size": error.size}, status=409)
        except RefusedUpload as error:
            status = 413 if error.reason in TOO_MUCH else 400
            return JsonResponse({"error": str(error), "reason": error.reason}, status=status)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # Another program filled the disk in the meantime; what came in so far stays for a next try.
            return JsonResponse({"error": "the server's disk is full.", "reason": "disk full"}, status=507)

    return answered


def _growing(request: HttpRequest, id_: str) -> Study:
    return get_object_or_404(Study, id=id_, owner=request.user, ready=False)


@require_POST
@_answers_in_json
def begin(request: HttpRequest) -> HttpResponse:
    """Say what will come: {"title", "deidentify", "names", "sizes"}."""
    try:
        said = json.loads(request.body)
        names = [str(name) for name in said["names"]]
        sizes = [int(size) for size in said["sizes"]]
        title, deidentify = str(said.get("title", "")), bool(said.get("deidentify"))
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedUpload("nothing", "expected names and sizes of files.") from error
    study = new_study(request, title, deidentify)
    uploads.begin(study, names, sizes)
    study.save()
    return JsonResponse({"id": study.id, "chunk_bytes": the_site().chunk_bytes}, status=201)


@require_GET
@_answers_in_json
def state(request: HttpRequest, id_: str) -> HttpResponse:
    return JsonResponse({"sizes": uploads.sizes_so_far(_growing(request, id_))})


@require_POST
@_answers_in_json
def piece(request: HttpRequest, id_: str, number: int, offset: int) -> HttpResponse:
    study = _growing(request, id_)
    return JsonResponse({"size": uploads.add_piece(study, number, offset, request.body)})


@require_POST
@_answers_in_json
def finish(request: HttpRequest, id_: str) -> HttpResponse:
    study = _growing(request, id_)
    try:
        take_in(study)
    except RefusedUpload as error:
        if error.reason != "incomplete":
            _forget(request, study, error)
        raise
    note(request, "upload", study.id)
    return JsonResponse({"url": reverse("study", args=[study.id])})
