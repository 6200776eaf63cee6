"""Runs over many cases in processes of their own, to be killed; and a verb that does what a test says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medseg.bundles.many.plan import Case, FolderPerCase
from medseg.errors import InputError, MedsegError
from medseg.files import write_json


@dataclass(frozen=True)
class Rehearsal(FolderPerCase):
    """Cases without images: ``acts`` are pairs (name, what it does): "write", "fail", "break", "grow", "die"
    or "die twice", which lives from the third time on. Each begun case is a line of OUT.begun."""

    output_dir: Path
    acts: tuple[tuple[str, str], ...]

    verb = "rehearsal"

    def record(self):
        return {}

    def cases(self, scan):
        found = [
            Case(name, {"case": name, "act": act}, act, size) for size, (name, act) in enumerate(self.acts)
        ]
        return found, ["a note"]

    @contextmanager
    def open(self):
        yield self._run

    def _run(self, values):
        begun = self.output_dir.with_suffix(".begun")
        with begun.open("a") as log:
            log.write(f"{values['case']}\n")
        act, times = values["act"], begun.read_text().split().count(values["case"])
        if act == "die" or act == "die twice" and times < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "fail":
            raise InputError("a slice is missing.")
        if act == "break":
            raise ZeroDivisionError("by zero")
        if act == "grow":
            bytearray(2**33)
        (self.output_dir / values["case"]).mkdir(exist_ok=True)
        write_json({"case": values["case"]}, self.output_dir / values["case"] / "run.json")
        return {"case": values["case"], "status": "done", "structures": []}


class Unready(Rehearsal):
    """Cannot make itself ready in any worker."""

    def open(self):
        raise MedsegError("no weights there.")


def begun(out: Path) -> list[str]:
    """Names of a rehearsal's cases in the order in which they were begun."""
    return out.with_suffix(".begun").read_text().split()


def start(*words: str) -> subprocess.Popen:
    """``medseg cohort`` with these words, in a process of its own."""
    command = [sys.executable, "-m", "medseg", "cohort", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(process: subprocess.Popen) -> list[int]:
    """Numbers of the worker processes that a run has started and that live."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = folder.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == process.pid and b"spawn_main" in folder.joinpath("cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_until(true: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def done(out: Path) -> dict[str, int]:
    """{case that stands there whole: when its record was written, ns}."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/run.json")}
