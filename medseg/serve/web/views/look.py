"""An uploaded image before anything is contoured on it: to look at, and to say where."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from medseg.errors import MedsegError
from medseg.serve.web.access import study_of
from medseg.serve.web.intake import source_of
from medseg.serve.web.models import Study
from medseg.serve.web.pages import refusal
from medseg.serve.web.result_pages import slice_asked, slices_values
from medseg.serve.web.slices import slice_png
from medseg.serve.web.viewing import View, view_of_image
from medseg.serve.web.views.studies import contour_form

VOLUMES = ("series", "volumes")


def _view(study: Study, kind: str, entry_id: str) -> View:
    if kind not in VOLUMES:
        raise Http404
    entry, source = source_of(study, kind, entry_id)
    return view_of_image(study.folder / "views" / entry["id"], source)


@require_GET
def show(request: HttpRequest, id_: str, kind: str, entry: str) -> HttpResponse:
    """Slices on which a box or points are drawn, and the form that they go into."""
    study = study_of(request, id_)
    try:
        view = _view(study, kind, entry)
    except MedsegError as error:
        return refusal(request, str(error).replace(f"{study.folder}/", ""))
    row = next(one for one in study.contents[kind] if one["id"] == entry)
    context = {
        "study": study,
        "one": contour_form(study, kind, row),
        "is_owner": study.owner_id == request.user.id,
        **slices_values(view, slice_asked(request, view)),
    }
    return render(request, "web/look.html", context)


@require_GET
def one_slice(request: HttpRequest, id_: str, kind: str, entry: str) -> HttpResponse:
    try:
        view = _view(study_of(request, id_), kind, entry)
    except MedsegError as error:
        raise Http404 from error
    content = slice_png(view, **slice_asked(request, view))
    return HttpResponse(content, content_type="image/png", headers={"Cache-Control": "private, max-age=600"})
