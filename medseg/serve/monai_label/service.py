"""What the protocol's addresses do, without HTTP: one object that the views call. Loads no torch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from medseg.bundles.kinds import case_kind
from medseg.bundles.queue import Queue, QueuedJob
from medseg.cases.volume import UID_SEPARATOR, source_path
from medseg.errors import InputError, MedsegError
from medseg.files import load_json, make_folder
from medseg.serve.monai_label.dicomweb import DicomWebImages
from medseg.serve.monai_label.export import write_dicom
from medseg.serve.monai_label.images import FolderImages, Image, geometry_of, is_dicomweb
from medseg.serve.monai_label.inference import Inference
from medseg.serve.monai_label.label_files import names_of, read_label
from medseg.serve.monai_label.labels import (
    BY_HAND,
    FINAL,
    Labels,
    Submission,
    UnknownLabel,
    Version,
    current,
)
from medseg.serve.monai_label.models import Model, Models
from medseg.serve.monai_label.people import Person
from medseg.serve.monai_label.sessions import Sessions
from medseg.serve.monai_label.strategies import Choice, Situation, choose
from medseg.serve.monai_label.tasks import CHORE_TASK

RESULTS_LAST_DAYS = 7.0


@dataclass(frozen=True)
class Places:
    """Where the server keeps what it knows: all under one ``state`` folder. ``queue_url``: the queue of
    contouring jobs that it shares with a site, "" for one of its own."""

    state: Path
    queue_url: str = ""

    def __getattr__(self, name: str) -> Path:
        if name not in ("labels", "models", "results", "sessions", "uploads", "cache", "scores", "temporary"):
            raise AttributeError(name)
        return self.state / name

    @property
    def jobs(self) -> str:
        return self.queue_url or str(self.state / "jobs.sqlite")

    @property
    def chores(self) -> str:
        return str(self.state / "chores.sqlite")


def open_images(
    studies: str, places: Places, kinds: Collection[str] = ("volume",)
) -> FolderImages | DicomWebImages:
    """The images of ``kinds`` in a folder, or of a DICOMweb server by its URL. InputError for radiographs of
    such a server."""
    if is_dicomweb(studies):
        if "radiograph" in kinds:
            raise InputError(
                "studies: of a DICOMweb server CT, MR and PET series are offered; for a bundle of "
                "radiographs give a folder of CR, DX, PNG or JPEG files."
            )
        return DicomWebImages(studies, places.cache / "series")
    return FolderImages(Path(studies).resolve(), places.uploads, kinds)


class Service:
    """A running MONAI Label service over ``studies`` (a folder or a DICOMweb URL) and ``bundles``.

    ``state``: the folder of labels, trained models, results and queues. ``audit``: folder of a ``medseg
    audit``, or None. ``queue_url``: the queue of a site whose workers contour, "" for one under ``state``.
    """

    def __init__(
        self,
        studies: str,
        bundles: Sequence[str | Path],
        state: Path,
        audit: Path | None = None,
        queue_url: str = "",
    ):
        self.places = Places(state.resolve(), queue_url)
        make_folder(self.places.temporary)
        self.studies, self.audit = studies, audit
        self.models = Models(self.places.models, bundles)
        self.images = open_images(studies, self.places, self.models.case_kinds)
        self.labels = Labels(self.places.labels)
        self.sessions = Sessions(self.places.sessions)
        self.inference = Inference(Queue(self.places.jobs), self.places.results)
        self.inference.clear(RESULTS_LAST_DAYS)
        self.chores = Queue(self.places.chores)

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders whose names no answer tells."""
        local = () if isinstance(self.images, DicomWebImages) else (self.images.folder,)
        return (self.places.state, *local)

    def ids_for(self, model: Model) -> list[str]:
        """The images that a model takes."""
        kind = case_kind(model.bundle)
        return [one for one in self.images.ids() if self.images.get(one).kind == kind]

    # ---- labels --------------------------------------------------------------------------------------------

    def submit(
        self, image_id: str, file: Path, suffix: str, params: Mapping[str, Any], asked: Asked
    ) -> Version:
        """Keep a label file as a new version of an image."""
        image = self.images.local(image_id)
        geometry = geometry_of(image)
        values = read_label(file, suffix, geometry)
        known = [label for name in self.models.names() for label in self.models.get(name).labels]
        names = names_of(params.get("label_info"), values, known)
        parent = params.get("parent")
        own = [one for one in self.labels.of(image) if one.annotator == asked.person.name]
        if parent is None and own:
            parent = own[-1].id
        elif parent is not None:
            self.visible(str(parent), asked.person)
        origin = self._origin(image, asked.person)
        submission = Submission(
            values,
            geometry,
            names,
            asked.person.name,
            asked.tag,
            origin,
            None if parent is None else str(parent),
        )
        return self.labels.save(image, submission)

    def _origin(self, image: Image, person: Person) -> str:
        """What the person probably started from: the last answer of a model that they had for this image."""
        path = str(source_path(image.source))
        models = [one for name in self.models.names() for one in self.models.versions(name)]
        for job in self.inference.queue.jobs(owner=person.name, state="done"):
            asked = str(job.payload.get("input"))
            words = [one.words for one in models if one.task == job.payload.get("bundle")]
            if words and asked.partition(UID_SEPARATOR)[0] == path:
                return f"{words[0]}, then by hand"
        return BY_HAND

    def visible(self, version_id: str, person: Person) -> Version:
        """A version that the person may see; for others it is as if there were none."""
        version = self.labels.get(version_id)
        if not person.owns(version.annotator):
            raise UnknownLabel(f"no label {version_id[:80]!r}.")
        return version

    def label(self, name: str, tag: str, person: Person) -> Version:
        """The version called ``name``; or, of the image called so, the current one the person may see."""
        if name in self.images.ids():
            seen = [one for one in self.labels.of(self.images.get(name)) if person.owns(one.annotator)]
            version = current(seen, tag or FINAL)
            if version is None:
                raise UnknownLabel(
                    f"image {name[:80]!r} has no label of tag {(tag or FINAL)[:20]!r} for you."
                )
            return version
        return self.visible(name, person)

    def choose_label(self, version: Version, person: Person) -> Version:
        """This version counts from now on, whoever submits more."""
        return self.labels.note(version.id, {"chosen": datetime.now(timezone.utc).isoformat()}, person.name)

    def withdraw(self, version: Version, person: Person) -> Version:
        """The version is kept and no longer counts."""
        return self.labels.note(
            version.id, {"withdrawn": datetime.now(timezone.utc).isoformat()}, person.name
        )

    def store_back(self, version: Version) -> dict[str, Any]:
        """RTSTRUCT and SEG of a label onto the DICOMweb server that its image is from; {} elsewhere. What
        goes wrong is told, and the label is kept all the same."""
        if not isinstance(self.images, DicomWebImages):
            return {}
        stored = []
        try:
            image = self.images.local(version.image)
            with tempfile.TemporaryDirectory(dir=self.places.temporary) as folder:
                for kind in ("rtstruct", "dicom_seg"):
                    self.images.store(write_dicom(version, image, kind, Path(folder)))
                    stored.append(kind)
        except MedsegError as error:
            return {"stored": stored, "store_error": str(error)}
        return {"stored": stored}

    # ---- what next -----------------------------------------------------------------------------------------

    def next_sample(self, strategy: str, params: Mapping[str, Any], person: Person) -> Choice:
        """The answer of ``/activelearning/``; {} when nothing is left."""
        mine = [one for one in self.labels.all() if one.annotator == person.name and not one.is_withdrawn]
        seed = params.get("seed")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise InputError(f"seed {seed!r}: expected a whole number.")
        ids = self.images.ids()
        situation = Situation(
            ids,
            frozenset(one.image for one in mine if one.tag == FINAL),
            self.scores(str(params.get("model") or self.models.names()[0])),
            self.audit,
            seed,
            self._corrected_since_audit(),
            {name: self.images.get(name).source for name in ids},
        )
        chosen = choose(strategy, situation)
        if not chosen:
            return {}
        return {**self.images.get(chosen["id"]).info, **chosen, "ts": int(time.time())}

    def _corrected_since_audit(self) -> frozenset[tuple[str, str]]:
        file = self.audit / "audit.json" if self.audit else None
        if file is None or not file.exists():
            return frozenset()
        since = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc).isoformat()
        later = [one for one in self.labels.all() if one.submitted_at > since and not one.is_withdrawn]
        return frozenset((one.image, name) for one in later for name in one.label_names)

    def scores(self, model: str) -> dict[str, dict[str, Any]]:
        """{image: what the scoring jobs found}; {} of a model that nothing was scored with."""
        folder = self.places.scores / self.models.get(model).bundle.weights_sha256[:16]
        found = {}
        for file in sorted(folder.glob("[!.]*.json")):
            row = load_json(file)
            found[str(row["image"])] = row
        return found

    # ---- training, scoring, batches: jobs of the other queue -----------------------------------------------

    def put(self, chore: str, person: Person, **details: Any) -> QueuedJob:
        """Put a chore in its queue; the same one twice is one job while it is not finished."""
        payload = {"bundle": CHORE_TASK, "chore": chore, "studies": self.studies, **details}
        return self.chores.get(self.chores.submit(payload, owner=person.name))

    def newest(self, chore: str, model: str | None = None) -> QueuedJob | None:
        """The newest chore of a kind; None without one."""
        rows = [job for job in self.chores.jobs() if job.payload.get("chore") == chore]
        return next((job for job in rows if model in (None, job.payload.get("model"))), None)

    def train_stats(self, name: str) -> dict[str, Any]:
        """How the newest training of a model went or goes, what each version scored, and what OHIF's panel
        draws: ``epoch``, ``total_epochs``, ``best_metric``. {} before the first training."""
        job = self.newest("train", name)
        history = [dict(model.trained) for model in self.models.versions(name) if model.trained]
        if job is None:
            return {"history": history} if history else {}
        found = {**(job.result or {}), "state": job.state, "progress": job.progress, "reason": job.reason}
        total = int(job.payload.get("epochs") or 0)
        scores = [score for key in ("score_before", "score_after") if (score := found.get(key)) is not None]
        drawn = {"epoch": round((job.progress or 0) * total), "total_epochs": total}
        return {**found, **drawn, "best_metric": max(scores, default=None), "history": history}


@dataclass(frozen=True)
class Asked:
    """Who submits, and under which tag."""

    person: Person
    tag: str = FINAL
