"""Jobs that are no contouring: their names, and how the process that does them says how far it is."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import Any

from medseg.bundles.queue import Queue, QueuedJob

CHORE_TASK = "medseg label chores"
"""What workers that contour never claim."""

SCORINGS = {
    "uncertain": "Mean entropy of the model's probabilities, by MC-dropout where it has any",
    "diverse": "Features of every image: grey levels, coarsely",
}
LEASE_S = 60.0

STATES = {"waiting": "SCHEDULED", "running": "RUNNING", "done": "DONE", "cancelled": "KILLED"}
"""A job's state in the words of MONAI Label's clients; every other one is ERROR."""


def as_task(job: QueuedJob) -> dict[str, Any]:
    """A chore as MONAI Label's clients read a task."""
    return {
        "id": job.id,
        "status": STATES.get(job.state, "ERROR"),
        "progress": job.progress,
        "details": [line for line in (job.note, job.reason) if line],
        "result": job.result,
        "start_ts": job.started_at,
        "end_ts": job.ended_at,
    }


class Stopped(KeyboardInterrupt):
    """The chore was cancelled, or belongs to another process now: no step of a training may catch that."""


class Report:
    """How a chore says how far it is, and learns that it was cancelled."""

    def __init__(self, queue: Queue, job: QueuedJob):
        self.queue, self.job = queue, job
        self.progress, self.words, self.lost = 0.0, "", False

    def __call__(self, progress: float, words: str = "") -> None:
        """Raises Stopped when nobody wants the chore any more."""
        self.progress, self.words = progress, words or self.words
        self.beat()
        if self.lost:
            raise Stopped

    def beat(self) -> None:
        worker = str(self.job.worker)
        self.lost = not self.queue.heartbeat(self.job.id, worker, LEASE_S, self.progress, self.words[:500])

    def pause(self) -> None:
        """Between two looks at what another process does."""
        time.sleep(0.2)

    @contextmanager
    def beating(self):
        """Within the block the chore stays this process's, however long a step takes; what medseg logs
        becomes its note. A chore that was cancelled interrupts the main thread, as Ctrl-C does."""
        import _thread

        ended, handler = threading.Event(), _Note(self)

        def beat() -> None:
            while not ended.wait(2.0):
                self.beat()
                if self.lost:
                    _thread.interrupt_main()
                    return

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        logging.getLogger("medseg").addHandler(handler)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            logging.getLogger("medseg").removeHandler(handler)


class _Note(logging.Handler):
    def __init__(self, report: Report):
        super().__init__(logging.INFO)
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        self.report.words = record.getMessage()
