"""The process between receiver and workers: complete studies become jobs, results go back, old ones go."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from medseg.bundles.queue import Queue, QueuedJob, UnknownJob
from medseg.errors import InputError, MedsegError
from medseg.files import load_json
from medseg.serve.dicom_node import answers as states
from medseg.serve.dicom_node.answers import Answer, Answers
from medseg.serve.dicom_node.config import NodeConfig, read_config
from medseg.serve.dicom_node.delivery import attempted, send
from medseg.serve.dicom_node.index import Index
from medseg.serve.dicom_node.logs import log, use_json_logs
from medseg.serve.dicom_node.plan import Planned, link_input, payload, plan, work_name

LOOK_S = 1.0
AGAIN_S = 60.0
OWNER = "dicom node"
"""Of the node's jobs in a queue that others use too."""


class Dispatcher:
    """One look at everything is :meth:`step`; killed in the middle of one, the next one does what is left."""

    def __init__(self, config: NodeConfig, now: Callable[[], float] = time.time) -> None:
        self.config, self.now = config, now
        self.index, self.answers = Index(config.folder, now), Answers(config.folder, now)
        self.queue = Queue(config.queue_url, now)
        self.rules = {rule.name: rule for rule in config.rules}
        self.not_before: dict[str, float] = {}

    def step(self) -> None:
        """Complete studies, collect what workers finished, delete what is old."""
        for study_uid, last_at in self.index.quiet(self.config.listen.quiet_s):
            self._guarded(study_uid, lambda uid=study_uid, at=last_at: self._complete(uid, at))
        for answer in self.answers.all(states.WAITING):
            self._guarded(answer.study_uid, lambda answer=answer: self._collect(answer))
        for study_uid in self.index.older(self.config.keep_days):
            self._guarded(study_uid, lambda uid=study_uid: self._forget(uid))

    def _guarded(self, study_uid: str, do: Callable[[], None]) -> None:
        """One study that cannot be handled must not keep the others waiting; it is tried again after a
        minute."""
        if self.now() < self.not_before.get(study_uid, 0.0):
            return
        try:
            do()
            self.not_before.pop(study_uid, None)
        except Exception as error:
            self.not_before[study_uid] = self.now() + AGAIN_S
            log("stuck", "error", study=study_uid, error=type(error).__name__)

    # ---- a study is complete -------------------------------------------------------------------------------

    def _complete(self, study_uid: str, last_at: float) -> None:
        made = [
            self._begin(study_uid, planned) for planned in plan(self.config, self.index.series(study_uid))
        ]
        if not self.index.complete(study_uid, last_at):
            return  # another slice came meanwhile: what was begun is superseded when the study is complete
        for answer in self.answers.all(study_uid=study_uid):
            if answer.work not in made and answer.state != states.SUPERSEDED:
                self._supersede(answer)
        log("complete", study=study_uid, files=len(made))

    def _begin(self, study_uid: str, planned: Planned) -> str:
        """Submit a job, unless it was; returns the name of its folder."""
        objects = {row.series_uid: self.index.objects(study_uid, row.series_uid) for row in planned.series}
        names = [name for series in objects.values() for name in series]
        work = work_name(study_uid, planned, names)
        if any(answer.work == work for answer in self.answers.all(study_uid=study_uid)):
            return work
        link_input(self.config, work, study_uid, objects)
        job = self.queue.submit(
            payload(self.config, work, planned.rule),
            owner=OWNER,
            key=f"node {work}",
            priority=planned.rule.priority,
        )
        self.answers.begin(
            Answer(work, study_uid, planned.rule.name, job, states.WAITING, None, self.now(), None)
        )
        log("job", study=study_uid, rule=planned.rule.name, job=job, images=len(names))
        return work

    def _supersede(self, answer: Answer) -> None:
        if answer.state == states.WAITING:
            try:
                self.queue.cancel(answer.job)
            except UnknownJob:  # removed by hand
                pass
        self.answers.supersede(answer)
        log("superseded", study=answer.study_uid, rule=answer.rule, job=answer.job)

    # ---- a worker has finished -----------------------------------------------------------------------------

    def _collect(self, answer: Answer) -> None:
        try:
            job = self.queue.get(answer.job)
        except UnknownJob:
            self.answers.failed(answer, "its job was removed from the queue")
            return
        if job.state in ("waiting", "running"):
            return
        if job.state != "done":
            self.answers.failed(answer, job.reason or f"its job was {job.state}")
        else:
            try:
                files = results_of(job)
            except (OSError, ValueError, LookupError):
                self.answers.failed(answer, "its results cannot be read")
                return
            rule = self.rules.get(answer.rule)
            self.answers.contoured(answer, len(files), rule.targets if rule else ())
        log("answered", study=answer.study_uid, rule=answer.rule, job=job.id, state=job.state)

    # ---- results go back -----------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Send what is due, once."""
        unreachable: set[str] = set()  # this time: one attempt is enough to know
        for delivery in self.answers.due():
            target = self.config.targets.get(delivery.target)
            if target is None or delivery.target in unreachable:
                continue
            answer = self.answers.get(delivery.work)
            files = self._results(answer)
            result = attempted(
                delivery,
                self.now(),
                self.config.keep_trying_days * 86400,
                lambda files=files, target=target: send(files, target, self.config.listen.ae_title),
            )
            self.answers.record(result)
            if result.state != states.SENT:
                unreachable.add(delivery.target)
            log(
                "delivery",
                "info" if result.state == states.SENT else "warning",
                study=answer.study_uid,
                target=result.target,
                state=result.state,
                attempts=result.attempts,
                files=len(files),
            )

    def _results(self, answer: Answer) -> list[Path]:
        try:
            return results_of(self.queue.get(answer.job))
        except (UnknownJob, OSError, ValueError, LookupError):
            return []  # which no target accepts: it is tried until given up, and a person sees it

    # ---- old studies go ------------------------------------------------------------------------------------

    def _forget(self, study_uid: str) -> None:
        rows = self.answers.all(study_uid=study_uid)
        open_states = [d.state for row in rows for d in self.answers.deliveries(row.work)]
        if states.DUE in open_states or any(row.state == states.WAITING for row in rows):
            return
        for row in rows:
            shutil.rmtree(self.config.work / row.work, ignore_errors=True)
            try:
                self.queue.remove(row.job)
            except InputError:  # gone, or a worker is about to leave it: the queue's own retention takes it
                pass
        shutil.rmtree(self.config.incoming / study_uid, ignore_errors=True)
        self.index.forget(study_uid)
        log("deleted", study=study_uid)


