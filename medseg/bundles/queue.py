"""Jobs that wait for a worker, in one table: a killed worker's job comes back, none is lost or done twice.

The table lies in an SQLite file or a PostgreSQL database (:mod:`medseg.bundles.queue_storage`). Loads neither
torch nor pydicom, so that a web application or a DICOM node can use it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from medseg.bundles.queue_storage import Execute, open_storage
from medseg.errors import InputError

MOST_ATTEMPTS = 3
"""So often a job is begun; when its worker is lost the last time too, it is set aside for a person."""

STATES = ("waiting", "running", "done", "failed", "cancelled", "set aside")
LAST_FINISHED = 20
"""Over so many jobs the expected wait takes the mean duration."""


class UnknownJob(InputError):
    """There is no job of that id."""


@dataclass(frozen=True)
class QueuedJob:
    """One row of the table. Times are UTC seconds. ``state``: one of :data:`STATES`. ``task``: which workers
    may claim it, for a contouring job its bundle. ``attempts``: how often it was begun. ``progress``: 0 to 1,
    None unless the worker says. ``reason``: why it failed, comes back or was set aside. ``lease_until``: its
    worker has it until then, also a cancelled one that the worker has not let go of yet; None: nobody has it.
    """

    id: str
    owner: str
    key: str | None
    task: str
    payload: dict[str, Any]
    state: str
    priority: int
    attempts: int
    worker: str | None
    progress: float | None
    note: str
    reason: str | None
    result: dict[str, Any] | None
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    lease_until: float | None


_COLUMNS = ", ".join(field.name for field in fields(QueuedJob))
_JSON = ("payload", "result")
_PUT = (
    "INSERT INTO medseg_jobs (id, owner, key, task, payload, state, priority, attempts, note, submitted_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id"
)
_SAME_KEY = "SELECT id FROM medseg_jobs WHERE key = ? AND state IN ('waiting', 'running', 'done')"
_WAITS = "SELECT 1 FROM medseg_jobs WHERE state = 'waiting' AND task = ? LIMIT 1"
_OLD = (
    f"SELECT {_COLUMNS} FROM medseg_jobs WHERE ended_at < ? AND (lease_until IS NULL OR lease_until < ?) "
    "ORDER BY number"
)
_CLAIM = (
    "UPDATE medseg_jobs SET state = 'running', worker = ?, attempts = attempts + 1, started_at = ?, "
    "lease_until = ?, progress = NULL, note = '' WHERE number = (SELECT number FROM medseg_jobs "
    f"WHERE state = 'waiting'%s ORDER BY priority DESC, number LIMIT 1 %s) RETURNING {_COLUMNS}"
)


def _job(row: Sequence[Any]) -> QueuedJob:
    values = {field.name: value for field, value in zip(fields(QueuedJob), row, strict=True)}
    return QueuedJob(**values | {name: json.loads(values[name] or "null") for name in _JSON})


class Queue:
    """The table of jobs at ``url``: the path of an SQLite file, made where there is none, or
    ``postgresql://…``. One object may be used by several threads, and after a fork.

    Times come from ``now``, a function that returns UTC seconds; clocks of several hosts must agree to much
    less than a lease. InputError when the database cannot be opened, or psycopg is missing for PostgreSQL.
    ``durable``: false for who can tell from the results themselves what a power failure took off the end of
    an SQLite file; it spares a flush of the disk for each change.
    """

    def __init__(self, url: str | Path, now: Callable[[], float] = time.time, durable: bool = True) -> None:
        self.storage = open_storage(str(url), durable)
        self.now = now

    # ---- putting in and looking ----------------------------------------------------------------------------

    def submit(
        self, payload: Mapping[str, Any], *, owner: str = "", key: str | None = None, priority: int = 0
    ) -> str:
        """Put a job in; returns its id. Higher priorities run first, then older jobs.

        While a job with the same ``key`` is waiting, running or done, its id is given back and nothing is put
        in. ``payload``: plain values; its "bundle", where it has one, is the job's task. ValueError for what
        JSON cannot hold.
        """
        return self.submit_all([(payload, key, priority)], owner=owner)[0]

    def submit_all(
        self, jobs: Sequence[tuple[Mapping[str, Any], str | None, int]], *, owner: str = ""
    ) -> list[str]:
        """The ids of many jobs (payload, key, priority), put in as :meth:`submit` does, all or none."""
        now, ids = self.now(), []
        with self.storage.transaction() as execute:
            for payload, key, priority in jobs:
                text, task = json.dumps(payload, allow_nan=False), str(payload.get("bundle", ""))
                row = (uuid.uuid4().hex, owner, key, task, text, "waiting", priority, 0, "", now)
                put = None
                while not put:  # the other one may end between the two statements, which PostgreSQL allows
                    put = execute(_PUT, row) or execute(_SAME_KEY, (key,))
                ids.append(put[0][0])
        return ids

    def get(self, id: str) -> QueuedJob:
        """The job as it is now. UnknownJob when there is none of that id."""
        with self.storage.transaction(writes=False) as execute:
            return _get(execute, id)

    def jobs(
        self, *, owner: str | None = None, state: str | None = None, limit: int = 100
    ) -> list[QueuedJob]:
        """The newest ``limit`` jobs, of one owner or in one state where these are given."""
        wanted = {"owner": owner, "state": state}
        conditions = [f"{name} = ?" for name, value in wanted.items() if value is not None] or ["1 = 1"]
        values = [value for value in wanted.values() if value is not None]
        with self.storage.transaction(writes=False) as execute:
            rows = execute(
                f"SELECT {_COLUMNS} FROM medseg_jobs WHERE {' AND '.join(conditions)} "
                "ORDER BY number DESC LIMIT ?",
                (*values, limit),
            )
        return [_job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """{state: how many jobs}, with 0 where there is none."""
        with self.storage.transaction(writes=False) as execute:
            found = dict(execute("SELECT state, COUNT(*) FROM medseg_jobs GROUP BY state"))
        return {state: found.get(state, 0) for state in STATES}

    def waits(self, task: str) -> bool:
        """True while a job of ``task`` waits to be claimed."""
        with self.storage.transaction(writes=False) as execute:
            return bool(execute(_WAITS, (task,)))

    def position(self, id: str) -> int:
        """1: the next to run; 0: running or ended. UnknownJob."""
        with self.storage.transaction(writes=False) as execute:
            return _position(execute, id)

    def expected_wait_s(self, id: str) -> float | None:
        """Seconds until the job will probably begin: those ahead of it times the mean duration of the last 20
        that were done, over the workers that are busy now. 0 when it runs or has ended, None while no job was
        done yet. UnknownJob."""
        with self.storage.transaction(writes=False) as execute:
            return _expected_wait_s(execute, id)

    # ---- for workers ---------------------------------------------------------------------------------------

    def claim(
        self, worker: str, lease_s: float = 60.0, tasks: Sequence[str] | None = None
    ) -> QueuedJob | None:
        """The next job, from now on ``worker``'s for ``lease_s`` seconds; None when none waits.

        ``worker``: a name that no other process has. ``tasks``: only jobs of these. Jobs whose lease has run
        out come back first, see :meth:`take_back`.
        """
        now = self.now()
        chosen = "" if tasks is None else f" AND task IN ({', '.join('?' * len(tasks)) or 'NULL'})"
        with self.storage.transaction() as execute:
            _take_back(execute, now)
            rows = execute(
                _CLAIM % (chosen, self.storage.locking), (worker, now, now + lease_s, *(tasks or ()))
            )
        return _job(rows[0]) if rows else None

    def heartbeat(
        self, id: str, worker: str, lease_s: float = 60.0, progress: float | None = None, note: str = ""
    ) -> bool:
        """Hold a job for ``lease_s`` seconds more and say how far it is. False: it was cancelled or is no
        longer this worker's; stop working, and :meth:`let_go`."""
        change = "lease_until = ?, progress = COALESCE(?, progress), note = ?"
        return self._mine(id, worker, change, (self.now() + lease_s, progress, note))

    def finish(self, id: str, worker: str, result: Mapping[str, Any]) -> bool:
        """The job is done; ``result``: small, what came out and where. False, and nothing is recorded, when
        it is no longer this worker's."""
        text = json.dumps(result, allow_nan=False)
        change = "state = 'done', result = ?, reason = NULL, progress = 1, lease_until = NULL, ended_at = ?"
        return self._mine(id, worker, change, (text, self.now()))

    def fail(self, id: str, worker: str, reason: str, retry: bool = False) -> bool:
        """The job failed for ``reason``. An input's fault is final; with ``retry`` it waits again, and after
        three attempts is set aside. False when it is no longer this worker's."""
        if not retry:
            change = "state = 'failed', reason = ?, lease_until = NULL, ended_at = ?"
            return self._mine(id, worker, change, (reason, self.now()))
        last = f"attempts >= {MOST_ATTEMPTS}"
        return self._mine(
            id,
            worker,
            f"state = CASE WHEN {last} THEN 'set aside' ELSE 'waiting' END, "
            f"ended_at = CASE WHEN {last} THEN CAST(? AS DOUBLE PRECISION) END, reason = ?, "
            "lease_until = NULL",
            (self.now(), reason),
        )

    def give_back(self, id: str, worker: str) -> bool:
        """Let a job wait again that the worker leaves because it is stopped itself; counts as no attempt."""
        change = "state = 'waiting', attempts = attempts - 1, lease_until = NULL, worker = NULL"
        return self._mine(id, worker, change, ())

    def let_go(self, id: str, worker: str) -> None:
        """Say that this worker no longer touches a job that was cancelled; it may be removed then."""
        self._mine(id, worker, "lease_until = NULL", (), state="cancelled")

    def take_back(self) -> None:
        """Let jobs whose lease has run out wait again, and set those aside that lost their worker three
        times. :meth:`claim` does it by itself."""
        with self.storage.transaction() as execute:
            _take_back(execute, self.now())

    # ---- ending and removing -------------------------------------------------------------------------------

    def cancel(self, id: str) -> bool:
        """Cancel a job that waits or runs; the next heartbeat tells its worker. False when it has ended
        already. UnknownJob."""
        with self.storage.transaction() as execute:
            done = execute(
                "UPDATE medseg_jobs SET state = 'cancelled', ended_at = ? WHERE id = ? "
                "AND state IN ('waiting', 'running') RETURNING id",
                (self.now(), id),
            )
            if not done:
                _get(execute, id)
        return bool(done)

    def remove(self, id: str) -> None:
        """Remove a job's row; its files are the caller's, who deletes them first. InputError while a worker
        has it: cancel it and ask again. UnknownJob."""
        with self.storage.transaction() as execute:
            gone = execute(
                "DELETE FROM medseg_jobs WHERE id = ? AND state <> 'running' "
                "AND (lease_until IS NULL OR lease_until < ?) RETURNING id",
                (id, self.now()),
            )
            if not gone:
                job = _get(execute, id)
                raise InputError(f"job {id} is {job.state} and its worker has it still; cancel it and wait.")

    def remove_older(
        self, days: float, each: Callable[[QueuedJob], None] = lambda job: None
    ) -> list[QueuedJob]:
        """Remove the jobs that ended more than ``days`` ago; returns them.

        ``each`` is called for a job before its row goes, to delete its files: what it raises ends the removal
        and the row stays, so that no file is left without a row.
        """
        before = self.now() - days * 86400
        with self.storage.transaction() as execute:
            old = [_job(row) for row in execute(_OLD, (before, self.now()))]
        for job in old:
            each(job)
            self.remove(job.id)
        return old

    def _mine(self, id: str, worker: str, change: str, values: Sequence[Any], state: str = "running") -> bool:
        """Change a job in this state if it is that worker's; True when it was."""
        mine = f"UPDATE medseg_jobs SET {change} WHERE id = ? AND worker = ? AND state = ? RETURNING id"
        with self.storage.transaction() as execute:
            return bool(execute(mine, (*values, id, worker, state)))


