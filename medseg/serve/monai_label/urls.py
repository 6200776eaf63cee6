"""The addresses of the protocol, for a Django site of any kind: no setting of a project is read here."""

from __future__ import annotations

from pathlib import Path

from django.urls import URLPattern, path

from medseg.serve.monai_label.door import ANYONE, Door
from medseg.serve.monai_label.ohif import OhifViews
from medseg.serve.monai_label.proxy import ProxyViews
from medseg.serve.monai_label.views_infer import InferViews
from medseg.serve.monai_label.views_store import StoreViews
from medseg.serve.monai_label.views_tasks import TaskViews

USER, REVIEWER, ADMIN = "annotator", "reviewer", "admin"


def addresses(door: Door, log: Path | None = None, ohif: Path | None = None) -> list[URLPattern]:
    """The urlpatterns of a service; a site may mount them under any prefix with ``include``."""
    infer, store = InferViews(door.service), StoreViews(door.service)
    tasks, proxy, viewer = TaskViews(door.service, door.known, log), ProxyViews(door.service), OhifViews(ohif)
    view = door.view
    label = view(GET=(USER, store.label), PUT=(USER, store.save_label), DELETE=(REVIEWER, store.remove_label))
    train = view(GET=(USER, tasks.train_status), POST=(ADMIN, tasks.train), DELETE=(ADMIN, tasks.stop_train))
    dicom = view(GET=(USER, proxy.fetch), POST=(USER, proxy.store))
    return [
        path("info/", view(GET=(USER, tasks.info))),
        path("auth/", view(GET=(ANYONE, tasks.auth))),
        path("auth/token", view(POST=(ANYONE, tasks.token))),
        path("auth/token/valid", view(GET=(USER, tasks.whoami))),
        path("session/", view(PUT=(USER, store.create_session))),
        path("session/<str:session>", view(GET=(USER, store.session), DELETE=(USER, store.remove_session))),
        path("infer/jobs/<str:job>", view(GET=(USER, infer.job), DELETE=(USER, infer.cancel))),
        path("infer/<str:model>", view(POST=(USER, infer.infer))),
        path("activelearning/<str:strategy>", view(POST=(USER, tasks.next_sample))),
        path("datastore/", view(GET=(USER, store.datastore), PUT=(ADMIN, store.add_image))),
        path("datastore/image", view(GET=(USER, store.image), PUT=(ADMIN, store.add_image))),
        path("datastore/image/info", view(GET=(USER, store.image_info))),
        path("datastore/label", label),
        path("datastore/label/info", view(GET=(USER, store.label_info), PUT=(USER, store.note_label))),
        path("train/", train),
        path("train/<str:model>", train),
        path("train/<str:model>/version", view(PUT=(ADMIN, tasks.use_version))),
        path("scoring/", view(GET=(USER, tasks.score_status), DELETE=(ADMIN, tasks.stop_score))),
        path("scoring/<str:method>", view(POST=(REVIEWER, tasks.score))),
        path("batch/infer", view(GET=(USER, tasks.batch_status), DELETE=(ADMIN, tasks.stop_batch))),
        path("batch/infer/", view(GET=(USER, tasks.batch_status), DELETE=(ADMIN, tasks.stop_batch))),
        path("batch/infer/<str:model>", view(POST=(ADMIN, tasks.batch))),
        path("logs/", view(GET=(ADMIN, tasks.logs))),
        path("proxy/dicom/wado/<path:path>", dicom),
        path("proxy/dicom/qido/<path:path>", dicom),
        path("ohif/", view(GET=(ANYONE, viewer.file))),
        path("ohif/<path:path>", view(GET=(ANYONE, viewer.file))),
    ]
