"""Where the table of jobs lies: an SQLite file, or a PostgreSQL database that several hosts share."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from medseg.errors import InputError

Execute = Callable[..., list]
"""(statement with ? for values, values) -> rows."""

BUSY_S = 30.0
"""So long a statement waits for another process's before it is an error."""

_TABLE = """
CREATE TABLE IF NOT EXISTS medseg_jobs (
    number {serial},
    id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, key TEXT, task TEXT NOT NULL, payload TEXT NOT NULL,
    state TEXT NOT NULL, priority INTEGER NOT NULL, attempts INTEGER NOT NULL, worker TEXT,
    progress DOUBLE PRECISION, note TEXT NOT NULL, reason TEXT, result TEXT,
    submitted_at DOUBLE PRECISION NOT NULL, started_at DOUBLE PRECISION, ended_at DOUBLE PRECISION,
    lease_until DOUBLE PRECISION
)""".strip()
_INDICES = (
    "CREATE UNIQUE INDEX IF NOT EXISTS medseg_jobs_key ON medseg_jobs (key) "
    "WHERE key IS NOT NULL AND state IN ('waiting', 'running', 'done')",
    "CREATE INDEX IF NOT EXISTS medseg_jobs_next ON medseg_jobs (state, priority DESC, number)",
    "CREATE INDEX IF NOT EXISTS medseg_jobs_ended ON medseg_jobs (ended_at)",
)


class Storage(Protocol):
    """A database with the table. ``locking``: what a SELECT needs so that two claims do not meet on one
    row."""

    locking: str

    def transaction(self, writes: bool = True) -> Any:
        """A context that gives an :data:`Execute`; all of it takes place, or nothing when it raises."""


def open_storage(url: str, durable: bool = True) -> Storage:
    """The storage at a path or a ``postgresql://`` URL; makes the table where there is none. ``durable``: see
    :class:`SQLite`; PostgreSQL is as its server is set up. InputError."""
    if url.startswith(("postgresql://", "postgres://")):
        return _PostgreSQL(url)
    if "://" in url:
        raise InputError(f"queue {url.split('://')[0]}://…: expected the path of a file, or postgresql://….")
    table = _TABLE.format(serial="INTEGER PRIMARY KEY AUTOINCREMENT")
    return SQLite(Path(url), (table, *_INDICES), "queue", durable)


class _Connections:
    """A connection for each thread, opened again after a fork: neither library's may be shared so."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect, self._own = connect, threading.local()
        self._parents: list[Any] = []

    def get(self) -> Any:
        process, connection = getattr(self._own, "held", (0, None))
        if process == os.getpid():
            return connection
        if connection is not None:  # closing the parent's would end the parent's locks
            self._parents.append(connection)
        connection = self._connect()
        self._own.held = os.getpid(), connection
        return connection

    def drop(self) -> None:
        """Close this thread's connection; the next use opens another."""
        _, connection = getattr(self._own, "held", (0, None))
        self._own.held = 0, None
        if connection is not None:
            with suppress(Exception):  # it is broken already
                connection.close()


class SQLite:
    """A database in a file, for several threads and processes of one host; ``statements`` make its tables
    where they are not there yet. InputError, which calls it ``what``, when it cannot be opened.

    WAL: readers do not wait for the writer. A transaction that writes begins IMMEDIATE, so that none finds
    out at its second statement that another was faster. Not ``durable``: the last ones before a power failure
    may be lost, never those before a kill; it spares a flush of the disk for each.
    """

    locking = ""

    def __init__(self, path: Path, statements: Sequence[str], what: str, durable: bool = True) -> None:
        self.path, self.durable = path, durable
        self.connections = _Connections(self._connect)
        try:
            with self.transaction() as execute:
                for statement in statements:
                    execute(statement)
        except sqlite3.Error as error:
            raise InputError(
                f"{what} {path}: {error}; expected an SQLite file in a folder that exists."
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        deadline = time.monotonic() + BUSY_S
        while True:  # the change to WAL does not wait for other processes by itself
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}")
                return connection
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextmanager
    def transaction(self, writes: bool = True) -> Iterator[Execute]:
        connection = self.connections.get()
        connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            yield lambda statement, values=(): connection.execute(statement, values).fetchall()
            connection.execute("COMMIT")  # on a full disk it fails, and the transaction is still open
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


class _PostgreSQL:
    """The password in the URL is never part of a message."""

    locking = "FOR UPDATE SKIP LOCKED"

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise InputError("a queue in PostgreSQL needs psycopg: pip install 'medseg[serve]'.") from None
        self._psycopg = psycopg
        self.connections = _Connections(lambda: psycopg.connect(url, connect_timeout=int(BUSY_S)))
        try:
            with self.transaction() as execute:
                execute("SELECT pg_advisory_xact_lock(5262713)")  # two processes that make the table at once
                execute(_TABLE.format(serial="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"))
                for index in _INDICES:
                    execute(index)
        except psycopg.Error as error:
            place = url.rpartition("@")[2].partition("?")[0]
            reason = type(error).__name__
            raise InputError(
                f"queue in PostgreSQL at {place}: {reason}; is it running, may we in?"
            ) from error

    @contextmanager
    def transaction(self, writes: bool = True) -> Iterator[Execute]:
        connection = self.connections.get()

        def execute(statement: str, values: Sequence[Any] = ()) -> list:
            cursor = connection.execute(statement.replace("?", "%s"), values)
            return cursor.fetchall() if cursor.description else []

        try:
            with connection.transaction():
                yield execute
        except self._psycopg.OperationalError:
            self.connections.drop()  # the server went away; the next call looks for it again
            raise
