"""Two structure sets of one study against each other: the report of ``medseg compare``, made here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from medseg.errors import InputError
from medseg.serve.web import tasks
from medseg.serve.web.access import comparison_of, note, own_study_of, studies_of, study_of
from medseg.serve.web.intake import source_of
from medseg.serve.web.middleware import REPORT_POLICY
from medseg.serve.web.models import Comparison, Study
from medseg.serve.web.pages import refusal

LONGEST_S = 600


@require_GET
def choose(request: HttpRequest) -> HttpResponse:
    """Which study; or, with ``study`` given, which two sets of it."""
    id_ = request.GET.get("study")
    if not id_:
        with_series = [study for study in studies_of(request.user)[:100] if study.contents.get("series")]
        rows = [(study, len(sets_of(study))) for study in with_series]
        return render(request, "web/compare_choose.html", {"rows": rows})
    study = study_of(request, id_)
    context = {
        "study": study,
        "sets": sets_of(study),
        "series": study.contents.get("series", ()),
        "comparisons": study.comparisons.all(),
        "is_owner": study.owner == request.user,
    }
    return render(request, "web/compare.html", context)


def sets_of(study: Study) -> list[tuple[str, str]]:
    """(key, words) of every structure set there is: uploaded ones, and results of jobs."""
    found = [
        (f"set:{one['id']}", f"{one['name']} ({one['label']}, {len(one['rois'])} ROI)")
        for one in study.contents.get("sets", ())
    ]
    for job in study.jobs.all():
        for folder, record in tasks.results(job):
            if record.get("status") == "done" and (folder / "RS.dcm").is_file():
                name = f"{Path(job.bundle).name} {job.created:%Y-%m-%d %H:%M} {folder.name}"
                found.append((f"job:{job.id}:{folder.name}", name))
    return found


def _path_of(study: Study, key: str) -> Path:
    kind, _, rest = key.partition(":")
    if kind == "set":
        return source_of(study, "sets", rest)[1]
    job_id, _, case = rest.partition(":")
    for job in study.jobs.filter(id=job_id):
        for folder, _ in tasks.results(job):
            if folder.name == case and (folder / "RS.dcm").is_file():
                return folder / "RS.dcm"
    raise InputError("the study has no such structure set; choose one of those listed.")


@require_POST
def make(request: HttpRequest) -> HttpResponse:
    """Compare and show. It runs as a process of its own: a damaged file takes no server with it."""
    study = own_study_of(request, request.POST.get("study", ""))
    keys = [request.POST.get(name, "") for name in ("reference", "other")]
    words = dict(sets_of(study))
    try:
        reference, other = (_path_of(study, key) for key in keys)
        _, images = source_of(study, "series", request.POST.get("series", ""))
        tolerance = float(request.POST.get("tolerance_mm") or 2.0)
        if not 0 <= tolerance <= 50:
            raise ValueError
    except InputError as error:
        return refusal(request, str(error))
    except ValueError:
        return refusal(request, "the tolerance is no number from 0 to 50 mm.")
    comparison = Comparison(study=study, reference=words[keys[0]][:200], other=words[keys[1]][:200])
    comparison.folder.mkdir(parents=True)
    sets = [str(reference), str(other), "--reference", str(images)]
    outs = [f"--tolerance-mm={tolerance:g}", "--html", str(comparison.folder / "comparison.html")]
    comparison.problem = _run([*sets, *outs], study)
    comparison.save()
    note(request, "compared", comparison.id)
    return redirect("comparison", comparison.id)


def _run(words: list[str], study: Study) -> str:
    """ "" when the report was written, else why not."""
    command = [sys.executable, "-m", "medseg", "compare", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return f"the comparison took longer than {LONGEST_S} s."
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("error: ")
    return last.replace(f"{study.folder}/", "")[:500]


@require_GET
def show(request: HttpRequest, id_: str) -> HttpResponse:
    comparison = comparison_of(request, id_)
    return render(request, "web/comparison.html", {"comparison": comparison, "study": comparison.study})


@require_GET
def report(request: HttpRequest, id_: str) -> HttpResponse:
    """The page that ``medseg compare`` wrote; it carries everything in itself and runs no script."""
    path = comparison_of(request, id_).folder / "comparison.html"
    if not path.is_file():
        raise Http404
    wanted = "download" in request.GET
    response = FileResponse(open(path, "rb"), as_attachment=wanted, filename="comparison.html")
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    response.headers["Content-Security-Policy"] = REPORT_POLICY
    return response
