"""Who may see what. Everything that a view shows comes through here; what is not there and what is somebody
else's look the same from outside."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from medseg.serve.web.lockout import address_of
from medseg.serve.web.models import Comparison, Event, Job, Study

ROLES = ("user", "reviewer", "administrator")
REVIEWERS = "reviewers"
"""The group whose members may see everybody's results, tick "reviewed by" and send results on."""


def may_review(user) -> bool:
    """True for a reviewer. An administrator keeps accounts and is none by that alone."""
    if not hasattr(user, "is_reviewer"):
        user.is_reviewer = user.groups.filter(name=REVIEWERS).exists()
    return user.is_reviewer


def studies_of(user) -> QuerySet[Study]:
    """The user's own studies; a reviewer's are all."""
    every = Study.objects.select_related("owner")
    return every if may_review(user) else every.filter(owner=user)


def study_of(request: HttpRequest, id_: str) -> Study:
    return get_object_or_404(studies_of(request.user), id=id_)


def own_study_of(request: HttpRequest, id_: str) -> Study:
    """A study that the user may change: a reviewer may look at others', not alter them."""
    return get_object_or_404(Study, id=id_, owner=request.user)


def job_of(request: HttpRequest, id_: str) -> Job:
    return get_object_or_404(Job.objects.select_related("study"), id=id_, study__in=studies_of(request.user))


def own_job_of(request: HttpRequest, id_: str) -> Job:
    return get_object_or_404(Job.objects.select_related("study"), id=id_, owner=request.user)


def comparison_of(request: HttpRequest, id_: str) -> Comparison:
    return get_object_or_404(Comparison, id=id_, study__in=studies_of(request.user))


def note(request: HttpRequest, action: str, about: str = "", user: str = "") -> None:
    """One line of the audit trail; ``about`` is an id, never a name."""
    who = user or getattr(request.user, "username", "")
    Event.objects.create(user=who, address=address_of(request), action=action, about=about[:200])
