"""Where the site's own tables lie: accounts, studies, jobs, the audit trail."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from medseg.errors import InputError
from medseg.serve.web.site import Site

SCHEMES = ("postgresql", "postgres")
LONGEST_CONNECTION_S = 600


def database(site: Site) -> dict[str, Any]:
    """Django's words for ``site.database``, a postgresql URL, or for a SQLite file in the data folder.
    InputError for another URL."""
    if not site.database:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": site.data_dir / "web.sqlite3",
            # Writers wait for one another instead of failing; a transaction that will write says so at once.
            "OPTIONS": {
                "timeout": 30,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    url = urlsplit(site.database)
    name = unquote(url.path.removeprefix("/"))
    if url.scheme not in SCHEMES or not name:
        raise InputError("site.json: database is no address like postgresql://user:password@host:5432/name.")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": unquote(url.hostname or ""),
        "PORT": str(url.port or ""),
        "OPTIONS": dict(parse_qsl(url.query)),
        "CONN_MAX_AGE": LONGEST_CONNECTION_S,
        "CONN_HEALTH_CHECKS": True,
    }
