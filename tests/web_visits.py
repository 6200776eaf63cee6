"""Visits to the web application, for fixtures of every scope: who, what is sent, what is worked on."""

from __future__ import annotations

import threading


def client_of(name: str):
    """A browser that a new user of that name is logged in with."""
    from django.contrib.auth.models import User
    from django.test import Client

    from medseg.serve.web.accounts import new_account

    client = Client()
    client.username = name
    new_account(name, "user")
    client.force_login(User.objects.get(username=name))
    return client


def send(client, files: dict[str, bytes], **fields):
    """Upload by the plain form; returns the answer."""
    from django.core.files.uploadedfile import SimpleUploadedFile

    sent = [SimpleUploadedFile(name, content) for name, content in files.items()]
    return client.post("/upload/", {"title": "a study", **fields, "files": sent})


def do_the_work() -> None:
    """What a worker process does until nothing waits, for every bundle of the site."""
    from medseg.bundles.worker import work
    from medseg.serve.web.site import the_site
    from medseg.serve.web.tasks import the_queue

    class UntilEmpty(threading.Event):
        def is_set(self) -> bool:
            return the_queue().counts()["waiting"] == 0

    work(the_queue(), bundles=the_site().bundles, stop=UntilEmpty())


def answered(client, study: str, **form: str) -> str:
    """Put a job of an uploaded study into the queue and do it; returns the job's address."""
    answer = client.post(f"{study}contour", form)
    assert answer.status_code == 302, answer.content.decode()[-800:]
    do_the_work()
    return answer.url
