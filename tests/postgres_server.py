"""A real PostgreSQL server on the loopback, for as long as a block lasts."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _program(name: str) -> str:
    beside = [Path(shutil.which("postgres") or "/none").resolve().parent, *_debian_folders()]
    for folder in beside:
        if (folder / name).is_file():
            return str(folder / name)
    pytest.skip(f"PostgreSQL's {name} is not installed (Debian: postgresql)")


def _debian_folders() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of an empty database. The server refuses to be root, so as root it runs as nobody."""
    pytest.importorskip("psycopg")
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    as_user = {}
    folder = Path(tempfile.mkdtemp(prefix="medseg_postgres_"))  # pytest's own folders are closed to others
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data, port = folder / "data", free_port()
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder, **as_user}
    try:
        subprocess.run(
            [initdb, "-D", data, "-U", "medseg", "-A", "trust", "--no-sync", "-E", "UTF8"], **quiet
        )
        options = f"-h 127.0.0.1 -p {port} -k '' -c fsync=off -c shared_buffers=16MB"
        subprocess.run([pg_ctl, "-D", data, "-l", folder / "log", "-o", options, "-w", "start"], **quiet)
        try:
            yield f"postgresql://medseg@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([pg_ctl, "-D", data, "-m", "immediate", "-w", "stop"], **quiet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
