"""Deleting: what a user, or the site's calendar, wants gone is gone from the disk, the queue and the
tables."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import timedelta

from django.utils import timezone

from medseg.bundles.queue import UnknownJob
from medseg.errors import InputError
from medseg.files import remove_free_locks
from medseg.serve.web.models import Job, Study
from medseg.serve.web.site import the_site
from medseg.serve.web.tasks import the_queue

UNFINISHED_UPLOAD = timedelta(days=2)


def delete_job(job: Job) -> None:
    """Cancel a job where it is not through, and delete its files and rows.

    A worker that is in the middle of it notices within seconds and may write until then: :func:`sweep`
    removes what it leaves.
    """
    with suppress(UnknownJob):
        the_queue().cancel(job.id)
    shutil.rmtree(job.folder, ignore_errors=True)
    with suppress(InputError):  # UnknownJob, or its worker has it still: sweep removes the row
        the_queue().remove(job.id)
    job.delete()


def delete_study(study: Study) -> None:
    """Delete a study with its jobs and comparisons."""
    for job in study.jobs.all():
        delete_job(job)
    shutil.rmtree(study.folder, ignore_errors=True)
    study.delete()


def sweep() -> int:
    """Delete what is older than the site keeps, uploads that were never finished, and files, queued rows and
    studies that belong to nothing any more. Returns how many studies went."""
    now = timezone.now()
    old = Study.objects.filter(created__lt=now - timedelta(days=the_site().keep_days))
    unfinished = Study.objects.filter(ready=False, created__lt=now - UNFINISHED_UPLOAD)
    gone = [*old, *unfinished.exclude(pk__in=old)]
    for study in gone:
        delete_study(study)
    known = set(Study.objects.values_list("id", flat=True))
    if the_site().studies_dir.is_dir():
        for folder in the_site().studies_dir.iterdir():
            if folder.name not in known and folder.is_dir() and _is_old(folder):
                shutil.rmtree(folder, ignore_errors=True)
            elif folder.name in known:
                _sweep_jobs(folder / "jobs")
    _sweep_queue()
    return len(gone)


def _is_old(folder, minutes: float = 10.0) -> bool:
    """A folder appears before the row of its study does."""
    with suppress(OSError):
        return timezone.now().timestamp() - folder.stat().st_mtime > 60 * minutes
    return False


def _sweep_jobs(folder) -> None:
    if not folder.is_dir():
        return
    known = set(Job.objects.values_list("folder_name", flat=True))
    for path in folder.iterdir():
        if path.name not in known and _is_old(path):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            remove_free_locks(path)


def _sweep_queue() -> None:
    """Rows of deleted jobs that a worker held at that time. Another door's rows are not touched: they lie
    elsewhere."""
    root = str(the_site().studies_dir)
    known = set(Job.objects.values_list("id", flat=True))
    for row in the_queue().jobs(state="cancelled", limit=1000):
        if row.id not in known and str(row.payload.get("output_dir", "")).startswith(root):
            with suppress(InputError):
                the_queue().remove(row.id)
