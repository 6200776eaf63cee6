"""``medseg serve``: the web application."""

from __future__ import annotations

import argparse

from medseg.cli.suggest import path_of
from medseg.cli.words import say
from medseg.errors import InputError

ROLES = ("user", "reviewer", "administrator")
"""medseg.serve.web.access.ROLES, here without loading Django; a test compares them."""


def add_serve(command: argparse.ArgumentParser):
    """Serve the web application: upload, contour, look, review, download."""
    command.add_argument(
        "--data", type=path_of, required=True, metavar="DIR", help="everything of the site; made if missing"
    )
    command.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this computer alone")
    command.add_argument("--port", type=int, default=8000)
    command.add_argument(
        "--bundles",
        metavar="NAME,…",
        help="the only ones offered; default: of site.json, or all with weights",
    )
    command.add_argument("--workers", type=int, default=1, help="processes that contour, default 1")
    command.add_argument("--certificate", type=path_of, metavar="PEM", help="for https without a proxy")
    command.add_argument("--key", type=path_of, metavar="PEM", help="the certificate's private key")
    command.add_argument("--demo", action="store_true", help="with a study that is contoured already")
    command.add_argument(
        "--label",
        metavar="DIR|URL",
        help="annotate these images, or a DICOMweb server's, in 3D Slicer and OHIF (MONAI Label's protocol)",
    )
    command.add_argument(
        "--audit", type=path_of, metavar="DIR", help="for --label: of medseg audit, suspected labels first"
    )
    command.add_argument(
        "--ohif", type=path_of, metavar="DIR", help="for --label: a build of OHIF with the panel"
    )
    command.add_argument(
        "--add-account", metavar="NAME", help="make an account, print its password and end; see --role"
    )
    command.add_argument("--role", default="user", choices=ROLES, help="of --add-account, default user")
    return _run


def _run(options) -> int:
    from medseg.serve.web.label import Annotated
    from medseg.serve.web.run import ServeRequest, add_account, require_installed, serve

    require_installed()
    if options.workers < 1:
        raise InputError(f"--workers {options.workers}: expected 1 or more.")
    if options.label is None and (options.audit or options.ohif):
        raise InputError("--audit and --ohif belong to --label.")
    folders = {name: str(path.resolve()) for name in ("audit", "ohif") if (path := getattr(options, name))}
    request = ServeRequest(
        options.data.resolve(),
        options.host,
        options.port,
        tuple(name for name in (options.bundles or "").split(",") if name),
        options.workers,
        certificate=options.certificate,
        key=options.key,
        demo=options.demo,
        label=Annotated(options.label, **folders) if options.label else None,
    )
    if options.add_account:
        password = add_account(request, options.add_account, options.role)
        say(f"{options.add_account} ({options.role}): {password}")
        return 0
    serve(request, say)
    return 0
