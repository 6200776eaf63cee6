"""From a page's form to a job in the queue, and what the queue says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from medseg.bundles.config import check_settings
from medseg.bundles.find import Bundle
from medseg.bundles.queue import Queue, QueuedJob, UnknownJob
from medseg.bundles.record import read_record
from medseg.bundles.request import Request, payload_of
from medseg.errors import InputError, MedsegError
from medseg.serve.web.intake import source_of
from medseg.serve.web.models import Job, Study, new_id
from medseg.serve.web.site import the_site
from medseg.serve.web.suggestions import ASKED_SETTINGS, formats_for, listed_bundle, takes

UNFINISHED = ("waiting", "running")
LARGEST_MARGIN_MM, REACH_MM = 100.0, (-5000.0, 5000.0)
BOX = ("x0", "x1", "y0", "y1", "z0", "z1")
SIDES, MOST_POINTS = ("L", "R"), 20


@lru_cache(maxsize=1)
def the_queue() -> Queue:
    return Queue(the_site().queue_url)


def submit(study: Study, kind: str, entry_id: str, bundle_name: str, form: Mapping[str, str]) -> Job:
    """Put one contouring into the queue. ``form``: the fields of the page, ``within_…`` and settings.

    InputError, before anything is queued, for an image or bundle that the study or the site has not, and
    for a field that makes no sense.
    """
    bundle = listed_bundle(bundle_name)
    entry, source = source_of(study, kind, entry_id)
    if not takes(bundle, kind, entry):
        raise InputError(f"{bundle.name} does not take this image; choose a bundle that is offered for it.")
    if not bundle.has_weights:
        raise InputError(f"{bundle.name} has no weights yet; it has to be trained first.")
    settings = _settings(form)
    check_settings(bundle, "inference", settings)
    folder_name = new_id()
    several = len(bundle.modalities) > 1
    request = Request(
        (study.folder / "files" / "dicom") if several and kind == "series" else source,
        bundle_name,
        study.folder / "jobs" / folder_name,
        formats=formats_for(bundle, entry),
        within=_within(study, form),
        at=_points(bundle, form),
        settings=settings,
        series=((bundle.modalities["image"], entry["uid"]),) if several and kind == "series" else (),
    )
    id_ = the_queue().submit(payload_of(request), owner=study.owner.username)
    return Job.objects.create(
        id=id_, study=study, owner=study.owner, bundle=bundle_name, folder_name=folder_name
    )


def _settings(form: Mapping[str, str]) -> dict[str, Any]:
    given = {key: form.get(key, "").strip() for key in ASKED_SETTINGS}
    settings: dict[str, Any] = {}
    for key, text in given.items():
        if key == "side" and text and text not in SIDES:
            raise InputError(f"side {text[:20]!r}: expected L or R.")
        if text:
            settings[key] = text if key == "side" else _number(key, text, 0.0, LARGEST_MARGIN_MM)
    return settings


def _points(bundle: Bundle, form: Mapping[str, str]) -> tuple[tuple[float, ...], ...]:
    """Points inside the tumour, LPS mm: ``x,y,z; x,y,z``."""
    texts = [part for part in form.get("at", "").split(";") if part.strip()]
    if texts and "clicks" not in bundle.metadata:
        raise InputError(f"{bundle.name} takes no points; give it a box, or a structure.")
    points = [tuple(_number("point", part.strip(), *REACH_MM) for part in text.split(",")) for text in texts]
    if len(points) > MOST_POINTS or any(len(point) != 3 for point in points):
        raise InputError(f"points: expected x,y,z; x,y,z in LPS mm, at most {MOST_POINTS}.")
    return tuple(points)


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InputError(f"{name} {text[:20]!r}: expected a number from {low:g} to {high:g}.")
    return value


def _within(study: Study, form: Mapping[str, str]) -> str | None:
    """The region as ``medseg segment`` takes it: a structure of an uploaded set, a box in mm, or none."""
    roi = form.get("within_roi", "")
    box = [form.get(f"within_{side}", "").strip() for side in BOX]
    if roi:
        set_id, _, name = roi.partition(":")
        entry, path = source_of(study, "sets", set_id)
        if name not in entry["rois"]:
            raise InputError("that structure set has no such structure; choose one of those listed.")
        margin = _number("margin", form.get("within_margin", "").strip() or "0", 0.0, LARGEST_MARGIN_MM)
        return f"{path}:{name}" + (f"+{margin:g}" if margin else "")
    if any(box):
        return ",".join(f"{_number('region', text, *REACH_MM):g}" for text in box)
    return None


# ---- what became of it -------------------------------------------------------------------------------------


def queued(job: Job) -> QueuedJob | None:
    """The queue's row of a job; None when it was removed there."""
    try:
        return the_queue().get(job.id)
    except UnknownJob:
        return None


def state(job: Job) -> str:
    """The queue's word for where a job stands; "removed" when it is not there."""
    row = queued(job)
    return "removed" if row is None else row.state


def progress(job: Job) -> dict[str, Any]:
    """State, position and expected wait, for the page and for its script."""
    row = queued(job)
    if row is None:
        return {"state": "removed", "position": 0, "wait_s": None, "progress": None, "reason": ""}
    queue = the_queue()
    wait_s = queue.expected_wait_s(job.id) if row.state == "waiting" else None
    return {
        "state": row.state,
        "position": queue.position(job.id),
        "wait_s": None if wait_s is None else round(wait_s),
        "progress": row.progress,
        "reason": public(row.reason or "", job),
    }


def public(message: str, job: Job) -> str:
    """A library's message without the paths of this server."""
    for folder in (job.folder, job.study.folder / "files", job.study.folder, the_site().data_dir):
        message = message.replace(f"{folder}/", "").replace(str(folder), "the upload")
    return message


def results(job: Job) -> list[tuple[Path, dict[str, Any]]]:
    """(folder, run record) of each case of a job, in order of their names; [] before it is done."""
    found = []
    if job.folder.is_dir():
        for folder in sorted(path for path in job.folder.iterdir() if (path / "run.json").is_file()):
            try:
                record = read_record(folder)
            except MedsegError:  # being written, or somebody else's
                continue
            found.append((folder, record))
    return found


def is_finished(job: Job) -> bool:
    row = queued(job)
    return row is None or row.state not in UNFINISHED
