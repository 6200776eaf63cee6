"""MONAI Label's protocol beside the site: its addresses, with the site's accounts and roles."""

from __future__ import annotations

from pathlib import Path

from django.contrib.auth import authenticate
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import URLPattern

from medseg.serve.monai_label.door import Door
from medseg.serve.monai_label.people import Accounts, Denied, Person
from medseg.serve.monai_label.urls import addresses
from medseg.serve.web.access import may_review
from medseg.serve.web.label import Annotated, service_of
from medseg.serve.web.lockout import address_of, failed, is_locked, succeeded
from medseg.serve.web.secret import secret_key
from medseg.serve.web.site import the_site


class SiteAccounts(Accounts):
    """The site's users: with the session of its pages, a password, or a token. Reviewers are reviewers,
    administrators who are reviewers too are admins, everybody else annotates."""

    def person(self, request: HttpRequest, client_id: str) -> Person:
        if not request.headers.get("Authorization") and request.user.is_authenticated:
            return Person(request.user.username, _role(request.user))
        return super().person(request, client_id)

    def known(self, name: str) -> tuple[str, str] | None:
        user = User.objects.filter(username=name, is_active=True).first()
        return (_role(user), user.password) if user else None

    def check(self, request: HttpRequest, name: str, password: str) -> None:
        """The rules of the log-in page, and its count of failures."""
        address = address_of(request)
        if is_locked(name, address):
            raise Denied(429, "too many failed log-ins; try again in 15 minutes.")
        if authenticate(request, username=name, password=password) is None:
            failed(name, address)
            raise Denied(401, "wrong name or password.")
        succeeded(name)


def _role(user: User) -> str:
    if not may_review(user):
        return "annotator"
    return "admin" if user.is_superuser else "reviewer"


def addresses_for(annotated: Annotated) -> list[URLPattern]:
    """The protocol's addresses, none of which is one of the site's own."""
    site = the_site()
    door = Door(service_of(annotated, site), SiteAccounts(secret_key(site.data_dir)), site.max_bytes)
    found = addresses(door, ohif=Path(annotated.ohif) if annotated.ohif else None)
    for pattern in found:  # who asks is found out at the door, which clients without cookies pass too
        pattern.callback = login_not_required(pattern.callback)
    return found
