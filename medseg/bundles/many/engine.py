"""Who works on a cohort's cases: processes of this computer. :mod:`medseg.bundles.many.ray_engine` has the
same for a cluster.

A worker gets one case at a time, so that its death costs the others nothing; and it ends when the process
that started it is gone.
"""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from medseg.bundles.worker import limit_memory
from medseg.errors import InputError, MedsegError

Run = Callable[[Mapping[str, Any]], dict[str, Any]]
"""A case as plain values -> its record."""

MOST_DEATHS_AT_THE_START = 3
"""In a row, before any worker was ready: then something is wrong with the installation, not with a case."""


class Task(Protocol):
    """What is done with each case; can be pickled. ``open``: a context that gives what does it, made once
    in each worker. MedsegError from it ends the whole run."""

    def open(self) -> AbstractContextManager[Run]: ...


@dataclass(frozen=True)
class Workers:
    """How many work, and what each may take: ``threads`` of the processor, ``memory_gb`` (None: no limit),
    a share of a GPU (0: whatever the task itself chooses). InputError for what cannot be."""

    count: int = 1
    threads: int = 1
    memory_gb: float | None = None
    gpus_each: float = 0.0

    def __post_init__(self):
        if self.count < 1 or self.threads < 1:
            raise InputError(f"`workers={self.count}`: expected at least 1, with at least 1 thread each.")
        if self.memory_gb is not None and not 0 < self.memory_gb < math.inf:
            raise InputError(f"`memory_gb={self.memory_gb:g}`: expected more than 0.")
        if not 0 <= self.gpus_each < math.inf:
            raise InputError(f"`gpus_per_worker={self.gpus_each:g}`: expected 0 or more.")


@dataclass(frozen=True)
class Died:
    """What came back of a case instead of a record: its worker's end."""

    why: str


class Engine(Protocol):
    """Workers by number. ``idle``: those that can be sent a case. ``wait``: (worker, the case's record or its
    end) of those that are through, at once or after ``seconds`` at the most; a dead worker is replaced.
    """

    def idle(self) -> list[int]: ...

    def send(self, worker: int, case: Mapping[str, Any]) -> None: ...

    def wait(self, seconds: float) -> list[tuple[int, dict[str, Any] | Died]]: ...

    def close(self) -> None: ...


class LocalEngine:
    """Processes of this computer, started afresh (not forked), each with a pipe to this one."""

    def __init__(self, task: Task, workers: Workers) -> None:
        self._task, self._workers = task, workers
        self._context = multiprocessing.get_context("spawn")
        self._all: dict[int, _Process] = {}
        self._next, self._failed_starts = 0, 0
        for _ in range(workers.count):
            self._start()

    def _start(self) -> None:
        number, self._next = self._next, self._next + 1
        places = [process.place for process in self._all.values()]
        place = next(n for n in range(self._workers.count) if n not in places)
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(there, self._task, self._workers, place), name=f"worker {place}", daemon=True
        )
        process.start()
        there.close()
        self._all[number] = _Process(process, here, place)

    def idle(self) -> list[int]:
        return [number for number, one in self._all.items() if one.ready and not one.busy]

    def send(self, worker: int, case: Mapping[str, Any]) -> None:
        one = self._all[worker]
        one.busy = True
        with suppress(OSError):  # it died just now: wait() says so
            one.pipe.send(dict(case))

    def wait(self, seconds: float) -> list[tuple[int, dict[str, Any] | Died]]:
        by_pipe = {one.pipe: number for number, one in self._all.items()}
        came: list[tuple[int, dict[str, Any] | Died]] = []
        for pipe in multiprocessing.connection.wait(list(by_pipe), seconds):
            number = by_pipe[pipe]
            one = self._all[number]
            try:
                kind, answer = pipe.recv()
            except (EOFError, OSError):
                came += self._buried(number, one)
                continue
            if kind == "refused":
                raise answer
            if kind == "ready":
                one.ready, self._failed_starts = True, 0
            else:
                one.busy = False
                came.append((number, answer))
        return came

    def _buried(self, number: int, one: _Process) -> list[tuple[int, Died]]:
        """Replace a dead worker; what became of its case, if it had one."""
        one.process.join(10)
        del self._all[number]
        one.pipe.close()
        why = _end_in_words(one.process.exitcode)
        if not one.ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_DEATHS_AT_THE_START * self._workers.count:
                raise MedsegError(f"workers die before they are ready ({why}); is there memory for them?")
        self._start()
        return [(number, Died(why))] if one.busy else []

    def pids(self) -> dict[int, int]:
        """{worker: its process's number}."""
        return {number: one.process.pid or 0 for number, one in self._all.items()}

    def close(self) -> None:
        """End all workers, those with a case at once; it leaves nothing but what is swept."""
        for one in self._all.values():
            one.pipe.close()
            if one.busy or not one.ready:
                one.process.kill()
        for one in self._all.values():
            one.process.join(10)
            one.process.kill()
            one.process.join(10)
        self._all.clear()


@dataclass
class _Process:
    process: Any
    pipe: Any
    place: int
    ready: bool = False
    busy: bool = False


def _end_in_words(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            hint = ", perhaps by the system for want of memory" if name == "SIGKILL" else ""
            return f"its worker was killed by {name}{hint}"
    return f"its worker ended with exit code {code}"


# ---- in the worker -----------------------------------------------------------------------------------------


def _serve(pipe: Any, task: Task, workers: Workers, place: int) -> None:
    """The worker's whole life: make ready once, then one case after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the starting process's, which ends this one
    threading.Thread(target=_end_with_the_parent, name="parent", daemon=True).start()
    prepare_process(workers, place)
    try:
        with task.open() as run:
            pipe.send(("ready", None))
            while True:
                case = pipe.recv()
                pipe.send(("done", answered(run, case)))
    except MedsegError as error:
        pipe.send(("refused", error))
    except (EOFError, OSError):
        pass  # nobody is there to answer


def prepare_process(workers: Workers, place: int) -> None:
    """Set what each worker may take, before numpy and torch are loaded where that is possible."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(workers.threads)
    if workers.gpus_each:
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        first, count = int(place * workers.gpus_each), max(1, round(workers.gpus_each))
        all_of_them = named.split(",") if named else [str(n) for n in range(first + count)]
        chosen = [all_of_them[n % len(all_of_them)] for n in range(first, first + count)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
    if workers.memory_gb is not None:
        limit_memory(int(workers.memory_gb * 2**30))


def answered(run: Run, case: Mapping[str, Any]) -> dict[str, Any]:
    """The case's record; what breaks the task itself is a record too, with medseg at fault."""
    began = time.perf_counter()
    try:
        return run(case)
    except (MedsegError, OSError) as error:
        fault, words = "input", str(error)
    except Exception as error:  # MemoryError among them; the next case is another one
        fault, words = "medseg", f"{type(error).__name__}: {error}"
    seconds = round(time.perf_counter() - began, 3)
    failed = {"status": "failed", "fault": fault, "error": " ".join(words.split())}
    return {"case": case.get("case", ""), **failed, "seconds": seconds}


def _end_with_the_parent() -> None:
    """Leave at once when the process that started this one is gone: another run may have the folder now."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