# ---- within a transaction ----------------------------------------------------------------------------------


def _get(execute: Execute, id: str) -> QueuedJob:
    rows = execute(f"SELECT {_COLUMNS} FROM medseg_jobs WHERE id = ?", (id,))
    if not rows:
        raise UnknownJob(f"no job {id[:40]!r}; it was removed, or never was.")
    return _job(rows[0])


def _position(execute: Execute, id: str) -> int:
    job = _get(execute, id)
    if job.state != "waiting":
        return 0
    ((ahead,),) = execute(
        "SELECT COUNT(*) FROM medseg_jobs WHERE state = 'waiting' AND (priority > ? OR (priority = ? "
        "AND number < (SELECT number FROM medseg_jobs WHERE id = ?)))",
        (job.priority, job.priority, id),
    )
    return ahead + 1


def _expected_wait_s(execute: Execute, id: str) -> float | None:
    position = _position(execute, id)
    ((mean_s,),) = execute(
        "SELECT AVG(ended_at - started_at) FROM (SELECT ended_at, started_at FROM medseg_jobs "
        "WHERE state = 'done' ORDER BY ended_at DESC LIMIT ?) AS last",
        (LAST_FINISHED,),
    )
    ((busy,),) = execute("SELECT COUNT(DISTINCT worker) FROM medseg_jobs WHERE state = 'running'")
    if position == 0:
        return 0.0
    # A busy worker is on average half through its job.
    ahead = position - 1 + (0.5 if busy else 0)
    return None if mean_s is None else float(mean_s) * ahead / max(busy, 1)


def _take_back(execute: Execute, now: float) -> None:
    lapsed = "state = 'running' AND lease_until < ?"
    execute(
        "UPDATE medseg_jobs SET state = 'set aside', ended_at = ?, lease_until = NULL, reason = "
        "'its worker was lost ' || attempts || ' times, the last one ' || worker || ' at: ' || "
        f"COALESCE(NULLIF(note, ''), 'its beginning') WHERE {lapsed} AND attempts >= ? RETURNING id",
        (now, now, MOST_ATTEMPTS),
    )
    execute(
        "UPDATE medseg_jobs SET state = 'waiting', lease_until = NULL, "
        f"reason = 'its worker ' || worker || ' was lost' WHERE {lapsed} RETURNING id",
        (now,),
    )
