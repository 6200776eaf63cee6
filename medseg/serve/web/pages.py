"""What every page shows, and how a view refuses."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from medseg.serve.web.access import may_review
from medseg.serve.web.site import the_site

RESEARCH_USE = "Research use only, not a medical device."


def every_page(request: HttpRequest) -> dict:
    user = getattr(request, "user", None)
    known = bool(user and user.is_authenticated)
    return {"the_site": the_site(), "may_review": known and may_review(user)}


def refusal(request: HttpRequest, message: str, status: int = 400) -> HttpResponse:
    """A page that says in one sentence why something was not done."""
    return render(request, "web/refusal.html", {"message": message}, status=status)
