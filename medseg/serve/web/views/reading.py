"""What is read rather than done: how to use the site, what a bundle is good for, and a self-assessment."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_GET, require_http_methods

from medseg.errors import InputError
from medseg.serve.web.screening import QUESTIONNAIRES, answers_of
from medseg.serve.web.suggestions import listed_bundle


@require_GET
def manual(request: HttpRequest) -> HttpResponse:
    return render(request, "web/manual.html")


@require_GET
def card(request: HttpRequest) -> HttpResponse:
    """The model card of a bundle that the site offers: what it was trained on, and its scores."""
    from markdown_it import MarkdownIt

    try:
        bundle = listed_bundle(request.GET.get("bundle", ""))
        text = (bundle.folder / "docs" / "README.md").read_text(encoding="utf-8")
    except (InputError, OSError) as error:
        raise Http404 from error
    # "js-default" escapes all markup of the text itself and makes no link to a script.
    made = MarkdownIt("js-default", {"linkify": False}).disable("image").render(text)
    return render(request, "web/card.html", {"bundle": bundle, "card": mark_safe(made)})


@require_http_methods(["GET", "POST"])
def self_assessment(request: HttpRequest, name: str) -> HttpResponse:
    """A questionnaire and, of a sent form, its index. Nothing of it is stored or noted."""
    questionnaire = QUESTIONNAIRES.get(name)
    if questionnaire is None:
        raise Http404
    context: dict = {"name": name, "questionnaire": questionnaire}
    if request.method == "POST":
        asked = {
            question.name: request.POST.get(question.name, "")[:20] for question in questionnaire.questions
        }
        context["asked"] = asked
        try:
            index = questionnaire.index(answers_of(questionnaire, asked))
            words, meaning = questionnaire.band_of(index)
            context |= {"index": index, "band": words, "meaning": meaning}
        except InputError as error:
            context["problem"] = str(error)
    return render(request, "web/self_assessment.html", context, status=400 if "problem" in context else 200)
