"""Processes that are started again when they end, and that end together."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import InputError

STEADY_S, LONGEST_PAUSE_S = 60.0, 30.0
"""A process that lived for a minute is started again at once; else after a pause that doubles with each death
in a row."""

GRACE_S = 20.0
"""For a process to end after SIGTERM."""

Tell = Callable[..., None]
"""Called with an event ("started", "died"), perhaps its level, and ``process``, ``pid`` or ``code``."""


def module_command(*words: str) -> list[str]:
    """A Python module as a process that ends with this one, also when this one is killed."""
    return [sys.executable, "-m", "medseg.serve.tied", str(os.getpid()), *words]


def _nobody_listens(event: str, level: str = "info", **values: object) -> None:
    pass


@dataclass
class Kept:
    """One process that is kept alive. ``deaths``: in a row, each after less than a minute."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen | None = None
    deaths: int = 0
    started: float = 0.0
    next_at: float = 0.0

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def look(self, tell: Tell = _nobody_listens) -> None:
        """Start it if it does not run and its pause is over; note its death."""
        now = time.monotonic()
        if self.process is not None and not self.runs:
            self.deaths = 1 if now - self.started > STEADY_S else self.deaths + 1
            self.next_at = now + (0.0 if self.deaths == 1 else min(2.0 ** (self.deaths - 2), LONGEST_PAUSE_S))
            tell("died", "error", process=self.name, code=self.process.returncode)
            self.process = None
        if self.process is None and now >= self.next_at:
            # A session of its own: Ctrl-C in a terminal reaches the one who keeps it, who ends it in order.
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, start_new_session=True)
            self.started = now
            tell("started", process=self.name, pid=self.process.pid)

    def change(self, command: Sequence[str]) -> None:
        """From now on it is this command; the old one is ended."""
        if list(command) != list(self.command):
            end_all([self])
            self.command, self.process, self.deaths, self.next_at = command, None, 0, 0.0


def end_all(kept: Iterable[Kept]) -> None:
    """Ask all to end, wait for them together, and kill what is left, with what it started."""
    running = [one.process for one in kept if one.runs and one.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in running:
        try:
            process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass
class Group:
    """All processes of one door, until ``stopped`` is set."""

    members: list[Kept]
    tell: Tell = _nobody_listens
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop_at_signals(self) -> None:
        """SIGTERM and Ctrl-C set ``stopped``."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopped.set())

    def keep(self) -> None:
        for member in self.members:
            member.look(self.tell)

    def end(self) -> None:
        end_all(self.members)


# ---- what is looked at before anything is started ----------------------------------------------------------


def check_free(host: str, port: int) -> None:
    """InputError for a port that is none or taken, and for a host that is no address of this computer."""
    if not 1 <= port <= 65_535:
        raise InputError(f"port {port}: expected 1 to 65535.")
    bare = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bare, port))
        except OSError as error:
            is_elsewhere = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
            what = "`host`" if is_elsewhere else "`port`"
            raise InputError(f"{host}:{port}: {error.strerror}; choose another {what}.") from error


def check_certificate(certificate: Path, key: Path) -> None:
    """InputError for PEM files that are no certificate and its private key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"`certificate` {certificate} and `key` {key} cannot be used ({reason}).") from error
