"""``medseg label``: MONAI Label's protocol for 3D Slicer and OHIF, and the people who may use it."""

from __future__ import annotations

import argparse
import getpass
import importlib.util
import sys
from pathlib import Path

from medseg.cli.suggest import path_of
from medseg.cli.words import say
from medseg.errors import InputError


def add_label(command: argparse.ArgumentParser):
    """Serve bundles to annotators in 3D Slicer and OHIF (MONAI Label's protocol), or add a person."""
    parts = command.add_subparsers(required=True, metavar="start|user")
    begin = parts.add_parser("start", help="serve until Ctrl-C", allow_abbrev=False)
    begin.add_argument("--studies", required=True, metavar="DIR|URL", help="images, or a DICOMweb server")
    begin.add_argument("--bundles", required=True, metavar="NAME,…", help="names or folders, with commas")
    begin.add_argument("--state", type=path_of, metavar="DIR", help="labels, models; default medseg_label")
    begin.add_argument("--host", default="127.0.0.1", help="another one than loopback needs --users")
    begin.add_argument("--port", type=int, default=8000)
    begin.add_argument("--name", action="append", default=[], help="host name that clients use; repeatable")
    begin.add_argument("--users", type=path_of, metavar="FILE", help="people, made by medseg label user")
    begin.add_argument("--certificate", type=path_of, metavar="PEM", help="for TLS, with --key")
    begin.add_argument("--key", type=path_of, metavar="PEM")
    begin.add_argument("--audit", type=path_of, metavar="DIR", help="of medseg audit: suspected labels first")
    begin.add_argument("--ohif", type=path_of, metavar="DIR", help="a build of OHIF with the panel")
    begin.add_argument("--most-upload-mb", type=int, default=2048)
    begin.add_argument("--memory-gb", type=float, help="most memory of the contouring process")
    user = parts.add_parser("user", help="add a person, or change role and password", allow_abbrev=False)
    user.add_argument("name")
    user.add_argument("--users", type=path_of, required=True, metavar="FILE")
    user.add_argument("--role", choices=("annotator", "reviewer", "admin"), default="annotator")
    begin.set_defaults(part=_start)
    user.set_defaults(part=_user)

    def run(options) -> int:
        missing = [name for name in ("django", "gunicorn") if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(f"{' and '.join(missing)} not installed: pip install 'medseg[serve]'.")
        return options.part(options)

    return run


def _start(options) -> int:
    from medseg.serve.monai_label.standalone import Start, check_bundles, serve

    if not 1 <= options.port <= 65_535:
        raise InputError(f"--port {options.port}: expected 1 to 65535.")
    return serve(
        Start(
            options.studies,
            check_bundles(options.bundles.split(",")),
            options.state or Path("medseg_label"),
            options.host,
            options.port,
            options.users,
            options.certificate,
            options.key,
            options.audit,
            options.ohif,
            tuple(options.name),
            options.most_upload_mb,
            options.memory_gb,
        ),
        say,
    )


def _user(options) -> int:
    from django.conf import settings

    from medseg.serve.monai_label.people import set_user

    settings.configure()
    asked = getpass.getpass if sys.stdin.isatty() else lambda _: sys.stdin.readline().rstrip("\n")
    set_user(options.users, options.name, options.role, asked(f"password of {options.name}: "))
    say(f"{options.name} is {options.role} in {options.users}")
    return 0
