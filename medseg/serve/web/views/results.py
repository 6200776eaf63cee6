"""What a result's page fetches and what a user takes home."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from medseg.cases.find import folder_name
from medseg.errors import MedsegError
from medseg.serve.web import tasks
from medseg.serve.web.access import job_of, note
from medseg.serve.web.flat import heat_png, overlay_png, picture_png
from medseg.serve.web.models import Job
from medseg.serve.web.pages import RESEARCH_USE
from medseg.serve.web.pdf import pdf_of
from medseg.serve.web.result_pages import MAP, has_file, is_volume, picture_kind, slice_asked
from medseg.serve.web.site import the_site
from medseg.serve.web.slices import slice_png
from medseg.serve.web.viewing import View, view_of
from medseg.structures.structure import fixed_colour_rgb

NOTICE = (
    f"{RESEARCH_USE} Automatic results, approved by nobody unless a person says so. Every contour must be "
    "reviewed by a qualified person before anything is done with it.\n"
)
TYPES = {".dcm": "application/dicom", ".png": "image/png", ".json": "application/json"}


def _case(request: HttpRequest, id_: str, case: str) -> tuple[Job, Path, dict[str, Any]]:
    """A finished case of a job that the user may see, by the name of its folder."""
    job = job_of(request, id_)
    for folder, record in tasks.results(job):
        if folder.name == case and record.get("status") == "done":
            return job, folder, record
    raise Http404


def _files(folder: Path, record: dict[str, Any]) -> list[Path]:
    """The files that the run record lists, and no others."""
    return [folder / row["file"] for row in record["outputs"] if (folder / row["file"]).is_file()]


@require_GET
def download(request: HttpRequest, id_: str, case: str, name: str) -> HttpResponse:
    """One of the files that medseg wrote; "run.json" and "report.pdf" beside them."""
    job, folder, record = _case(request, id_, case)
    if name == "run.json":
        note(request, "download", f"{job.id} {name}")
        return _attachment(_public_record(record, job), "application/json", name)
    if name == "report.pdf":
        note(request, "download", f"{job.id} {name}")
        return _attachment(pdf_of(job, folder, record), "application/pdf", name)
    path = next((path for path in _files(folder, record) if path.name == name), None)
    if path is None:
        raise Http404
    inline = name == "preview.png" and "download" not in request.GET
    if not inline:
        note(request, "download", f"{job.id} {name}")
    kind = TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(open(path, "rb"), as_attachment=not inline, filename=name, content_type=kind)


def _attachment(content: bytes, content_type: str, name: str) -> HttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return HttpResponse(content, content_type=content_type, headers=headers)


def _public_record(record: dict[str, Any], job: Job) -> bytes:
    """run.json without the paths of this server."""
    return tasks.public(json.dumps(record, indent=1), job).encode()


@require_GET
def everything(request: HttpRequest, id_: str) -> HttpResponse:
    """All cases of a job as one zip, each with its PDF report."""
    job = job_of(request, id_)
    cases = [(folder, record) for folder, record in tasks.results(job) if record.get("status") == "done"]
    if not cases:
        raise Http404
    file = tempfile.TemporaryFile(dir=the_site().data_dir / "incoming")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # masks and pictures are packed already
        archive.writestr("RESEARCH_USE_ONLY.txt", NOTICE)
        for folder, record in cases:
            for path in _files(folder, record):
                archive.write(path, f"{folder.name}/{path.name}")
            archive.writestr(f"{folder.name}/run.json", _public_record(record, job))
            archive.writestr(f"{folder.name}/report.pdf", pdf_of(job, folder, record))
    file.seek(0)
    note(request, "download", f"{job.id} everything")
    return FileResponse(file, as_attachment=True, filename=f"medseg_{job.id[:8]}.zip")


# ---- for the viewer ----------------------------------------------------------------------------------------


def _view(request: HttpRequest, id_: str, case: str) -> View:
    _, folder, record = _case(request, id_, case)
    if not is_volume(record):
        raise Http404
    try:
        return view_of(folder, record)
    except MedsegError as error:
        raise Http404 from error


@require_GET
def one_slice(request: HttpRequest, id_: str, case: str) -> HttpResponse:
    view = _view(request, id_, case)
    asked = slice_asked(request, view)
    content = slice_png(view, **asked)
    return HttpResponse(content, content_type="image/png", headers={"Cache-Control": "private, max-age=600"})


@require_GET
def volume(request: HttpRequest, id_: str, case: str, name: str) -> HttpResponse:
    """``image.nii.gz``, ``labels.nii.gz`` or, with a PET, ``pet.nii.gz`` of the reduced copy."""
    view = _view(request, id_, case)
    if name not in ("image.nii.gz", "labels.nii.gz", *(("pet.nii.gz",) if view.about["fused"] else ())):
        raise Http404
    return FileResponse(open(view.folder / name, "rb"), content_type="application/octet-stream")


@require_GET
def picture(request: HttpRequest, id_: str, case: str) -> HttpResponse:
    """The radiograph or photograph itself."""
    _, _, record = _case(request, id_, case)
    if is_volume(record):
        raise Http404
    content = picture_png(Path(record["source"]), picture_kind(record))
    return HttpResponse(content, content_type="image/png", headers={"Cache-Control": "private, max-age=600"})


@require_GET
def overlay(request: HttpRequest, id_: str, case: str, name: str) -> HttpResponse:
    """The mask of one structure in its colour, clear around it; or the map of where the network looked."""
    _, folder, record = _case(request, id_, case)
    if name == MAP and has_file(record, MAP) and (folder / MAP).is_file():
        headers = {"Cache-Control": "private, max-age=600"}
        return HttpResponse(heat_png(folder / MAP), content_type="image/png", headers=headers)
    for row in record.get("structures", ()):
        if f"{folder_name(row['name'])}.png" == name and (folder / name).is_file():
            content = overlay_png(folder / name, fixed_colour_rgb(row["name"]))
            headers = {"Cache-Control": "private, max-age=600"}
            return HttpResponse(content, content_type="image/png", headers=headers)
    raise Http404
