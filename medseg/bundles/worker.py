"""A process that takes contouring jobs from a queue, one at a time: ``python -m medseg.bundles.worker QUEUE
--bundles NAME,…``.

Each job runs as ``medseg segment`` would run it; a network is loaded once and kept.
"""

from __future__ import annotations

import _thread
import argparse
import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from medseg.bundles.queue import Queue, QueuedJob
from medseg.bundles.request import request_of
from medseg.errors import InputError, MedsegError, system_error_line

if TYPE_CHECKING:
    from medseg.bundles.job import Networks

LEASE_S = 60.0
"""A worker that is silent for so long is taken for dead."""

LOG = logging.getLogger("medseg.worker")


class Stop(Protocol):
    """A threading or multiprocessing Event, or anything like it."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float) -> bool: ...


def work(
    queue: Queue,
    *,
    bundles: Sequence[str],
    stop: Stop,
    poll_s: float = 0.5,
    lease_s: float = LEASE_S,
) -> int:
    """Run jobs whose bundle is one of ``bundles``, by name or folder as the jobs name it, until ``stop`` is
    set; the job in hand is done first. Returns how many were run.

    A job ends as done when any of its cases was contoured, with ``{"cases": …, "passed_over": …}`` of the
    cohort's run.json as its result; as failed when all of them failed by their input's fault. After any other
    fault it comes back. A cancelled job is left at once when this runs in a process's main thread, else at
    its end. KeyboardInterrupt gives the job in hand back. InputError for a bundle that may not run.
    """
    from medseg.bundles.job import Networks
    from medseg.bundles.trust import trusted_bundle

    for bundle in bundles:
        trusted_bundle(bundle)
    networks, name, count = Networks(), worker_name(), 0
    while not stop.is_set():
        job = queue.claim(name, lease_s, tasks=bundles)
        if job is None:
            stop.wait(poll_s)
            continue
        run_job(queue, job, lease_s, networks)
        count += 1
    return count


def worker_name() -> str:
    """A name that no other worker has: host, process and a random part."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def run_job(queue: Queue, job: QueuedJob, lease_s: float, networks: Networks) -> None:
    """Run one claimed job and record how it ended."""
    held = _Held(queue, job, lease_s)
    with settled(queue, job, lambda: held.lost):
        try:
            held.start()
            cohort = _contoured(job, held, networks)
        finally:
            held.end()
        _record(queue, job, cohort)


@contextmanager
def settled(queue: Queue, job: QueuedJob, is_lost: Callable[[], bool]) -> Iterator[None]:
    """Within the block a claimed job is done, and recorded as done. How else the block ends is recorded here:
    an input's fault is final, after any other the job comes back. KeyboardInterrupt gives it back too and is
    raised again, unless the job ``is_lost``: then it was not a person's Ctrl-C, and the job is left."""
    worker = str(job.worker)
    try:
        yield
    except KeyboardInterrupt:
        if not is_lost():
            queue.give_back(job.id, worker)
            raise
        LOG.info("job %s: left, it was cancelled or went to another worker", job.id)
    except (MedsegError, OSError) as error:
        line = system_error_line(error) if isinstance(error, OSError) else str(error)
        queue.fail(job.id, worker, line)
        LOG.info("job %s: failed", job.id)
    except Exception as error:
        queue.fail(job.id, worker, f"{type(error).__name__}: {error}", retry=True)
        LOG.exception("job %s: a fault of medseg", job.id)
    queue.let_go(job.id, worker)


def _contoured(job: QueuedJob, held: _Held, networks: Networks) -> dict[str, Any]:
    from medseg.bundles.cohort import segment

    return segment(request_of(job.payload), report=held.count, networks=networks)


