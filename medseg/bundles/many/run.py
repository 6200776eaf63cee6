"""A run over many cases: the table of jobs, the workers, and what is told meanwhile.

Everything is in OUT/cohort.sqlite: which files there are, which cases, how each ended. A run that is killed
goes on where it was: cases that ended are not done again, those in flight are, and none is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.bundles.many.engine import Died, Engine, LocalEngine, Workers
from medseg.bundles.many.index import Index
from medseg.bundles.many.plan import Case, Verb, digest
from medseg.bundles.queue import Queue, QueuedJob
from medseg.bundles.worker import worker_name
from medseg.files import own_folder, sweep, write_json

DATABASE = "cohort.sqlite"
LEASE_S = 60.0
MOST_CASES = 10_000_000
STATUS_EVERY_S = 10.0
"""So often run.json is written while the run goes on."""

Report = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """How far a run is. ``total`` and ``ended`` count cases, ``total_bytes`` and ``ended_bytes`` their sizes:
    large cases go first, so time goes by bytes. ``before``: cases that an earlier run had finished."""

    total: int = 0
    total_bytes: int = 0
    ended: int = 0
    ended_bytes: int = 0
    failed: int = 0
    before: int = 0
    began: float = field(default_factory=time.monotonic)

    def count(self, record: dict[str, Any], size: int) -> None:
        self.ended += 1
        self.ended_bytes += max(size, 1)
        self.failed += record["status"] != "done"

    @property
    def cases_per_hour(self) -> float:
        return 3600 * self.ended / max(time.monotonic() - self.began, 1e-6)

    @property
    def remaining_s(self) -> float | None:
        """Expected seconds to the end; None before anything has ended."""
        if not self.ended_bytes:
            return None
        rate = self.ended_bytes / max(time.monotonic() - self.began, 1e-6)
        return (self.total_bytes - self.ended_bytes) / rate


def run_cohort(
    verb: Verb,
    workers: Workers,
    report: Report = lambda record: None,
    *,
    retry: bool = False,
    tell: Callable[[Progress], None] = lambda progress: None,
    start: Callable[[Verb, Workers], Engine] = LocalEngine,
) -> dict[str, Any]:
    """Do ``verb`` with every case; returns {"cases": records sorted by name, "passed_over", "seconds", …}.

    Failed cases are tried again at the next run, as those whose files changed; one that lost its worker three
    times is set aside and left, unless ``retry``. ``report`` gets the record of each case as it ends, and
    ``tell`` how far the run is. ``start``: makes the workers. InputError when another run has the folder, and
    for what concerns all cases.
    """
    asked = verb.record()
    with own_folder(verb.output_dir):
        database = verb.output_dir / DATABASE
        queue, index = Queue(database, durable=False), Index(database)
        began = time.monotonic()
        cases, notes = verb.cases(index.scan)
        found_s = round(time.monotonic() - began, 3)
        task = digest(verb.verb, asked)
        by_id, progress = _submitted(queue, cases, task, verb, retry)
        state = {"verb": verb.verb, **asked, "passed_over": notes, "found_in_s": found_s}
        state["files_opened"] = index.opened
        if progress.total:
            try:
                with closing(start(verb, workers)) as engine:
                    hear = _Told(verb.output_dir / "run.json", state, progress, report, tell)
                    drive(queue, engine, task, lambda job, record: hear(record, by_id[job.id].size))
            finally:
                sweep(verb.output_dir)
        records = list(_records(queue, by_id, task))
        seconds = round(time.monotonic() - began, 3)
        return {**state, "seconds": seconds, "newly_run": progress.ended, "cases": records}


def _submitted(
    queue: Queue, cases: Sequence[Case], task: str, verb: Verb, retry: bool
) -> tuple[dict[str, Case], Progress]:
    """({id of its job: case}, the progress to be made). Largest first."""
    for job in queue.jobs(state="running", limit=MOST_CASES):  # of a run that was killed: the folder is ours
        queue.give_back(job.id, str(job.worker))
    last = {job.key: job for job in reversed(queue.jobs(owner=task, limit=MOST_CASES))}
    by_id: dict[str, Case] = {}
    new: list[tuple[Case, str]] = []
    progress = Progress()
    for case in sorted(cases, key=lambda case: -case.size):
        key = digest(task, case.name, case.values, case.state)
        job = last.get(key)
        done = job is not None and job.state == "done"
        if job is not None and (done and verb.is_there(case) or job.state == "set aside" and not retry):
            by_id[job.id] = case
            progress.before += 1
            continue
        if job is not None and done:
            queue.remove(job.id)
        new.append((case, key))
    rows = [({**case.values, "bundle": task}, key, 0) for case, key in new]
    for start in range(0, len(rows), 1000):
        ids = queue.submit_all(rows[start : start + 1000], owner=task)
        by_id |= dict(zip(ids, (case for case, _ in new[start : start + 1000]), strict=True))
    for job in queue.jobs(state="waiting", limit=MOST_CASES):  # of other options, or of files that are gone
        if job.id not in by_id:
            queue.cancel(job.id)
    progress.total, progress.total_bytes = len(new), sum(max(case.size, 1) for case, _ in new)
    return by_id, progress


def drive(queue: Queue, engine: Engine, task: str, hear: Callable[[QueuedJob, dict[str, Any]], None]) -> None:
    """Hand the waiting jobs of ``task`` to the workers of ``engine``, one to each, until all have ended.

    A worker's death costs the case in its hands one of three attempts, and no other case anything. The leases
    are this process's: it holds them as long as it lives. When it ends early (Ctrl-C), jobs in hand are given
    back, and count as not begun.
    """
    me, held = worker_name(), {}
    beaten = time.monotonic()
    try:
        while True:
            for number in engine.idle():
                job = queue.claim(f"{me} {number}", LEASE_S, tasks=[task])
                if job is None:
                    break
                held[number] = job
                engine.send(number, job.payload)
            if not held and not queue.waits(task):
                return
            for number, answer in engine.wait(LEASE_S / 4):
                job = held.pop(number)
                record = _recorded(queue, job, answer)
                if record is not None:
                    hear(job, record)
            if time.monotonic() - beaten > LEASE_S / 4:
                for number, job in held.items():
                    queue.heartbeat(job.id, f"{me} {number}", LEASE_S)
                beaten = time.monotonic()
    finally:
        for job in held.values():
            queue.give_back(job.id, str(job.worker))


def _recorded(queue: Queue, job: QueuedJob, answer: dict[str, Any] | Died) -> dict[str, Any] | None:
    """Write how a job ended; its record, or None when it comes back."""
    worker = str(job.worker)
    if isinstance(answer, Died):
        queue.fail(job.id, worker, answer.why, retry=True)
        ended = queue.get(job.id)
        return None if ended.state == "waiting" else record_of(ended)
    if answer["status"] == "done":
        queue.finish(job.id, worker, answer)
        return answer
    if answer.get("fault") == "medseg":
        queue.fail(job.id, worker, str(answer["error"]), retry=True)
        return answer if queue.get(job.id).state != "waiting" else None
    queue.fail(job.id, worker, str(answer["error"]))
    return answer


def record_of(job: QueuedJob) -> dict[str, Any]:
    """The record of a job that has ended."""
    if job.state == "done":
        return dict(job.result or {})
    times = f"{job.attempts} times; the last: " if job.state == "set aside" else ""
    fault = "input" if job.state == "failed" else "medseg"
    error = f"{times}{job.reason}"
    return {"case": job.payload["case"], "status": job.state, "fault": fault, "error": error}


def _records(queue: Queue, by_id: dict[str, Case], task: str) -> Iterator[dict[str, Any]]:
    jobs = [job for job in queue.jobs(owner=task, limit=MOST_CASES) if job.id in by_id]
    for job in sorted(jobs, key=lambda job: job.payload["case"]):
        times = {"began": job.started_at, "ended": job.ended_at, "attempts": job.attempts}
        yield {**record_of(job), "bytes": by_id[job.id].size, **times}


class _Told:
    """Passes on what ended, and writes how far the run is into run.json every few seconds."""

    def __init__(
        self,
        file: Path,
        state: dict[str, Any],
        progress: Progress,
        report: Report,
        tell: Callable[[Progress], None],
    ) -> None:
        self.file, self.state, self.progress = file, state, progress
        self.report, self.tell = report, tell
        self.written = 0.0

    def __call__(self, record: dict[str, Any], size: int) -> None:
        self.progress.count(record, size)
        self.report(record)
        self.tell(self.progress)
        if time.monotonic() - self.written > STATUS_EVERY_S:
            self.written = time.monotonic()
            counts = {name: getattr(self.progress, name) for name in ("total", "ended", "failed", "before")}
            write_json({**self.state, "state": "running", "counts": counts}, self.file)
