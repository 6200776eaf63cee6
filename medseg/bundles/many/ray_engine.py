"""Workers on a Ray cluster, or on one that is started for the run: actors, each with one case in flight.

Tasks that are queued ahead on an actor die with it, so none is. Needs the extra ``medseg[ray]``; every node
has medseg, and sees the input and the output folder under the same paths.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from medseg.bundles.many.engine import (
    MOST_DEATHS_AT_THE_START,
    Died,
    Task,
    Workers,
    answered,
    prepare_process,
)
from medseg.errors import InputError, MedsegError

LOCAL = "local"


class RayEngine:
    """See :class:`medseg.bundles.many.engine.Engine`. ``address``: of a cluster that runs ("auto",
    "ray://host:10001"), or "local" for one on this computer that ends with the run. InputError when ray is
    not installed or the cluster does not answer."""

    def __init__(self, task: Task, workers: Workers, address: str = LOCAL) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise InputError("ray is not installed: pip install 'medseg[ray]'.") from None
        self._ray, self._task, self._workers = ray, task, workers
        here = {"num_cpus": workers.count} if address == LOCAL else {"address": address}
        try:
            ray.init(**here, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"no Ray cluster at {address!r}: {reason}") from error
        # A cluster whose nodes count threads gives each worker as many as it may take.
        each = 1 if address == LOCAL else workers.threads
        options = {"num_cpus": each, "num_gpus": workers.gpus_each, "max_restarts": 0}
        self._actor = ray.remote(**options)(_Actor)
        self._actors: dict[int, Any] = {}
        self._futures: dict[Any, tuple[int, bool]] = {}
        self._ready: set[int] = set()
        self._next, self._failed_starts = 0, 0
        for _ in range(workers.count):
            self._start()

    def _start(self) -> None:
        number, self._next = self._next, self._next + 1
        actor = self._actor.remote(self._task, self._workers)
        self._actors[number] = actor
        self._futures[actor.ready.remote()] = number, False

    def idle(self) -> list[int]:
        busy = {number for number, _ in self._futures.values()}
        return [number for number in self._actors if number in self._ready and number not in busy]

    def send(self, worker: int, case: Mapping[str, Any]) -> None:
        self._futures[self._actors[worker].run.remote(dict(case))] = worker, True

    def wait(self, seconds: float) -> list[tuple[int, dict[str, Any] | Died]]:
        if not self._futures:
            time.sleep(min(seconds, 0.05))
            return []
        through, _ = self._ray.wait(list(self._futures), num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(list(self._futures), num_returns=len(self._futures), timeout=0)
        came: list[tuple[int, dict[str, Any] | Died]] = []
        for future in dict.fromkeys([*through, *more]):
            number, had_a_case = self._futures.pop(future)
            try:
                answer = self._ray.get(future)
            except self._ray.exceptions.RayActorError as error:
                came += self._replaced(number, had_a_case, " ".join(str(error).split())[:200])
                continue
            if isinstance(answer, MedsegError):
                raise answer
            if had_a_case:
                came.append((number, answer))
            else:
                self._ready.add(number)
                self._failed_starts = 0
        return came

    def _replaced(self, number: int, had_a_case: bool, why: str) -> list[tuple[int, Died]]:
        del self._actors[number]
        if number not in self._ready:
            self._failed_starts += 1
            if self._failed_starts >= MOST_DEATHS_AT_THE_START * self._workers.count:
                raise MedsegError(f"workers die before they are ready ({why}); is there memory for them?")
        self._ready.discard(number)
        self._start()
        return [(number, Died(f"its worker was lost: {why}"))] if had_a_case else []

    def pids(self) -> dict[int, int]:
        """{worker: its process's number on its node} of those that are idle."""
        return {number: self._ray.get(self._actors[number].pid.remote()) for number in self.idle()}

    def close(self) -> None:
        for number, actor in self._actors.items():
            with suppress(self._ray.exceptions.RayError):
                if number in self.idle():
                    self._ray.get(actor.end.remote(), timeout=10)
                self._ray.kill(actor)
        self._ray.shutdown()


class _Actor:
    """A worker: makes ready once, then does a case at each call."""

    def __init__(self, task: Task, workers: Workers) -> None:
        prepare_process(Workers(workers.count, workers.threads, workers.memory_gb), 0)  # Ray hands out GPUs
        self._task, self._context, self._run = task, None, None

    def ready(self) -> MedsegError | None:
        """Make ready; the error that ends the whole run, if there is one."""
        try:
            self._context = self._task.open()
            self._run = self._context.__enter__()
        except MedsegError as error:
            return error
        return None

    def run(self, case: Mapping[str, Any]) -> dict[str, Any]:
        assert self._run is not None  # ready() has answered before
        return answered(self._run, case)

    def pid(self) -> int:
        return os.getpid()

    def end(self) -> None:
        if self._context is not None:
            self._context.__exit__(None, None, None)
