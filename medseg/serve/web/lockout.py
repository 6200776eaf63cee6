"""Whoever guesses passwords has to stop: so many failures of one account, or from one address, and no further
try is looked at for a while. An account that does not exist counts like one that does."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpRequest
from django.utils import timezone

from medseg.serve.web.models import FailedLogIn
from medseg.serve.web.site import the_site

WINDOW = timedelta(minutes=15)
MOST_OF_AN_ACCOUNT, MOST_OF_AN_ADDRESS = 5, 50
"""An address may be a whole hospital's; an account is one person's."""


def address_of(request: HttpRequest) -> str:
    """The client's address: the connection's, or, behind ``proxies`` of the site, what the outermost of them
    saw. What a client writes into the header itself stands further left and is never believed."""
    proxies = the_site().proxies
    seen = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
    if proxies and len(seen) >= proxies:
        return seen[-proxies][:45]
    return request.META.get("REMOTE_ADDR", "")[:45]


def is_locked(account: str, address: str) -> bool:
    """True when this account, or this address, has failed too often of late."""
    recent = FailedLogIn.objects.filter(time__gt=timezone.now() - WINDOW)
    return (
        recent.filter(account=_known_as(account)).count() >= MOST_OF_AN_ACCOUNT
        or recent.filter(address=address).count() >= MOST_OF_AN_ADDRESS
    )


def failed(account: str, address: str) -> None:
    FailedLogIn.objects.create(account=_known_as(account), address=address)
    FailedLogIn.objects.filter(time__lt=timezone.now() - 4 * WINDOW).delete()


def succeeded(account: str) -> None:
    FailedLogIn.objects.filter(account=_known_as(account)).delete()


def _known_as(account: str) -> str:
    return account.strip().casefold()[:150]
