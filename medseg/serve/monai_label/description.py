"""What the server tells of itself: its models, strategies, images, and how far people are."""

from __future__ import annotations

from typing import Any

import medseg
from medseg.bundles.kinds import case_kind
from medseg.serve.monai_label.images import Image
from medseg.serve.monai_label.labels import FINAL, Version, current
from medseg.serve.monai_label.people import Person
from medseg.serve.monai_label.service import Service
from medseg.serve.monai_label.strategies import STRATEGIES
from medseg.serve.monai_label.tasks import SCORINGS

TRAIN_CONFIG = {"epochs": 20, "annotators": "", "fuse": "majority", "method": "", "validation": 0.2}
"""What a client may set of a training, with what is taken otherwise."""


def info(service: Service) -> dict[str, Any]:
    """The answer of ``/info/``. ``labels`` of a model: {structure: its number}, by which OHIF reads masks."""
    models = {name: _model(service, name) for name in service.models.names()}
    trainers = {
        name: {"description": f"Train a copy of {name} from the submitted labels", "config": TRAIN_CONFIG}
        for name in service.models.trained_here()
    }
    return {
        "name": "medseg",
        "description": "Contours by medseg's bundles. Research use only, not a medical device.",
        "version": medseg.__version__,
        "labels": list(dict.fromkeys(label for model in models.values() for label in model["labels"])),
        "models": models,
        "trainers": trainers,
        "strategies": {name: {"description": one.words} for name, one in STRATEGIES.items()},
        "scoring": {name: {"description": words} for name, words in SCORINGS.items()},
        # OHIF draws a model without statistics as one whose training is half through.
        "train_stats": {name: stats for name in models if (stats := service.train_stats(name))},
        "datastore": status(service),
        "config": {},
    }


def _model(service: Service, name: str) -> dict[str, Any]:
    model = service.models.get(name)
    return {
        # What takes points is offered where points are drawn: Slicer's Smart Edit, OHIF's point prompts.
        "type": "deepgrow" if "clicks" in model.bundle.metadata else "segmentation",
        "labels": {label: number for number, label in enumerate(model.labels, 1)},
        "dimension": 3 if case_kind(model.bundle) == "volume" else 2,
        "description": str(model.bundle.metadata.get("task", name)),
        "config": {"within": "", "allow": ""},
        "version": model.version,
        "versions": [one.version for one in service.models.versions(name)],
    }


def status(service: Service) -> dict[str, Any]:
    """How many images there are, how many have a submitted label, and how many labels of each tag."""
    ids, tags, completed = set(service.images.ids()), {}, set()
    for version in service.labels.all():
        if version.image in ids and not version.is_withdrawn:
            tags[version.tag] = tags.get(version.tag, 0) + 1
            if version.tag == FINAL:
                completed.add(version.image)
    return {"total": len(ids), "completed": len(completed), "label_tags": tags}


def objects(service: Service, person: Person) -> dict[str, Any]:
    """Every image with the current labels that the person may see, as ``/datastore/?output=all`` tells."""
    by_image: dict[str, list[Version]] = {}
    for version in service.labels.all():
        if person.owns(version.annotator):
            by_image.setdefault(version.image, []).append(version)
    found = {}
    for image_id in service.images.ids():
        image, labels = service.images.get(image_id), {}
        seen = by_image.get(image_id, [])
        for tag in dict.fromkeys(version.tag for version in seen):
            version = current(seen, tag)
            if version is not None:
                labels[tag] = {"ext": ".nii.gz", "info": version.record()}
        versions = [version.record() for version in seen]
        about = {"ext": _suffix(image), "info": dict(image.info)}
        found[image_id] = {"image": about, "labels": labels, "versions": versions}
    return {"name": "medseg", "description": "", "objects": found}


def _suffix(image: Image) -> str:
    return ".nii.gz" if str(image.info.get("name", "")).endswith(".gz") else ".nii"