def _record(queue: Queue, job: QueuedJob, cohort: dict[str, Any]) -> None:
    cases, worker = cohort["cases"], str(job.worker)
    failed = [case for case in cases if case["status"] == "failed"]
    if len(failed) < len(cases):
        queue.finish(job.id, worker, {"cases": cases, "passed_over": cohort["passed_over"]})
        LOG.info("job %s: done, %d of %d cases", job.id, len(cases) - len(failed), len(cases))
        return
    ours = [case for case in failed if case.get("fault") == "medseg"]
    others = f" (and {len(failed) - 1} more cases)" if len(failed) > 1 else ""
    queue.fail(job.id, worker, (ours or failed)[0]["error"] + others, retry=bool(ours))
    LOG.info("job %s: failed", job.id)


class _Held:
    """The heartbeat of one job, in a thread of its own. When the job is no longer ours, ``lost`` becomes true
    and the main thread, if it is the one at work, is interrupted as by Ctrl-C."""

    def __init__(self, queue: Queue, job: QueuedJob, lease_s: float) -> None:
        self.queue, self.job, self.lease_s = queue, job, lease_s
        self.lost = False
        self.cases = 0
        self._ended = threading.Event()
        self._in_main = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop; after this the main thread is not interrupted any more."""
        self._ended.set()
        self._thread.join()

    def count(self, record: dict[str, Any]) -> None:
        """A case of the job came to its end."""
        self.cases += record["status"] != "waiting"

    def _beat(self) -> None:
        while not self._ended.wait(self.lease_s / 4):
            # Names of cases may be names of patients: only their number is told.
            note = f"{self.cases} cases through" if self.cases else ""
            try:
                ours = self.queue.heartbeat(self.job.id, str(self.job.worker), self.lease_s, note=note)
            except Exception as error:  # the database is away: the lease may outlast that
                LOG.warning("job %s: no heartbeat (%s)", self.job.id, type(error).__name__)
                continue
            if not ours:
                self.lost = True
                if self._in_main and not self._ended.is_set():
                    _thread.interrupt_main()
                return


# ---- as a process of its own -------------------------------------------------------------------------------


def until_stopped(run: Callable[[], object], refused: Callable[[Exception], None]) -> int:
    """Be a worker process: ``run`` until SIGTERM or Ctrl-C, which give the job in hand back. Returns the exit
    code; 2 when it cannot work, of which ``refused`` tells."""
    # What a shell starts in the background ignores SIGINT, by which a cancelled job is left.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    logging.getLogger("highdicom").setLevel(logging.WARNING)  # it tells UIDs, line by line
    try:
        run()
    except KeyboardInterrupt:
        return 0
    except (MedsegError, OSError) as error:
        refused(error)
        return 2
    return 0


def limit_memory(most_bytes: int) -> None:
    """From now on this process gets at most so much memory and fails its job rather than the host's other
    processes. Nothing happens where the system has no such limit."""
    try:
        import resource
    except ImportError:
        return
    # Not the address space: torch and CUDA reserve far more of it than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or Ctrl-C, which give the job in hand back. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m medseg.bundles.worker", description=__doc__)
    parser.add_argument("queue", help="path of the SQLite file, or postgresql://…; - takes MEDSEG_QUEUE")
    parser.add_argument(
        "--bundles", required=True, help="names or folders of those that it runs, with commas"
    )
    parser.add_argument("--memory-gb", type=float, help="fail a job that needs more memory")
    parser.add_argument("--poll-s", type=float, default=0.5, help="between two looks at an empty queue")
    parser.add_argument("--lease-s", type=float, default=LEASE_S, help="taken for dead when silent so long")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.memory_gb is not None:
        limit_memory(int(options.memory_gb * 2**30))
    # A URL may hold a password, which the list of processes would show.
    url = os.environ.get("MEDSEG_QUEUE", "") if options.queue == "-" else options.queue

    def run() -> None:
        if not url:
            raise InputError("no queue: MEDSEG_QUEUE is not set.")
        work(
            Queue(url),
            bundles=[name for name in options.bundles.split(",") if name],
            stop=threading.Event(),
            poll_s=options.poll_s,
            lease_s=options.lease_s,
        )

    return until_stopped(run, lambda error: LOG.error("%s", error))


if __name__ == "__main__":
    raise SystemExit(main())
