"""Processes that are started again when they end, and that end together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

STOP_WITHIN_S = 20.0
SOON_S = 5.0
"""A process that ends sooner than this after its start is not started again at once."""


@dataclass
class Kept:
    """A process that is started again when it ends."""

    name: str
    command: list[str]
    process: subprocess.Popen | None = None
    started: float = 0.0

    def keep(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None and time.monotonic() - self.started < SOON_S:
            return
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command, start_new_session=True)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Group:
    """All processes of a site."""

    members: list[Kept] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def keep(self) -> None:
        for member in self.members:
            member.keep()

    def end(self) -> None:
        """Ask all to end, wait for them together, and kill what is left."""
        for member in self.members:
            member.stop()
        deadline = time.monotonic() + STOP_WITHIN_S
        for member in self.members:
            if member.process is not None:
                try:
                    member.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    member.kill()
                    member.process.wait()
