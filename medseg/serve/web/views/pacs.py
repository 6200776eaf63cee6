"""Pick a study from a listed archive instead of uploading it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from medseg.errors import InputError
from medseg.serve.web.access import note
from medseg.serve.web.archives import RefusedUpload
from medseg.serve.web.intake import bytes_of, take_in_folder
from medseg.serve.web.pacs import fetch_study, find_studies, pacs_called
from medseg.serve.web.pages import refusal
from medseg.serve.web.retention import delete_study
from medseg.serve.web.site import the_site
from medseg.serve.web.uploads import budget, require_room
from medseg.serve.web.views.uploads import new_study


@require_GET
def search(request: HttpRequest) -> HttpResponse:
    """The form, and what was found for it."""
    context: dict = {"asked": request.GET}
    if "pacs" in request.GET:
        said = request.GET
        try:
            pacs = pacs_called(said["pacs"])
            context["found"] = find_studies(pacs, said.get("patient_id", ""), said.get("date", ""))
            note(request, "PACS search", pacs.name)
        except InputError as error:
            context["problem"] = str(error)
    return render(request, "web/pacs.html", context)


@require_POST
def fetch(request: HttpRequest) -> HttpResponse:
    """Fetch one study and make it the user's."""
    study = new_study(request, request.POST.get("title", ""), bool(request.POST.get("deidentify")))
    try:
        require_room(0)
        pacs = pacs_called(request.POST.get("pacs", ""))
        with tempfile.TemporaryDirectory(dir=the_site().data_dir / "incoming") as folder:
            fetch_study(pacs, request.POST.get("uid", ""), Path(folder), budget())
            study.declared_bytes = bytes_of(Path(folder))
            study.save()
            take_in_folder(study, Path(folder))
    except (InputError, RefusedUpload) as error:
        delete_study(study)
        return refusal(request, str(error))
    note(request, "fetched", f"{study.id} from {pacs.name}")
    return redirect("study", study.id)
