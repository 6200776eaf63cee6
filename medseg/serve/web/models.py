"""What the web application remembers: studies, jobs, comparisons, who did what, and failed log-ins.

Files lie in ``studies/<id>/``; a job's state lies in the queue (:mod:`medseg.bundles.queue`), which other
doors share. No patient's name is kept in either.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models

from medseg.serve.web.site import the_site


def new_id() -> str:
    return uuid.uuid4().hex


class Study(models.Model):
    """What a user uploaded at once: ``contents`` says what it holds (:mod:`medseg.serve.web.contents`)."""

    id = models.CharField(primary_key=True, max_length=32, default=new_id)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    created = models.DateTimeField(auto_now_add=True)
    title = models.CharField(max_length=120)
    ready = models.BooleanField(default=False)
    deidentify = models.BooleanField(default=False)
    declared_bytes = models.BigIntegerField(default=0)
    contents = models.JSONField(default=dict)

    class Meta:
        ordering = ["-created"]

    @property
    def folder(self) -> Path:
        return the_site().studies_dir / self.id

    @property
    def incoming(self) -> Path:
        """Where an upload grows, as long as it is not ready."""
        return self.folder / "incoming"


class Job(models.Model):
    """One contouring; its ``id`` is the queue's."""

    id = models.CharField(primary_key=True, max_length=32)
    study = models.ForeignKey(Study, models.CASCADE, related_name="jobs")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    created = models.DateTimeField(auto_now_add=True)
    bundle = models.CharField(max_length=200)
    folder_name = models.CharField(max_length=32)
    reviewed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    reviewed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]

    @property
    def folder(self) -> Path:
        return self.study.folder / "jobs" / self.folder_name


class Comparison(models.Model):
    """Two structure sets of one study against each other; the report lies in ``folder``."""

    id = models.CharField(primary_key=True, max_length=32, default=new_id)
    study = models.ForeignKey(Study, models.CASCADE, related_name="comparisons")
    created = models.DateTimeField(auto_now_add=True)
    reference = models.CharField(max_length=200)
    other = models.CharField(max_length=200)
    problem = models.TextField(default="")

    class Meta:
        ordering = ["-created"]

    @property
    def folder(self) -> Path:
        return self.study.folder / "comparisons" / self.id


class Event(models.Model):
    """The audit trail: who did what, when and from where. It outlives what it speaks of."""

    time = models.DateTimeField(auto_now_add=True, db_index=True)
    user = models.CharField(max_length=150)
    address = models.CharField(max_length=45)
    action = models.CharField(max_length=40)
    about = models.CharField(max_length=200)

    class Meta:
        ordering = ["-time", "-id"]


class FailedLogIn(models.Model):
    """Counted by :mod:`medseg.serve.web.lockout`."""

    time = models.DateTimeField(auto_now_add=True, db_index=True)
    account = models.CharField(max_length=150, db_index=True)
    address = models.CharField(max_length=45, db_index=True)
