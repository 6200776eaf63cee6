"""Who may do what: roles, tokens, and the names and passwords of a server that stands alone."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from django.contrib.auth.hashers import check_password, make_password
from django.core import signing
from django.http import HttpRequest

from medseg.errors import InputError
from medseg.files import load_json, make_folder, write_json

ROLES = ("annotator", "reviewer", "admin")
"""Each may also do what those before it may. An annotator sees their own labels, a reviewer everyone's."""

TOKEN_LASTS_S = 12 * 3600
SALT = "medseg.serve.monai_label"
MOST_FAILURES, FAILURES_LAST_S = 10, 60.0
REMEMBERED_S = 300.0


@dataclass(frozen=True)
class Person:
    """Who asks. ``name`` stands in every label's record."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """True when the person has this role or one above it."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def owns(self, name: str) -> bool:
        """True for what is the person's own, and for everything of a reviewer."""
        return self.name == name or self.may("reviewer")


class Denied(Exception):
    """Not allowed. ``status``: 401 for somebody unknown, 403 for a role that may not, 429 for too many
    tries."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def signer(secret: str) -> signing.TimestampSigner:
    """What tokens are signed with: the service's own secret, not one of the site that it is mounted in."""
    return signing.TimestampSigner(key=secret, salt=SALT, fallback_keys=[])


class Nobody:
    """A server without accounts, on the loopback interface: everyone may do everything, under the name that
    their client gives."""

    enabled = False

    def person(self, request: HttpRequest, client_id: str) -> Person:
        return Person(client_id[:64] or "local", "admin")

    def token(self, request: HttpRequest, name: str, password: str) -> str:
        return ""


class Accounts:
    """Who asks, by token or password. What people there are, and how a password is checked, a subclass says:
    :meth:`known` and :meth:`check`. ``secret``: signs tokens."""

    enabled = True

    def __init__(self, secret: str):
        self.secret = secret
        self._seen: dict[str, float] = {}

    def known(self, name: str) -> tuple[str, str] | None:
        """(role, hash of the password) of a person as things are now; None for nobody."""
        raise NotImplementedError

    def check(self, request: HttpRequest, name: str, password: str) -> None:
        """Denied(401) for a wrong name or password, Denied(429) after too many."""
        raise NotImplementedError

    def person(self, request: HttpRequest, client_id: str) -> Person:
        """Who sent this request. Denied(401) for nobody that is known."""
        kind, _, credentials = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            name = self._of_token(credentials.strip())
        elif kind.lower() == "basic":
            name = self._of_password(request, credentials.strip())
        else:
            raise Denied(401, "no token; POST name and password to /auth/token.")
        person = self.known(name)
        if person is None:
            raise Denied(401, "the token's person is no longer known here.")
        return Person(name, person[0])

    def token(self, request: HttpRequest, name: str, password: str) -> str:
        """A token for 12 hours, which a new password ends. Denied as :meth:`check` says."""
        self.check(request, name, password)
        person = self.known(name)
        if person is None:
            raise Denied(401, "wrong name or password.")
        return signer(self.secret).sign_object({"name": name, "hash": _short(person[1])})

    def _of_token(self, token: str) -> str:
        try:
            content = signer(self.secret).unsign_object(token, max_age=TOKEN_LASTS_S)
            name, digest = str(content["name"]), str(content["hash"])
        except signing.SignatureExpired:
            raise Denied(401, "the token has expired; POST name and password to /auth/token.") from None
        except (signing.BadSignature, KeyError, TypeError, ValueError):
            raise Denied(401, "the token is not one of this server.") from None
        person = self.known(name)
        if person is None or _short(person[1]) != digest:  # a new password ends older tokens
            raise Denied(401, "the token is no longer valid.")
        return name

    def _of_password(self, request: HttpRequest, credentials: str) -> str:
        """Browsers send the password with every request; hashing it each time would take a third of a
        second."""
        import base64

        try:
            name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:
            raise Denied(401, "the Authorization header cannot be read.") from None
        person = self.known(name)
        # With the password's hash: a new one ends what is remembered, as it ends tokens.
        said = f"{self.secret}{person and person[1]}{credentials}"
        digest = hashlib.sha256(said.encode()).hexdigest()
        if time.monotonic() < self._seen.get(digest, 0.0):
            return name
        self.check(request, name, password)
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[digest] = time.monotonic() + REMEMBERED_S
        return name


class People(Accounts):
    """The people of a file ``{"users": {name: {"role", "password"}}}``, whose passwords are hashes.

    The file is read again for every request, so a person who is taken out of it is out at once. InputError
    for a file that is none.
    """

    def __init__(self, file: Path, secret: str):
        super().__init__(secret)
        self.file = file
        self._lock = threading.Lock()
        self._failures: dict[str, list[float]] = {}
        if not read_users(file):
            raise InputError(f"{file}: nobody is in it; add people with medseg label user.")

    def known(self, name: str) -> tuple[str, str] | None:
        user = read_users(self.file).get(name)
        return (user["role"], user["password"]) if user else None

    def check(self, request: HttpRequest, name: str, password: str) -> None:
        """Denied(401) for a wrong name or password, Denied(429) after ten in a minute."""
        with self._lock:
            recent = [at for at in self._failures.get(name, []) if time.monotonic() - at < FAILURES_LAST_S]
            if len(self._failures) > 10_000:
                self._failures.clear()
            self._failures[name] = recent
            if len(recent) >= MOST_FAILURES:
                raise Denied(429, "too many wrong passwords; wait a minute.")
        person = self.known(name)
        # An unknown name takes as long as a wrong password, so that names cannot be found out.
        if not check_password(password, person[1] if person else make_password(None)) or person is None:
            with self._lock:
                self._failures.setdefault(name, []).append(time.monotonic())
            raise Denied(401, "wrong name or password.")


def _short(password_hash: str) -> str:
    return hashlib.sha256(password_hash.encode()).hexdigest()[:16]


def read_users(file: Path) -> Mapping[str, Mapping[str, str]]:
    """{name: {"role", "password"}}; {} where there is no file. InputError for another content."""
    if not file.exists():
        return {}
    try:
        users = load_json(file)["users"]
        wrong = [name for name, user in users.items() if user["role"] not in ROLES or not user["password"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not a list of people by medseg label user ({error}).") from error
    if wrong:
        raise InputError(f"{file}: {wrong[0]}: expected a role of {', '.join(ROLES)} and a password's hash.")
    return users


def set_user(file: Path, name: str, role: str, password: str) -> None:
    """Add a person, or give one another role and password. InputError for a role or name that cannot be, and
    a password of fewer than 10 characters."""
    if role not in ROLES:
        raise InputError(f"role {role!r}: expected one of {', '.join(ROLES)}.")
    if not name.isprintable() or not 1 <= len(name) <= 64 or ":" in name:
        raise InputError(f"name {name[:64]!r}: expected 1 to 64 printable characters without a colon.")
    if len(password) < 10:
        raise InputError("the password has fewer than 10 characters.")
    users = {**read_users(file), name: {"role": role, "password": make_password(password)}}
    make_folder(file.parent)
    write_json({"users": users}, file)
    file.chmod(0o600)


def secret_of(folder: Path) -> str:
    """The server's own secret, made once and readable by its user alone."""
    make_folder(folder)
    file = folder / "secret.json"
    if not file.exists():
        write_json({"secret": secrets.token_urlsafe(48)}, file)
        file.chmod(0o600)
    return str(load_json(file)["secret"])
