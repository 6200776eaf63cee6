"""The node as a whole: starts receiver, dispatcher and workers, and starts again whichever dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.serve.dicom_node.config import NodeConfig
from medseg.serve.dicom_node.logs import log

LOOK_S = 0.2
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A process that lived so long is started again at once."""

GRACE_S = 20.0
"""For a process to end after SIGTERM."""


@dataclass
class Kept:
    """One process that is kept alive. ``deaths``: in a row, each after less than a minute."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen | None = None
    deaths: int = 0
    started: float = 0.0
    next_at: float = field(default=0.0)

    def look(self) -> None:
        """Start it if it does not run and its pause is over; note its death."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            self.deaths = 1 if now - self.started > STEADY_S else self.deaths + 1
            self.next_at = now + (0.0 if self.deaths == 1 else min(2.0 ** (self.deaths - 2), LONGEST_PAUSE_S))
            log("died", "error", process=self.name, code=self.process.returncode)
            self.process = None
        if self.process is None and now >= self.next_at:
            self.process, self.started = subprocess.Popen(self.command), now
            log("started", process=self.name, pid=self.process.pid)


def processes(config: NodeConfig, path: Path) -> list[Kept]:
    """All that the node runs, not started yet."""
    kept = [("receiver", "receiver"), ("dispatcher", "dispatch")]
    kept += [(f"worker {number}", "worker") for number in range(1, config.workers + 1)]
    start = (sys.executable, "-m")
    return [Kept(name, (*start, f"medseg.serve.dicom_node.{module}", str(path))) for name, module in kept]


def run_node(config: NodeConfig, path: Path) -> int:
    """Run until SIGTERM or Ctrl-C; returns the exit code 0."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    kept = processes(config, path)
    try:
        while not stop.is_set():
            for one in kept:
                one.look()
            stop.wait(LOOK_S)
    finally:
        running = [one.process for one in kept if one.process is not None and one.process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log("stopped")
    return 0
