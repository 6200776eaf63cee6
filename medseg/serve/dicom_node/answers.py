"""What became of complete studies: a job for each rule that means them, and where its results still have to
go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.serve.dicom_node.index import open_database

WAITING, CONTOURED, FAILED, SUPERSEDED = "waiting", "contoured", "failed", "superseded"
"""States of an answer: its job waits or runs; results are there; none are, ``reason`` says why; more of the
study came before it was done."""

DUE, SENT, GIVEN_UP = "due", "sent", "given up"
"""States of a delivery."""


@dataclass(frozen=True)
class Answer:
    """A job made for a study. ``work``: the name of its folder, made of what went in."""

    work: str
    study_uid: str
    rule: str
    job: str
    state: str
    reason: str | None
    made_at: float
    results: int | None


@dataclass(frozen=True)
class Delivery:
    """Results of a job on their way to one target. ``next_at``: not before then. ``since``: when they were
    ready."""

    work: str
    target: str
    state: str
    attempts: int
    next_at: float
    since: float
    error: str | None


_ANSWER = "work, study_uid, rule, job, state, reason, made_at, results"
_DELIVERY = "work, target, state, attempts, next_at, since, error"


class Answers:
    """The tables of answers and deliveries, in the database of :mod:`medseg.serve.dicom_node.index`."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self.database, self.now = open_database(folder), now

    def begin(self, answer: Answer) -> bool:
        """Note a job; False when it is noted already."""
        with self.database.transaction() as execute:
            return bool(
                execute(
                    f"INSERT INTO answers ({_ANSWER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING "
                    "RETURNING work",
                    tuple(vars(answer).values()),
                )
            )

    def all(self, state: str | None = None, study_uid: str | None = None, limit: int = -1) -> list[Answer]:
        """The newest first; of one state or study where these are given."""
        wanted = {"state": state, "study_uid": study_uid}
        where = " AND ".join(["1 = 1", *(f"{k} = ?" for k, value in wanted.items() if value is not None)])
        values = [value for value in wanted.values() if value is not None]
        with self.database.transaction(writes=False) as execute:
            rows = execute(
                f"SELECT {_ANSWER} FROM answers WHERE {where} ORDER BY made_at DESC, work LIMIT ?",
                (*values, limit),
            )
        return [Answer(*row) for row in rows]

    def get(self, work: str) -> Answer:
        """The answer whose work has this name. LookupError when there is none."""
        with self.database.transaction(writes=False) as execute:
            return Answer(*execute(f"SELECT {_ANSWER} FROM answers WHERE work = ?", (work,))[0])

    def supersede(self, answer: Answer) -> None:
        """More of the study came: what was made of the part is no longer sent."""
        with self.database.transaction() as execute:
            execute("UPDATE answers SET state = ? WHERE work = ?", (SUPERSEDED, answer.work))
            execute("DELETE FROM deliveries WHERE work = ? AND state = ?", (answer.work, DUE))

    def failed(self, answer: Answer, reason: str) -> None:
        """There is no result."""
        with self.database.transaction() as execute:
            execute(
                "UPDATE answers SET state = ?, reason = ? WHERE work = ? AND state = ?",
                (FAILED, reason, answer.work, WAITING),
            )

    def contoured(self, answer: Answer, results: int, targets: Sequence[str]) -> None:
        """There are results, so many files, due at these targets."""
        now = self.now()
        with self.database.transaction() as execute:
            execute(
                "UPDATE answers SET state = ?, results = ? WHERE work = ?", (CONTOURED, results, answer.work)
            )
            for target in targets if results else ():
                execute(
                    f"INSERT INTO deliveries ({_DELIVERY}) VALUES (?, ?, ?, 0, ?, ?, NULL) "
                    "ON CONFLICT DO NOTHING",
                    (answer.work, target, DUE, now, now),
                )

    def due(self) -> list[Delivery]:
        """Deliveries whose time has come, the oldest first."""
        with self.database.transaction(writes=False) as execute:
            rows = execute(
                f"SELECT {_DELIVERY} FROM deliveries WHERE state = ? AND next_at <= ? ORDER BY since",
                (DUE, self.now()),
            )
        return [Delivery(*row) for row in rows]

    def deliveries(self, work: str) -> list[Delivery]:
        """Those of one job, by target."""
        with self.database.transaction(writes=False) as execute:
            rows = execute(f"SELECT {_DELIVERY} FROM deliveries WHERE work = ? ORDER BY target", (work,))
        return [Delivery(*row) for row in rows]

    def record(self, delivery: Delivery) -> None:
        """How an attempt ended."""
        with self.database.transaction() as execute:
            execute(
                "UPDATE deliveries SET state = ?, attempts = ?, next_at = ?, error = ? "
                "WHERE work = ? AND target = ?",
                (
                    delivery.state,
                    delivery.attempts,
                    delivery.next_at,
                    delivery.error,
                    delivery.work,
                    delivery.target,
                ),
            )

    def figures(self) -> dict[str, float]:
        """How many answers and deliveries are in which state, and for how long the oldest is due."""
        with self.database.transaction(writes=False) as execute:
            answers = dict(execute("SELECT state, COUNT(*) FROM answers GROUP BY state"))
            deliveries = dict(execute("SELECT state, COUNT(*) FROM deliveries GROUP BY state"))
            ((oldest,),) = execute("SELECT MIN(since) FROM deliveries WHERE state = ?", (DUE,))
        found = {
            f"answers_{state}": answers.get(state, 0) for state in (WAITING, CONTOURED, FAILED, SUPERSEDED)
        }
        found |= {f"deliveries_{state}": deliveries.get(state, 0) for state in (DUE, SENT, GIVEN_UP)}
        return found | {"oldest_due_s": 0.0 if oldest is None else max(self.now() - oldest, 0.0)}
