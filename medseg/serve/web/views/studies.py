"""The list of studies, one study with what can be done with it, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from medseg.errors import MedsegError
from medseg.serve.web import tasks
from medseg.serve.web.access import note, own_study_of, studies_of, study_of
from medseg.serve.web.models import Study
from medseg.serve.web.pages import refusal
from medseg.serve.web.retention import delete_study
from medseg.serve.web.suggestions import offers_for
from medseg.serve.web.tasks import BOX
from medseg.serve.web.words import say

ON_A_PAGE = 100


@require_GET
def every(request: HttpRequest) -> HttpResponse:
    studies = studies_of(request.user).filter(ready=True).prefetch_related("jobs")[:ON_A_PAGE]
    rows = []
    for study in studies:
        jobs = list(study.jobs.all())
        states = [(job, tasks.state(job)) for job in jobs[:3]]
        rows.append({"study": study, "jobs": states, "more": max(0, len(jobs) - 3)})
    return render(request, "web/studies.html", {"rows": rows})


@require_GET
def show(request: HttpRequest, id_: str) -> HttpResponse:
    study = study_of(request, id_)
    entries = []
    for kind in ("series", "pictures", "volumes"):
        entries += [contour_form(study, kind, entry) for entry in study.contents.get(kind, ())]
    jobs = [(job, tasks.state(job)) for job in study.jobs.all()]
    context = {
        "study": study,
        "entries": entries,
        "jobs": jobs,
        "is_owner": study.owner_id == request.user.id,
    }
    return render(request, "web/study.html", context)


def contour_form(study: Study, kind: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the form under an image of a study needs: the bundles that take it, and what some of them ask."""
    offers = [] if entry.get("localizer") else offers_for(kind, entry)
    rois = [
        (f"{one['id']}:{roi}", f"{one['label'] or one['name']}: {roi}")
        for one in study.contents.get("sets", ())
        for roi in one["rois"]
    ]
    return {
        "kind": kind,
        "entry": entry,
        "offers": offers,
        "rois": rois,
        "box": BOX,
        "settings": {key for offer in offers for key in offer.settings},
        "takes_points": any(offer.takes_points for offer in offers),
        "wants_region": bool(offers) and offers[0].requires_region,
    }


@require_POST
def contour(request: HttpRequest, id_: str) -> HttpResponse:
    """Put a job into the queue."""
    study = own_study_of(request, id_)
    kind, _, entry_id = request.POST.get("image", "").partition(":")
    try:
        job = tasks.submit(study, kind, entry_id, request.POST.get("bundle", ""), request.POST)
    except MedsegError as error:
        return refusal(request, str(error))
    note(request, "contour", job.id)
    return redirect("job", job.id)


@require_POST
def delete(request: HttpRequest, id_: str) -> HttpResponse:
    study = own_study_of(request, id_)
    delete_study(study)
    note(request, "study deleted", id_)
    messages.success(request, say("The study and everything made of it is deleted."))
    return redirect("studies")
