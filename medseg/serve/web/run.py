"""``medseg serve``: the web server and its workers as processes of one group, which end together."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medseg.bundles.find import bundle_folders, find_bundle
from medseg.bundles.trust import trusted_bundle
from medseg.errors import InputError, MedsegError
from medseg.serve.processes import Group, Kept, check_certificate, check_free, module_command
from medseg.serve.web import label
from medseg.serve.web.database import database
from medseg.serve.web.site import BUNDLES_VARIABLE, DATA_VARIABLE, URL_VARIABLE, Site, load_site

SWEEP_EVERY_S = 600.0


@dataclass(frozen=True)
class ServeRequest:
    """What ``medseg serve`` is asked: ``bundles``: names or folders, () for what site.json says, or all
    shipped ones with weights. ``certificate``, ``key``: PEM files, for https without a proxy. ``label``:
    what annotators work on by MONAI Label's protocol, None for a site without it."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    bundles: tuple[str, ...] = ()
    workers: int = 1
    web_workers: int = 2
    certificate: Path | None = None
    key: Path | None = None
    demo: bool = False
    label: label.Annotated | None = None


def prepare(request: ServeRequest) -> Site:
    """Make the folder, check everything that can be refused, set the processes' environment, migrate.

    InputError for a site.json that is none, a bundle that may not run, and for an address other than this
    computer's without https.
    """
    if (request.certificate is None) != (request.key is None):
        raise InputError("`certificate` and `key` go together; give both or none.")
    request.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(request.data_dir, 0o700)  # images of patients
    said = load_site(request.data_dir)
    bundles = request.bundles or said.bundles or shipped_with_weights()
    for name in bundles:
        trusted_bundle(name)
    database(said)
    scheme = "https" if request.certificate else "http"
    host = f"[{request.host}]" if ":" in request.host else request.host
    url = said.public_url or f"{scheme}://{host}:{request.port}"
    if not said.is_https and not _is_loopback(request.host):
        raise InputError(
            f"host {request.host} is reached by others, and passwords and images would travel in the open: "
            "set public_url in site.json to the https:// address that users type, and give `certificate` and "
            "`key` unless a proxy in front has them."
        )
    os.environ |= {
        DATA_VARIABLE: str(request.data_dir.resolve()),
        BUNDLES_VARIABLE: ",".join(bundles),
        URL_VARIABLE: url,
        "DJANGO_SETTINGS_MODULE": "medseg.serve.web.settings",
    }
    (request.data_dir / "incoming").mkdir(exist_ok=True)
    site = load_site(request.data_dir, bundles=bundles, public_url=url)
    label.prepare(request.label, site)
    return site


def set_up_django() -> None:
    """Load Django for this process, bring the tables up to date, and make the groups."""
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0, interactive=False)
    from medseg.serve.web.accounts import set_up_groups

    set_up_groups()


def shipped_with_weights() -> tuple[str, ...]:
    """Names of the bundles that come with medseg and can contour."""
    return tuple(name for name in bundle_folders() if find_bundle(name).has_weights)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# ---- processes ---------------------------------------------------------------------------------------------


def commands(request: ServeRequest, site: Site) -> list[Kept]:
    """gunicorn with threads, and so many workers."""
    web = module_command("gunicorn", "medseg.serve.web.wsgi:application")
    web += ["--bind", f"{request.host}:{request.port}", "--worker-class", "gthread"]
    # Each annotator who waits for a contour takes a thread.
    threads = "32" if request.label else "8"
    web += ["--workers", str(request.web_workers), "--threads", threads, "--backlog", "512"]
    web += ["--timeout", "120", "--graceful-timeout", "10", "--log-level", "warning"]
    # Longer than the page of a job waits between two questions: a connection that closes under one is reset.
    web += ["--keep-alive", "20"]
    # A copy of the memory after many requests is given back: image libraries keep some.
    web += ["--max-requests", "20000", "--max-requests-jitter", "2000", "--worker-tmp-dir", _shared_memory()]
    if site.proxies:
        web += ["--forwarded-allow-ips", "*"]
    if request.certificate and request.key:
        web += ["--certfile", str(request.certificate), "--keyfile", str(request.key)]
    os.environ["MEDSEG_QUEUE"] = site.queue_url  # a postgresql URL may hold a password
    worker = module_command("medseg.bundles.worker", "-", "--bundles", ",".join(site.bundles))
    workers = [Kept(f"worker {n + 1}", worker) for n in range(request.workers)]
    return [Kept("web", web), *workers, *label.helpers(site)]


def _shared_memory() -> str:
    """gunicorn's heartbeat writes a file all the time; on a slow disk that blocks."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else str(Path(os.environ[DATA_VARIABLE]) / "incoming")


def serve(request: ServeRequest, report: Callable[[str], None]) -> None:
    """Run the site until SIGTERM or Ctrl-C; then everything it started has ended.

    InputError before anything starts when the port is taken or :func:`prepare` refuses.
    """
    site = prepare(request)
    check_free(request.host, request.port)
    if request.certificate and request.key:
        check_certificate(request.certificate, request.key)
    set_up_django()
    group = Group(commands(request, site))
    group.stop_at_signals()
    try:
        group.keep()
        if request.demo:
            _demo(group, report)
        if not group.stopped.is_set():
            _wait_until_up(request, group)
            report(f"medseg is at {site.public_url}  ({', '.join(site.bundles)}; {request.workers} workers)")
            for reason in label.left_out(site):
                report(f"not for annotators: {reason}")
            report("Research use only, not a medical device.")
        _watch(group)
    finally:
        group.end()


def _demo(group: Group, report: Callable[[str], None]) -> None:
    from medseg.serve.web.demo import make_demo, wait_for

    account, password, job = make_demo()
    if job is not None:
        report("Contouring the demo study (about a minute without a graphics card) …")
        wait_for(job, group)
    report(f"Log in as {account} with {password}  (a new password at every start)")


def _wait_until_up(request: ServeRequest, group: Group) -> None:
    deadline = time.monotonic() + 60
    while not group.stopped.wait(0.1):
        with socket.socket(socket.AF_INET6 if ":" in request.host else socket.AF_INET) as probe:
            probe.settimeout(1)
            if probe.connect_ex((_reachable(request.host), request.port)) == 0:
                return
        if not group.members[0].runs or time.monotonic() > deadline:
            raise MedsegError("the web server did not start; what it said stands above.")


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _watch(group: Group) -> None:
    """Keep the processes running, and delete what is too old, until told to stop."""
    from medseg.serve.web.retention import sweep

    swept = 0.0
    while not group.stopped.is_set():
        group.keep()
        if time.monotonic() - swept > SWEEP_EVERY_S or not swept:
            sweep()
            swept = time.monotonic()
        group.stopped.wait(1.0)


def add_account(request: ServeRequest, name: str, role: str) -> str:
    """Make an account of the site; returns its password."""
    prepare(request)
    set_up_django()
    from medseg.serve.web.accounts import new_account

    return new_account(name, role)


def require_installed() -> None:
    """InputError when the extra ``serve`` is not there."""
    missing = [name for name in ("django", "gunicorn", "whitenoise") if not _has(name)]
    if missing:
        raise InputError(f"{', '.join(missing)} is not installed: pip install 'medseg[serve]'.")


def _has(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
