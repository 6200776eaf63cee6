"""What the node holds: objects, their studies, and which associations are bringing more. The files are the
truth; this can be made anew from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medseg.bundles.queue_storage import SQLite
from medseg.serve.dicom_node.config import SeriesFacts

TABLES = (
    "CREATE TABLE IF NOT EXISTS objects (sop_uid TEXT PRIMARY KEY, study_uid TEXT NOT NULL, "
    "series_uid TEXT NOT NULL, received_at REAL NOT NULL)",
    "CREATE INDEX IF NOT EXISTS objects_study ON objects (study_uid, series_uid)",
    "CREATE TABLE IF NOT EXISTS series (series_uid TEXT NOT NULL, study_uid TEXT NOT NULL, modality TEXT, "
    "description TEXT, study_description TEXT, body_part TEXT, sender TEXT, "
    "PRIMARY KEY (study_uid, series_uid))",
    "CREATE TABLE IF NOT EXISTS studies (study_uid TEXT PRIMARY KEY, state TEXT NOT NULL, "
    "last_at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS open (association TEXT NOT NULL, study_uid TEXT NOT NULL, "
    "PRIMARY KEY (association, study_uid))",
    "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS answers (work TEXT PRIMARY KEY, study_uid TEXT NOT NULL, rule TEXT NOT NULL, "
    "job TEXT NOT NULL, state TEXT NOT NULL, reason TEXT, made_at REAL NOT NULL, results INTEGER)",
    "CREATE INDEX IF NOT EXISTS answers_study ON answers (study_uid)",
    "CREATE TABLE IF NOT EXISTS deliveries (work TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL, "
    "attempts INTEGER NOT NULL, next_at REAL NOT NULL, since REAL NOT NULL, error TEXT, "
    "PRIMARY KEY (work, target))",
)
"""Of objects, series, studies and associations here, of answers and deliveries in
:mod:`medseg.serve.dicom_node.answers`."""

RECEIVING, COMPLETE = "receiving", "complete"
COUNTERS = ("received", "duplicates", "rejected")
"""Beside these, ``refused_`` and a status, where some object was refused with it."""


@dataclass(frozen=True)
class Received:
    """One object that lies on the disk."""

    sop_uid: str
    study_uid: str
    series_uid: str
    modality: str
    description: str
    study_description: str
    body_part: str
    sender: str


def open_database(folder: Path) -> SQLite:
    """The node's database in its folder, made where there is none. After a power failure the receiver finds
    its objects by their files, and what was sent to a target may be sent again, under the same UIDs."""
    return SQLite(folder / "node.sqlite", TABLES, "node", durable=False)


class Index:
    """The objects received. Shared by receiver and dispatcher, each in its own process."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self.database, self.now = open_database(folder), now

    # ---- for the receiver ----------------------------------------------------------------------------------

    def study_of(self, sop_uid: str) -> str | None:
        """The study in which an object of that UID is held; None when it is not."""
        with self.database.transaction(writes=False) as execute:
            rows = execute("SELECT study_uid FROM objects WHERE sop_uid = ?", (sop_uid,))
        return rows[0][0] if rows else None

    def add(self, received: Received, association: str | None) -> bool:
        """Note an object that lies on the disk, and that this association is bringing the study. A complete
        study is open again. False, and it stays complete, when the object is known."""
        study, now = received.study_uid, self.now()
        with self.database.transaction() as execute:
            new = execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING sop_uid",
                (received.sop_uid, study, received.series_uid, now),
            )
            if new:
                execute(
                    "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (
                        received.series_uid,
                        study,
                        received.modality,
                        received.description,
                        received.study_description,
                        received.body_part,
                        received.sender,
                    ),
                )
                execute(
                    f"INSERT INTO studies VALUES (?, '{RECEIVING}', ?) ON CONFLICT (study_uid) DO UPDATE "
                    f"SET state = '{RECEIVING}', last_at = excluded.last_at",
                    (study, now),
                )
            else:  # sent again: it goes on with a study that is not complete, and changes nothing else
                execute(
                    f"UPDATE studies SET last_at = ? WHERE study_uid = ? AND state = '{RECEIVING}'",
                    (now, study),
                )
            if association is not None:
                execute("INSERT INTO open VALUES (?, ?) ON CONFLICT DO NOTHING", (association, study))
            _count(execute, "received" if new else "duplicates")
        return bool(new)

    def count(self, name: str) -> None:
        """Add one to a counter."""
        with self.database.transaction() as execute:
            _count(execute, name)

    def closed(self, association: str) -> None:
        """The association brings nothing more."""
        with self.database.transaction() as execute:
            execute("DELETE FROM open WHERE association = ?", (association,))

    def close_all(self) -> None:
        """No association is open: said by a receiver that begins, since a killed one could not."""
        with self.database.transaction() as execute:
            execute("DELETE FROM open")

    # ---- for the dispatcher --------------------------------------------------------------------------------

    def quiet(self, quiet_s: float) -> list[tuple[str, float]]:
        """(study, when its last object came) of those that nothing more comes of, oldest first."""
        with self.database.transaction(writes=False) as execute:
            return execute(
                f"SELECT study_uid, last_at FROM studies WHERE state = '{RECEIVING}' AND last_at <= ? "
                "AND study_uid NOT IN (SELECT study_uid FROM open) ORDER BY last_at",
                (self.now() - quiet_s,),
            )

    def complete(self, study_uid: str, last_at: float) -> bool:
        """The study is complete, unless another object has come since ``last_at``."""
        with self.database.transaction() as execute:
            return bool(
                execute(
                    f"UPDATE studies SET state = '{COMPLETE}' WHERE study_uid = ? AND last_at = ? "
                    "RETURNING study_uid",
                    (study_uid, last_at),
                )
            )

    def series(self, study_uid: str) -> list[SeriesFacts]:
        """The study's series as rules see them, in the order of their UIDs."""
        with self.database.transaction(writes=False) as execute:
            rows = execute(
                "SELECT s.series_uid, modality, description, study_description, body_part, sender, COUNT(*) "
                "FROM series s JOIN objects o ON o.study_uid = s.study_uid AND o.series_uid = s.series_uid "
                "WHERE s.study_uid = ? GROUP BY s.series_uid ORDER BY s.series_uid",
                (study_uid,),
            )
        return [SeriesFacts(*row) for row in rows]

    def objects(self, study_uid: str, series_uid: str) -> list[str]:
        """SOP Instance UIDs of a series, sorted."""
        with self.database.transaction(writes=False) as execute:
            rows = execute(
                "SELECT sop_uid FROM objects WHERE study_uid = ? AND series_uid = ? ORDER BY sop_uid",
                (study_uid, series_uid),
            )
        return [row[0] for row in rows]

    def older(self, days: float) -> list[str]:
        """Complete studies whose last object came more than ``days`` ago."""
        with self.database.transaction(writes=False) as execute:
            rows = execute(
                f"SELECT study_uid FROM studies WHERE state = '{COMPLETE}' AND last_at < ?",
                (self.now() - days * 86400,),
            )
        return [row[0] for row in rows]

    def forget(self, study_uid: str) -> None:
        """Remove all rows of a study whose files have gone."""
        with self.database.transaction() as execute:
            works = "(SELECT work FROM answers WHERE study_uid = ?)"
            execute(f"DELETE FROM deliveries WHERE work IN {works}", (study_uid,))
            for table in ("answers", "objects", "series", "studies", "open"):
                execute(f"DELETE FROM {table} WHERE study_uid = ?", (study_uid,))

    def figures(self) -> dict[str, int]:
        """Counters, and how many studies are in which state and associations bring something."""
        with self.database.transaction(writes=False) as execute:
            found = dict.fromkeys(COUNTERS, 0) | dict(execute("SELECT name, value FROM counters"))
            states = dict(execute("SELECT state, COUNT(*) FROM studies GROUP BY state"))
            ((busy,),) = execute("SELECT COUNT(DISTINCT association) FROM open")
        return (
            found
            | {f"studies_{name}": states.get(name, 0) for name in (RECEIVING, COMPLETE)}
            | {"open": busy}
        )


def _count(execute, name: str) -> None:
    execute("INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (name,))
