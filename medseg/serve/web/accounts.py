"""Accounts from the command line: the first administrator, and the log-in of the demo."""

from __future__ import annotations

import secrets

from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError

from medseg.errors import InputError
from medseg.serve.web.access import REVIEWERS, ROLES

PASSWORD_BYTES = 12


def set_up_groups() -> None:
    """Make the group of reviewers, so that an administrator finds it."""
    Group.objects.get_or_create(name=REVIEWERS)


def new_account(name: str, role: str) -> str:
    """Make an account, or give an existing one this role and a new password; returns the password, which is
    stored nowhere. InputError for a name that Django does not take or an unknown role."""
    if role not in ROLES:
        raise InputError(f"role {role!r}: expected one of {', '.join(ROLES)}.")
    user = User.objects.filter(username=name).first() or User(username=name)
    user.is_staff = user.is_superuser = role == "administrator"
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    user.set_password(password)
    try:
        user.full_clean()
    except ValidationError as error:
        raise InputError(f"account {name[:40]!r}: {' '.join(error.messages)}") from error
    user.save()
    if role == "reviewer":
        user.groups.add(Group.objects.get(name=REVIEWERS))
    else:
        user.groups.clear()
    return password
