"""A site to look at: one account, one study that is contoured already."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from django.contrib.auth.models import User

from medseg.errors import MedsegError
from medseg.phantoms.thigh import write_thigh_phantom
from medseg.serve.processes import Group
from medseg.serve.web import tasks
from medseg.serve.web.accounts import new_account
from medseg.serve.web.intake import bytes_of, take_in_folder
from medseg.serve.web.models import Job, Study
from medseg.serve.web.site import the_site

ACCOUNT = "demo"
TITLE = "Demo: phantom of a thigh with a sarcoma"
BUNDLE = "mm_gtv"
MARGINS_MM = {"ctv_margin_mm": "10", "ptv_margin_mm": "5"}
LONGEST_S = 600.0


def make_demo() -> tuple[str, str, Job | None]:
    """Make the account, with a new password at every start, and the study with its job, where they are not
    there yet. Returns (account, password, the job; None where the site does not offer the bundle)."""
    password = new_account(ACCOUNT, "reviewer")
    user = User.objects.get(username=ACCOUNT)
    if BUNDLE not in the_site().bundles:
        return ACCOUNT, password, None
    for study in Study.objects.filter(owner=user, title=TITLE, ready=True):
        job = study.jobs.first()
        if job is not None and tasks.state(job) in ("done", *tasks.UNFINISHED):
            return ACCOUNT, password, job
    study = Study(owner=user, title=TITLE)
    with tempfile.TemporaryDirectory(dir=the_site().data_dir / "incoming") as folder:
        phantom = write_thigh_phantom(Path(folder))
        study.declared_bytes = bytes_of(phantom.ct_dir)
        study.save()
        take_in_folder(study, phantom.ct_dir)
    low, high = phantom.box_lps_mm
    box = {
        f"within_{axis}{end}": f"{pair[end]:.1f}"
        for axis, *pair in zip("xyz", low, high, strict=True)
        for end in (0, 1)
    }
    job = tasks.submit(study, "series", "s0001", BUNDLE, {**box, **MARGINS_MM})
    return ACCOUNT, password, job


def wait_for(job: Job, group: Group) -> None:
    """Until the job is done, with the site's processes kept running. MedsegError when it fails or takes too
    long."""
    deadline = time.monotonic() + LONGEST_S
    while not group.stopped.wait(0.5):
        group.keep()
        progress = tasks.progress(job)
        if progress["state"] == "done":
            return
        if progress["state"] not in tasks.UNFINISHED:
            raise MedsegError(f"the demo study was not contoured: {progress['reason']}")
        if time.monotonic() > deadline:
            raise MedsegError("the demo study took too long to contour.")
