"""What the strategies go by, for every image: how sure the model is, and what the image looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.bundles.queue import QueuedJob
from medseg.errors import MedsegError
from medseg.files import load_json, make_folder, write_json
from medseg.serve.monai_label.images import voxels_of
from medseg.serve.monai_label.inference import Question

if TYPE_CHECKING:
    from medseg.serve.monai_label.images import Image
    from medseg.serve.monai_label.models import Model
    from medseg.serve.monai_label.service import Service
    from medseg.serve.monai_label.tasks import Report

COARSE = 4
PASSES = 5
"""Of MC-dropout, where the network has dropout."""

QUANTILES = np.linspace(0.0, 1.0, 17)


def features(volume: np.ndarray) -> list[float]:
    """81 numbers of an image [slice, row, column]: the means of 4 x 4 x 4 blocks, and 17 quantiles of its
    grey levels. An image with fewer than four voxels along an axis repeats blocks."""
    means = []
    for slab in _parts(volume, 0):
        for rows in _parts(slab, 1):
            means += [float(block.mean()) for block in _parts(rows, 2)]
    return [round(value, 4) for value in (*means, *np.quantile(volume, QUANTILES).tolist())]


def _parts(array: np.ndarray, axis: int) -> list[np.ndarray]:
    edges = np.linspace(0, array.shape[axis], COARSE + 1)
    parts = []
    for low, high in zip(edges, edges[1:], strict=False):
        start = min(int(low), array.shape[axis] - 1)
        parts.append(np.take(array, range(start, max(int(high), start + 1)), axis=axis))
    return parts


def entropy(*passes) -> float:
    """Mean binary entropy, in nat, of the mean probabilities behind logits (C, x, y, z), one or more passes:
    0 where the model is sure everywhere, ln 2 where it knows nothing or its passes contradict each other."""
    import torch

    p = sum(torch.sigmoid(torch.as_tensor(logits).float()) for logits in passes) / len(passes)
    return float(-(torch.special.xlogy(p, p) + torch.special.xlogy(1 - p, 1 - p)).mean())


def wake_dropout(network) -> bool:
    """Let the dropout of a network that predicts drop again, as in training, for the passes of MC-dropout
    (Gal and Ghahramani 2016); False for a network without any."""
    sleeping = [part for part in network.modules() if "Dropout" in type(part).__name__ and part.p > 0]
    for part in sleeping:
        part.train()
    return bool(sleeping)


def score(service: Service, job: QueuedJob, report: Report) -> Mapping[str, Any]:
    """Score every image that these weights have not scored yet; {"scored", "failed": {image: why}}."""
    model = service.models.get(str(job.payload["model"]))
    folder = service.places.scores / model.bundle.weights_sha256[:16]
    make_folder(folder)
    key = "entropy" if job.payload["method"] == "uncertain" else "features"
    pipeline = _pipeline(model, folder) if key == "entropy" else None
    ids, failed, scored = service.ids_for(model), {}, 0
    for number, image_id in enumerate(ids):
        report(number / max(len(ids), 1), f"{number} of {len(ids)} images")
        try:
            image = service.images.local(image_id)
            file = folder / f"{image.key}.json"
            row = load_json(file) if file.exists() else {"image": image.id}
            if key not in row:
                row[key] = _entropy_of(image, pipeline) if pipeline else features(voxels_of(image))
                write_json(row, file)
            scored += 1
        except MedsegError as error:
            failed[image_id] = str(error)
    return {"scored": scored, "failed": failed}


def _pipeline(model: Model, staging: Path):
    from medseg.bundles.job import Pipeline
    from medseg.bundles.request import Request

    # torch, since other engines have no dropout left.
    return Pipeline(model.bundle, Request(staging, model.bundle, staging, engine="torch"), (), staging)


def _entropy_of(image: Image, pipeline) -> float:
    from contextlib import nullcontext

    import torch

    def stage(name: str):
        return nullcontext()

    item = pipeline.prepare({"image": image.source, "case_name": image.key}, stage)
    torch.manual_seed(0)
    passes = PASSES if wake_dropout(pipeline.network) else 1
    return entropy(*(pipeline.predict(item, stage)["pred"] for _ in range(passes)))


def batch(service: Service, job: QueuedJob, report: Report) -> Mapping[str, Any]:
    """Put a question for each image in the queue of the contouring workers and wait for the answers; {"done":
    [image, …], "failed": {image: why}}. ``images``: "all", or "unlabeled"/"labeled"."""
    model, wanted = service.models.get(str(job.payload["model"])), str(job.payload["images"])
    labelled = {version.image for version in service.labels.all() if not version.is_withdrawn}
    ids = [
        one for one in service.ids_for(model) if wanted == "all" or (one in labelled) == (wanted == "labeled")
    ]
    asked, failed, done = {}, {}, []
    for image_id in ids:
        try:
            question = Question(model, service.images.local(image_id), job.owner)
            asked[image_id] = service.inference.ask(question)
        except MedsegError as error:
            failed[image_id] = str(error)
    for number, (image_id, job_id) in enumerate(asked.items()):
        while True:
            report(number / len(asked), f"{number} of {len(asked)} images")
            state = service.inference.queue.get(job_id)
            if state.state == "done":
                done.append(image_id)
            elif state.state in ("waiting", "running"):
                report.pause()
                continue
            else:
                failed[image_id] = state.reason or state.state
            break
    return {"done": done, "failed": failed}
