"""The service as a server of its own: settings, gunicorn, and the processes that work for it."""

from __future__ import annotations

import ipaddress
import logging
import logging.handlers
import os
import sys
import threading
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import InputError
from medseg.files import make_folder
from medseg.serve.processes import Kept, check_certificate, check_free, end_all, module_command

if TYPE_CHECKING:
    from medseg.serve.monai_label.service import Service

THREADS = 64
"""Each waiting annotator takes one; the rest answer everybody else."""

LOG_BYTES = 2_000_000
NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Start:
    """How a server is started. ``users``: the file of people; None: nobody is asked who they are, which only
    the loopback interface may have. ``certificate``, ``key``: PEM files for TLS. ``names``: host names that
    clients may call the server by, beside its address."""

    studies: str
    bundles: tuple[str, ...]
    state: Path
    host: str = "127.0.0.1"
    port: int = 8000
    users: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    audit: Path | None = None
    ohif: Path | None = None
    names: tuple[str, ...] = ()
    most_upload_mb: int = 2048
    memory_gb: float | None = None

    def __post_init__(self):
        if not is_loopback(self.host) and self.users is None:
            raise InputError(
                f"host {self.host}: others could reach the server, so it needs to know who they are: `users` "
                "(medseg label user)."
            )
        if not is_loopback(self.host) and self.certificate is None:
            logging.getLogger("medseg.label").warning(
                "no certificate: passwords and images cross the network unencrypted; give `certificate` and "
                "`key`, or put a proxy with TLS in front."
            )
        if (self.certificate is None) != (self.key is None):
            raise InputError("`certificate` and `key` belong together; give both or neither.")
        if self.most_upload_mb < 1 or self.memory_gb is not None and not self.memory_gb > 0:
            raise InputError("`most_upload_mb` and `memory_gb` have to be above 0.")
        if self.audit is not None and not self.audit.is_dir():
            raise InputError(f"{self.audit}: no such folder; expected one that medseg audit wrote.")
        for file in filter(None, (self.certificate, self.key, self.users)):
            if not file.is_file():
                raise InputError(f"{file}: no such file.")
        if self.certificate is not None and self.key is not None:
            check_certificate(self.certificate, self.key)


def is_loopback(host: str) -> bool:
    """True for an address that only this computer reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def configure(start: Start, secret: str) -> None:
    """Django's settings: no database, no sessions, no templates."""
    from django.conf import settings

    logging.getLogger("django").setLevel(logging.CRITICAL)  # it would log addresses, with ids in them
    temporary = start.state.resolve() / "temporary"
    make_folder(temporary)
    settings.configure(
        DEBUG=False,
        SECRET_KEY=secret,
        ALLOWED_HOSTS=[*NAMES, start.host, *start.names],
        ROOT_URLCONF="medseg_label_urls",
        MIDDLEWARE=[],
        INSTALLED_APPS=[],
        USE_TZ=True,
        APPEND_SLASH=False,
        LOGGING_CONFIG=None,
        DATA_UPLOAD_MAX_MEMORY_SIZE=4 * 2**20,
        DATA_UPLOAD_MAX_NUMBER_FILES=3000,
        FILE_UPLOAD_MAX_MEMORY_SIZE=2**20,
        FILE_UPLOAD_TEMP_DIR=str(temporary),
    )


def application(start: Start):
    """The WSGI application of a server that stands alone."""
    import django
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import JsonResponse

    from medseg.serve.monai_label.people import Nobody, People, secret_of

    secret = secret_of(start.state.resolve())
    configure(start, secret)
    django.setup(set_prefix=False)
    from medseg.serve.monai_label.door import Door
    from medseg.serve.monai_label.service import Service
    from medseg.serve.monai_label.urls import addresses

    known = People(start.users, secret) if start.users else Nobody()
    service = Service(start.studies, start.bundles, start.state, start.audit)
    door = Door(service, known, start.most_upload_mb * 2**20)
    urls = types.ModuleType("medseg_label_urls")
    urls.urlpatterns = addresses(door, log_file(start), start.ohif)

    def said(status: int, words: str):
        def answer(request, exception=None):
            return JsonResponse({"detail": words, "error": "Refused"}, status=status)

        return answer

    urls.handler400 = said(400, "a bad request: its Host, or its address, is none of this server.")
    urls.handler404 = said(404, "no such address; GET /info/ says what there is.")
    urls.handler500 = said(500, "a fault in medseg; the server's log says more.")
    sys.modules["medseg_label_urls"] = urls
    return WSGIHandler(), service


def log_file(start: Start) -> Path:
    return start.state.resolve() / "logs" / "label.log"


def log_to_file(start: Start) -> None:
    """medseg's own log lines, of at most 2 MB and three files before it."""
    make_folder(log_file(start).parent)
    handler = logging.handlers.RotatingFileHandler(log_file(start), maxBytes=LOG_BYTES, backupCount=3)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    log = logging.getLogger("medseg.label")
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def helper(start: Start, service: Service) -> Kept:
    """The process that keeps those which contour and train."""
    os.environ["MEDSEG_QUEUE"] = service.places.jobs
    command = ["--studies", start.studies, "--bundles", ",".join(start.bundles), "--state"]
    command += [str(service.places.state)]
    if start.memory_gb is not None:
        command += ["--memory-gb", str(start.memory_gb)]
    return Kept("workers", module_command("medseg.serve.monai_label.workers", *command))


def serve(start: Start, say=print) -> int:
    """Serve until Ctrl-C or SIGTERM. InputError for what it cannot be started with."""
    from gunicorn.app.base import BaseApplication

    check_free(start.host, start.port)
    log_to_file(start)
    handler, service = application(start)
    workers, stop = helper(start, service), threading.Event()
    options = {
        "bind": f"{start.host}:{start.port}",
        "workers": 1,
        "threads": THREADS,
        "worker_class": "gthread",
        "timeout": 0,
        "graceful_timeout": 3,
        "accesslog": None,
        "loglevel": "warning",
        "certfile": str(start.certificate) if start.certificate else None,
        "keyfile": str(start.key) if start.key else None,
        "worker_tmp_dir": None,
    }

    class Server(BaseApplication):
        def load_config(self) -> None:
            for key, value in options.items():
                if value is not None:
                    self.cfg.set(key, value)

        def load(self):
            return handler

    def watch() -> None:
        while not stop.wait(1.0):
            workers.look()

    thread = threading.Thread(target=watch, name="workers", daemon=True)

    def ready(_arbiter) -> None:
        # Before gunicorn forks: a fork in the middle of a start would keep that start's pipe open for ever.
        workers.look()
        thread.start()
        scheme = "https" if start.certificate else "http"
        say(f"MONAI Label on {scheme}://{start.host}:{start.port}/ with {', '.join(service.models.names())}")

    def ended(_arbiter) -> None:
        stop.set()
        thread.join(5)
        end_all([workers])

    options |= {"when_ready": ready, "on_exit": ended}
    Server().run()
    return 0


def check_bundles(names: Sequence[str]) -> tuple[str, ...]:
    """Names or folders of bundles, without blanks. InputError for an empty one."""
    kept = tuple(name.strip() for name in names)
    if not all(kept):
        raise InputError("bundles: a name is empty; expected names or folders with commas between them.")
    return kept
