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
    try:
        bundle = listed_bundle(request.GET.get("bundle", ""))
        text = (bundle.folder / "docs" / "README.md").read_text(encoding="utf-8")
    except (InputError, OSError) as error:
        raise Http404 from error
    return render(request, "web/card.html", {"bundle": bundle, "card": mark_safe(_as_html(text))})


def _as_html(text: str) -> str:
    """Markdown as HTML, without any markup of the text's own, pictures, and links into a folder that is not
    here."""
    from markdown_it import MarkdownIt

    # "js-default" escapes markup, and makes no link to a script.
    markdown = MarkdownIt("js-default", {"linkify": False}).disable("image")
    tokens = markdown.parse(text)
    leads_out = True
    for token in (child for block in tokens for child in block.children or ()):
        if token.type == "link_open":
            leads_out = str(token.attrGet("href")).startswith(("https://", "http://"))
        if token.type in ("link_open", "link_close"):
            token.hidden = not leads_out
    return markdown.renderer.render(tokens, markdown.options, {})


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
