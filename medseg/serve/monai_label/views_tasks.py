"""``/info``, ``/auth``, ``/activelearning``, ``/train``, ``/scoring``, ``/batch``, ``/logs``."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from django.http import HttpResponse, JsonResponse

from medseg.bundles.queue import QueuedJob
from medseg.errors import InputError
from medseg.serve.monai_label.answers import Refused
from medseg.serve.monai_label.description import TRAIN_CONFIG, info
from medseg.serve.monai_label.door import Asking, Known, int_or_0
from medseg.serve.monai_label.fuse import FUSIONS
from medseg.serve.monai_label.service import Service
from medseg.serve.monai_label.strategies import UnknownStrategy
from medseg.serve.monai_label.tasks import SCORINGS, as_task

IMAGES = ("all", "labeled", "unlabeled")
MOST_LINES, MOST_EPOCHS = 2000, 2000


class TaskViews:
    """Views of what is no image, label or contour. ``log``: the server's own log file, or None."""

    def __init__(self, service: Service, known: Known, log: Path | None = None):
        self.service, self.known, self.log = service, known, log

    def info(self, asking: Asking) -> HttpResponse:
        """GET: models, trainers, strategies, and how far people are."""
        return JsonResponse(info(self.service))

    # ---- who -----------------------------------------------------------------------------------------------

    def auth(self, asking: Asking) -> HttpResponse:
        """GET: whether a token is needed."""
        return JsonResponse({"enabled": self.known.enabled, "client_id": "medseg", "realm": ""})

    def token(self, asking: Asking) -> HttpResponse:
        """POST: a token for name and password."""
        if not self.known.enabled:
            return JsonResponse({"access_token": None, "token_type": None})
        name, password = str(asking.params.get("username", "")), str(asking.params.get("password", ""))
        token = self.known.token(asking.request, name, password)
        return JsonResponse({"access_token": token, "token_type": "bearer"})

    def whoami(self, asking: Asking) -> HttpResponse:
        """GET: whose token it is. 401 for none that is good."""
        person = asking.person
        roles = [person.role]
        return JsonResponse({"username": person.name, "email": "", "name": person.name, "roles": roles})

    # ---- which next ----------------------------------------------------------------------------------------

    def next_sample(self, asking: Asking, strategy: str) -> HttpResponse:
        """POST: the image to work on next, and why; {} when none is left."""
        return JsonResponse(self.service.next_sample(strategy, asking.params, asking.person))

    # ---- chores --------------------------------------------------------------------------------------------

    def train(self, asking: Asking, model: str = "") -> HttpResponse:
        """POST: train a model from the labels; of all models without a name. ``params``: see TRAIN_CONFIG, or
        {model: them} of several."""
        can = self.service.models.trained_here()
        names = [model] if model else can
        jobs = {}
        for name in names:
            self.service.models.get(name)
            if name not in can:
                raise InputError(f"model {name}: labels of radiographs train nothing here; use medseg train.")
            params = asking.params.get(name) if isinstance(asking.params.get(name), dict) else asking.params
            running = self.service.newest("train", name)
            if running is not None and running.state in ("waiting", "running"):
                raise Refused(429, f"{name} is being trained already.")
            jobs[name] = self.service.put("train", asking.person, model=name, **_training(params))
        if model:
            return JsonResponse(as_task(jobs[model]))
        return JsonResponse({name: as_task(job) for name, job in jobs.items()})

    def train_status(self, asking: Asking, model: str = "") -> HttpResponse:
        """GET: the newest training. 404 without one; with ``check_if_running`` also when none runs."""
        return self._status(asking, "train", model or None)

    def stop_train(self, asking: Asking, model: str = "") -> HttpResponse:
        """DELETE: end the training; the model stays as it is."""
        return self._stop("train", model or None)

    def use_version(self, asking: Asking, model: str) -> HttpResponse:
        """PUT: use another version of a model from now on."""
        self.service.models.choose(model, str(asking.params.get("version")))
        return JsonResponse({"model": model, "version": self.service.models.current(model)})

    def score(self, asking: Asking, method: str) -> HttpResponse:
        """POST: score every image for a strategy."""
        if method not in SCORINGS:
            raise UnknownStrategy(f"no scoring {method[:40]!r}; expected one of {', '.join(SCORINGS)}.")
        model = str(asking.params.get("model") or self.service.models.names()[0])
        self.service.models.get(model)
        return JsonResponse(as_task(self.service.put("score", asking.person, model=model, method=method)))

    def score_status(self, asking: Asking) -> HttpResponse:
        """GET: the newest scoring."""
        return self._status(asking, "score")

    def stop_score(self, asking: Asking) -> HttpResponse:
        """DELETE: end the scoring."""
        return self._stop("score")

    def batch(self, asking: Asking, model: str) -> HttpResponse:
        """POST: contour all images, or those with or without a label."""
        images = asking.query("images") or "all"
        if images not in IMAGES:
            raise Refused(400, f"images {images[:40]!r}: expected one of {', '.join(IMAGES)}.")
        self.service.models.get(model)
        return JsonResponse(as_task(self.service.put("batch", asking.person, model=model, images=images)))

    def batch_status(self, asking: Asking) -> HttpResponse:
        """GET: the newest batch."""
        return self._status(asking, "batch")

    def stop_batch(self, asking: Asking) -> HttpResponse:
        """DELETE: end the batch; what was contoured is kept."""
        return self._stop("batch")

    def _status(self, asking: Asking, chore: str, model: str | None = None) -> HttpResponse:
        job = self.service.newest(chore, model)
        if job is None or asking.flag("check_if_running") and not _is_running(job):
            raise Refused(404, f"no {chore} is running." if job else f"there was no {chore} yet.")
        if asking.flag("all"):
            rows = [one for one in self.service.chores.jobs() if one.payload.get("chore") == chore]
            return JsonResponse([as_task(one) for one in rows], safe=False)
        return JsonResponse(as_task(job))

    def _stop(self, chore: str, model: str | None = None) -> HttpResponse:
        job = self.service.newest(chore, model)
        if job is not None and _is_running(job):
            self.service.chores.cancel(job.id)
            job = self.service.chores.get(job.id)
        return JsonResponse(as_task(job) if job else {})

    # ---- for the admin -------------------------------------------------------------------------------------

    def logs(self, asking: Asking) -> HttpResponse:
        """GET: the last lines of the server's log, as text."""
        if self.log is None or not self.log.exists():
            raise Refused(404, "this server keeps no log of its own.")
        count = min(max(int_or_0(asking.query("lines")) or 300, 1), MOST_LINES)
        with open(self.log, encoding="utf-8", errors="replace") as stream:
            text = "".join(deque(stream, count))
        return HttpResponse(text, content_type="text/plain; charset=utf-8")


def _is_running(job: QueuedJob) -> bool:
    return job.state in ("waiting", "running")


def _training(params: dict[str, Any]) -> dict[str, Any]:
    """What a training is asked for; what a client does not say is as TRAIN_CONFIG has it. InputError for a
    value that it cannot have."""
    wanted = {key: params.get(key, usual) for key, usual in TRAIN_CONFIG.items()}
    # Another client calls it max_epochs, as the stock server does.
    epochs = params.get("max_epochs", wanted["epochs"])
    if isinstance(epochs, bool) or not isinstance(epochs, int) or not 1 <= epochs <= MOST_EPOCHS:
        raise InputError(f"epochs {epochs!r}: expected 1 to {MOST_EPOCHS}.")
    if wanted["fuse"] not in FUSIONS:
        raise InputError(f"fuse {wanted['fuse']!r}: expected one of {', '.join(FUSIONS)}.")
    share = wanted["validation"]
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise InputError(f"validation {share!r}: expected a share between 0 and 1.")
    for key in ("annotators", "method"):
        if not isinstance(wanted[key], str):
            raise InputError(f"{key} {wanted[key]!r}: expected text.")
    return {**wanted, "epochs": epochs}
