"""A model's answer to an image: a job in the queue, contoured by a worker process, read from its files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.clicks import clicks_of
from medseg.bundles.kinds import case_kind
from medseg.bundles.queue import Queue, QueuedJob
from medseg.bundles.record import read_record
from medseg.bundles.request import Request, payload_of
from medseg.cases.find import folder_name
from medseg.cases.nifti import read_mask
from medseg.cases.volume import UID_SEPARATOR, fingerprint, source_path
from medseg.errors import InputError
from medseg.serve.monai_label.films import NO_RTSTRUCT, read_flat_mask
from medseg.serve.monai_label.images import Image, geometry_of, series_of
from medseg.serve.monai_label.models import Model

FORMATS = {"image": "nifti", "rtstruct": "rtstruct", "dicom_seg": "seg"}
"""What a client asks for, and what the worker writes for it."""

FILES = {"rtstruct": "RS.dcm", "dicom_seg": "SEG.dcm"}
_BOX = re.compile(r"(\s*-?\d+(\.\d+)?\s*,){5}\s*-?\d+(\.\d+)?\s*")

MOST_JOBS = 100_000
"""Of the queue that are looked through for old ones."""

LOOKS_S = (0.02, 0.05, 0.1, 0.2)
"""Between looks at a job: the first soon, since a finished one is answered at once."""


class JobFailed(InputError):
    """The worker could not contour the image; the reason is its own line."""


class StillRunning(Exception):
    """The job takes longer than a client waits. It goes on; the same request finds it again."""

    def __init__(self, job_id: str):
        super().__init__(job_id)
        self.job_id = job_id


@dataclass(frozen=True)
class Question:
    """What is asked of a model. ``output``: a key of FORMATS. ``within``: a box in LPS mm, or None.
    ``allow``: faults of an image to accept with a warning, as `medseg segment` has them. ``at``: points in
    LPS mm inside what is looked for, of a bundle that takes points."""

    model: Model
    image: Image
    owner: str
    output: str = "image"
    within: str | None = None
    allow: tuple[str, ...] = ()
    at: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self):
        wanted = case_kind(self.model.bundle)
        if self.image.kind != wanted:
            raise InputError(
                f"model {self.model.name} takes a {wanted}, and image {self.image.id} is a {self.image.kind}."
            )
        if self.output == "rtstruct" and wanted == "radiograph":
            raise InputError(NO_RTSTRUCT)
        if self.at:
            clicks_of(self.model.bundle)
        if self.output not in FORMATS:
            raise InputError(f"output {self.output!r}: expected one of {', '.join(FORMATS)}.")
        # A region of a structure set would be a path of the server.
        if self.within is not None and not _BOX.fullmatch(self.within):
            raise InputError(f"within {self.within[:80]!r}: expected x0,x1,y0,y1,z0,z1 in LPS mm.")
        if self.output != "image" and not self.image.is_dicom:
            raise InputError(
                f"output {self.output}: it refers to DICOM images, and this one is a NIfTI or picture file."
            )

    def place(self) -> dict[str, Any]:
        """The fields of a Request that say which image: one series, also of a folder that holds several. A
        bundle of several series is told that the others are left out."""
        series, path = series_of(self.image), source_path(self.image.source)
        modalities = self.model.bundle.modalities
        if len(modalities) > 1:
            own = [] if series is None else [(modalities["image"], series.series_instance_uid)]
            others = [(name, "none") for key, name in modalities.items() if key != "image"]
            return {"input": path, "series": (*own, *others)}
        return {
            "input": path if series is None else Path(f"{path}{UID_SEPARATOR}{series.series_instance_uid}")
        }

    def key(self) -> str:
        """The same for the same question of the same person to the same weights about the same files."""
        asked = {
            "owner": self.owner,
            "image": self.image.id,
            "files": repr(fingerprint(self.image.source)),
            "bundle": self.model.bundle.record(),
            "output": self.output,
            "within": self.within,
            "allow": sorted(self.allow),
            "at": self.at,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


class Inference:
    """Questions to the worker behind ``queue``; results lie under ``folder``."""

    def __init__(self, queue: Queue, folder: Path, device: str = "auto"):
        self.queue, self.folder, self.device = queue, folder, device

    def ask(self, question: Question) -> str:
        """Put a question in the queue; returns the job's id. One that was answered already keeps its answer.

        InputError or GeometryError at once for an image that cannot be read.
        """
        key = question.key()
        request = Request(
            **question.place(),
            bundle=question.model.task,
            output_dir=self.folder / key,
            formats=(FORMATS[question.output],),
            device=self.device,
            within=question.within,
            allow=question.allow,
            at=question.at,
        )
        payload = payload_of(request)
        job_id = self.queue.submit(payload, owner=question.owner, key=key)
        job = self.queue.get(job_id)
        if job.state == "done" and not is_here(job):  # its files were cleared away
            self.queue.remove(job_id)
            job_id = self.queue.submit(payload, owner=question.owner, key=key)
        return job_id

    def state(self, job_id: str) -> dict[str, Any]:
        """Where a job stands, for people who wait: its state, its place in the queue, and how long it may
        take to begin."""
        job = self.queue.get(job_id)
        return {
            "job": job.id,
            "state": job.state,
            "position": self.queue.position(job_id),
            "expected_wait_s": self.queue.expected_wait_s(job_id),
            "progress": job.progress,
            "reason": job.reason,
        }

    def wait(self, job_id: str, most_s: float) -> QueuedJob:
        """The finished job. StillRunning after ``most_s``; JobFailed when it failed or was cancelled."""
        until, looks = time.monotonic() + most_s, iter(LOOKS_S)
        while True:
            job = self.queue.get(job_id)
            if job.state == "done":
                return job
            if job.state not in ("waiting", "running"):
                raise JobFailed(job.reason or f"the job was {job.state}.")
            if time.monotonic() > until:
                raise StillRunning(job_id)
            time.sleep(next(looks, LOOKS_S[-1]))

    def clear(self, days: float) -> None:
        """Remove results that are older; jobs of another door in the same queue are not touched."""
        before = time.time() - days * 86400
        for job in self.queue.jobs(limit=MOST_JOBS):
            if _folder_of(job).parent == self.folder and job.ended_at is not None and job.ended_at < before:
                shutil.rmtree(_folder_of(job), ignore_errors=True)
                with suppress(InputError):  # a worker has a cancelled one still: the next time
                    self.queue.remove(job.id)


def _folder_of(job: QueuedJob) -> Path:
    return Path(str(job.payload.get("output_dir", "")))


# ---- reading the answer ------------------------------------------------------------------------------------


def is_here(job: QueuedJob) -> bool:
    """False when somebody removed the files of a finished job."""
    try:
        case_record(job)
    except JobFailed:
        return False
    return True


def case_record(job: QueuedJob) -> Mapping[str, Any]:
    """run.json of the one case of a finished job. JobFailed when its files are gone."""
    cases = (job.result or {}).get("cases", ())
    record = read_record(Path(cases[0]["folder"])) if len(cases) == 1 else {}
    if not record:
        raise JobFailed("the result's files are gone; ask again.")
    return record


def masks_of(job: QueuedJob, image: Image) -> dict[str, np.ndarray]:
    """{structure: bool [slice, row, column]} as the worker wrote them; an empty one too. Of a radiograph one
    slice."""
    record = case_record(job)
    folder, geometry = Path(record["folder"]), geometry_of(image)
    masks = {}
    for row in record["structures"]:
        file = folder / f"{folder_name(row['name'])}.nii.gz"
        masks[row["name"]] = (
            read_flat_mask(file, geometry.shape)
            if image.kind == "radiograph"
            else read_mask(file, geometry).astype(bool)
        )
    return masks


def file_of(job: QueuedJob, output: str) -> Path:
    """The DICOM file of an answer."""
    return Path(case_record(job)["folder"]) / FILES[output]