def results_of(job: QueuedJob) -> list[Path]:
    """The DICOM files that a finished job wrote, from the run records of its cases."""
    files = []
    for case in (job.result or {}).get("cases", ()):
        if case.get("status") in ("done", "skipped"):
            folder = Path(case["folder"])
            outputs = load_json(folder / "run.json")["outputs"]
            files += [folder / row["file"] for row in outputs if row["file"].endswith(".dcm")]
    return files


def main(arguments: list[str] | None = None) -> int:
    """``python -m medseg.serve.dicom_node.dispatch CONFIG``: look every second until SIGTERM, or until the
    process that started this one has gone."""
    from medseg.serve.dicom_node.metrics import serve_metrics

    use_json_logs()
    (path,) = arguments if arguments is not None else sys.argv[1:]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()
    try:
        config = read_config(Path(path))
        for folder in (config.folder, config.incoming, config.work):
            folder.mkdir(parents=True, exist_ok=True)
        dispatcher = Dispatcher(config)
        if config.metrics_port is not None:
            serve_metrics(config)
    except (MedsegError, OSError) as error:
        log("cannot dispatch", "error", error=type(error).__name__)
        sys.stderr.write(f"error: {error}\n")
        return 2
    # A target that hangs must not keep studies waiting: sending has a thread of its own.
    sender = threading.Thread(target=_send_until, args=(stop, dispatcher), name="sender", daemon=True)
    sender.start()
    while not stop.wait(LOOK_S) and os.getppid() == parent:
        dispatcher.step()
    return 0


def _send_until(stop: threading.Event, dispatcher: Dispatcher) -> None:
    while not stop.wait(LOOK_S):
        try:
            dispatcher.deliver()
        except Exception as error:
            log("stuck", "error", error=type(error).__name__)


if __name__ == "__main__":
    raise SystemExit(main())
