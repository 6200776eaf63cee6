"""A job: where it stands, and when it is done what came out."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from medseg.errors import MedsegError
from medseg.serve.web import tasks
from medseg.serve.web.access import job_of, may_review, note, own_job_of
from medseg.serve.web.pages import refusal
from medseg.serve.web.result_pages import page_of
from medseg.serve.web.retention import delete_job
from medseg.serve.web.sending import send, sendable
from medseg.serve.web.site import the_site
from medseg.serve.web.words import say


@require_GET
def show(request: HttpRequest, id_: str) -> HttpResponse:
    """The queue position while it waits, the results when it is done."""
    job = job_of(request, id_)
    progress = tasks.progress(job)
    context = {"job": job, "study": job.study, "progress": progress, "is_owner": job.owner == request.user}
    if progress["state"] != "done":
        return render(request, "web/job.html", context)
    cases = tasks.results(job)
    if not cases:
        return refusal(request, say("The results of this job are gone."), 410)
    names = [folder.name for folder, _ in cases]
    wanted = request.GET.get("case", names[0])
    if wanted not in names:
        raise Http404
    folder, record = cases[names.index(wanted)]
    context |= {
        "cases": names,
        "case": wanted,
        "record": record,
        "targets": the_site().targets if sendable(folder, record) else (),
        "ohif": _ohif(record),
        **page_of(job, folder, record, request),
    }
    return render(request, "web/result.html", context)


def _ohif(record: dict) -> str:
    study = record.get("input", {}).get("StudyInstanceUID", "")
    template = the_site().ohif_url
    return template.replace("{study}", study) if template and study else ""


@require_GET
def progress(request: HttpRequest, id_: str) -> HttpResponse:
    """What the page's script asks every few seconds."""
    return JsonResponse(tasks.progress(job_of(request, id_)))


@require_POST
def cancel(request: HttpRequest, id_: str) -> HttpResponse:
    job = own_job_of(request, id_)
    if tasks.queued(job) is not None:
        tasks.the_queue().cancel(job.id)
        note(request, "cancelled", job.id)
    return redirect("job", job.id)


@require_POST
def delete(request: HttpRequest, id_: str) -> HttpResponse:
    job = own_job_of(request, id_)
    study = job.study
    delete_job(job)
    note(request, "job deleted", id_)
    messages.success(request, say("The job and its results are deleted."))
    return redirect("study", study.id)


# ---- review and sending ------------------------------------------------------------------------------------


@require_POST
def review(request: HttpRequest, id_: str) -> HttpResponse:
    """Tick or untick "reviewed by"; only reviewers may."""
    job = job_of(request, id_)
    if not may_review(request.user):
        return refusal(request, say("Only a reviewer may do this."), 403)
    ticked = bool(request.POST.get("reviewed"))
    job.reviewed_by, job.reviewed_at = (request.user, timezone.now()) if ticked else (None, None)
    job.save()
    note(request, "reviewed" if ticked else "review withdrawn", job.id)
    return redirect("job", job.id)


@require_POST
def send_on(request: HttpRequest, id_: str) -> HttpResponse:
    """Send the DICOM results to a target of the site; not before the review."""
    job = job_of(request, id_)
    if not may_review(request.user):
        return refusal(request, say("Only a reviewer may do this."), 403)
    if job.reviewed_by is None:
        return refusal(request, say("Results are sent after somebody has reviewed them."))
    name = request.POST.get("target", "")
    target = next((target for target in the_site().targets if target.name == name), None)
    if target is None:
        return refusal(request, say("The site has no such target."))
    files = [file for folder, row in tasks.results(job) for file in sendable(folder, row)]
    try:
        count = send(files, target)
    except MedsegError as error:
        note(request, "sending failed", f"{job.id} to {target.name}")
        return refusal(request, str(error), 502)
    note(request, "sent", f"{job.id} to {target.name}")
    messages.success(request, say("{n} objects accepted by {target}.", n=count, target=target.name))
    return redirect("job", job.id)
