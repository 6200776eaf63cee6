"""Training from submitted labels: in a copy of the bundle, and taken only when it is better on cases that
never train."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.bundles.find import Bundle, read_json
from medseg.bundles.queue import QueuedJob, UnknownJob
from medseg.bundles.trust import WEIGHTS_KEY
from medseg.errors import BundleError, InputError, MedsegError
from medseg.files import load_json, make_folder, mark, sweep, write_json
from medseg.serve.monai_label.export import Chosen, choose_labels, patient_key, write_training_case

if TYPE_CHECKING:
    from medseg.serve.monai_label.models import Model
    from medseg.serve.monai_label.service import Service
    from medseg.serve.monai_label.tasks import Report

OVERLAY = "medseg_label_start"
"""The config that lets a training begin with the weights there are; only the working copy has it."""

METRIC = "val_dice"
CURVE = "curve.csv"
WORKING = ".training-"
LEAST_PATIENTS = 2


def train(service: Service, job: QueuedJob, report: Report) -> Mapping[str, Any]:
    """Train a model of ``job.payload`` and, if it is better, take it into use; the record of what happened.

    A job that was interrupted goes on where it was; its folder, which holds copies of images, goes at its end
    in any other case. InputError for labels of fewer than two patients.
    """
    model = service.models.get(str(job.payload["model"]))
    place = service.places.models / model.name
    folder = place / f"{WORKING}{job.id}"
    _clear(service, place)
    make_folder(folder / "data")
    try:
        record = _trained(service, job, report, model, folder)
    except MedsegError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return record


def _clear(service: Service, place: Path) -> None:
    """Remove what trainings left that nobody will go on with."""
    for folder in place.glob(f"{WORKING}*"):
        try:
            goes_on = service.chores.get(folder.name.removeprefix(WORKING)).state in ("waiting", "running")
        except UnknownJob:
            goes_on = False
        if not goes_on:
            shutil.rmtree(folder, ignore_errors=True)


def _trained(
    service: Service, job: QueuedJob, report: Report, model: Model, folder: Path
) -> Mapping[str, Any]:
    asked = job.payload
    chosen = _labelled(service, model, asked)
    kept_apart = fixed_validation(
        service.places.models / model.name, chosen, float(asked.get("validation", 0.2))
    )
    rows = []
    for number, one in enumerate(chosen):
        report(0.1 * number / len(chosen), f"writing case {number + 1} of {len(chosen)}")
        rows.append(write_training_case(one, model.bundle, folder / "data"))
    sections = {"training": [], "validation": []}
    for row in rows:
        sections["validation" if row["patient_id"] in kept_apart else "training"].append(row)
    write_json(sections, folder / "datalist.json")
    from medseg.training import read_curve

    copy = working_copy(model, folder)
    settings = {"dataset_dir": str(folder / "data"), "datalist": str(folder / "datalist.json")}
    report(0.1, "training")
    _run_training(copy, folder, settings, asked)
    report(0.8, "comparing")
    scores = {
        name: evaluate(copy, weights, folder / f"eval_{name}", settings)
        for name, weights in (("before", model.bundle.weights.parent), ("after", folder / "ckpt"))
    }
    record = {
        "model": model.name,
        "started_from": model.words,
        "score_before": scores["before"],
        "score_after": scores["after"],
        "metric": "mean Dice of the validation cases",
        "accepted": scores["after"] > scores["before"],
        "curve": read_curve(folder / CURVE),
        "training": [row["case_id"] for row in sections["training"]],
        "validation": [row["case_id"] for row in sections["validation"]],
        "labels": sorted(version for one in chosen for version in one.versions),
        "settings": {key: asked[key] for key in ("epochs", "fuse", "method", "annotators") if asked.get(key)},
        "ended": datetime.now(timezone.utc).isoformat(),
    }
    if record["accepted"]:
        record["version"] = publish(service, model, folder / "ckpt" / "model.pt", record)
    return record


def _labelled(service: Service, model: Model, asked: Mapping[str, Any]) -> list[Chosen]:
    annotators = [name for name in str(asked.get("annotators") or "").split(",") if name]
    chosen = []
    for image_id in service.ids_for(model):
        versions = service.labels.of(service.images.get(image_id))
        if versions:
            image = service.images.local(image_id)
            one = choose_labels(image, versions, annotators, str(asked.get("fuse") or "majority"))
            if one is not None and any(one.masks[name].any() for name in model.labels if name in one.masks):
                chosen.append(one)
    patients = {patient_key(one.image) for one in chosen}
    if len(patients) < LEAST_PATIENTS:
        raise InputError(
            f"labels of {len(patients)} patients with {', '.join(model.labels)}; expected at least "
            f"{LEAST_PATIENTS}: one to learn from and one to compare by."
        )
    return chosen


def fixed_validation(folder: Path, chosen: Sequence[Chosen], share: float) -> frozenset[str]:
    """The patients by whom trainings of a model are compared: drawn at the first training, by digest, and the
    same ever after. Later patients train. InputError when none of them has a label now, or nobody else."""
    if not 0 < share < 1:
        raise InputError(f"validation {share}: expected a share between 0 and 1.")
    make_folder(folder)
    file = folder / "validation.json"
    patients = sorted({patient_key(one.image) for one in chosen})
    if not file.exists():
        count = min(max(1, round(share * len(patients))), len(patients) - 1)
        write_json({"patients": patients[:count]}, file)
    kept_apart = frozenset(load_json(file)["patients"])
    if not kept_apart & set(patients) or not set(patients) - kept_apart:
        raise InputError(
            f"{len(patients)} patients have labels, {len(kept_apart & set(patients))} of them kept for "
            "comparing; expected at least one on either side."
        )
    return kept_apart


def working_copy(model: Model, folder: Path) -> Bundle:
    """A copy of the bundle to train in, with a config that begins with the weights there are."""
    copy = folder / model.name
    if not copy.exists():
        shutil.copytree(model.bundle.folder, copy)
    config = read_json(copy / "configs" / "train.json")
    load = "$load_weights(@network, load_checkpoint(Path(@start_weights)), Path(@start_weights))"
    overlay = {
        "imports": [
            *config.get("imports", []),
            "$from pathlib import Path",
            "$from medseg.training.checkpoints import load_checkpoint",
            "$from medseg.training.checkpoints import load_weights",
        ],
        "start_weights": "$@bundle_root + '/models/model.pt'",
        "initialize": [*config.get("initialize", []), load],
    }
    if isinstance(config["validate"].get("handlers"), list):
        row = {"_target_": "medseg.training.MetricCurve", "file": str(folder / CURVE), "metric": METRIC}
        overlay["+validate#handlers"] = [row]
    write_json(overlay, copy / "configs" / f"{OVERLAY}.json")
    return Bundle(model.name, copy, derived_from=model.bundle)


def _run_training(copy: Bundle, folder: Path, settings: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    from medseg.bundles.config import run_config

    make_folder(folder / "ckpt")
    out = {"ckpt_dir": str(folder / "ckpt"), "output_dir": str(folder / "log")}
    epochs = int(asked.get("epochs") or 20)
    chosen = {"epochs": epochs, "val_interval": max(1, epochs // 10)}
    if asked.get("method"):
        chosen["method"] = asked["method"]
    resume = {"resume": True} if (folder / "ckpt" / "last.pt").exists() else {}
    run_config(copy, ["train", OVERLAY], "training", {**settings, **out, **chosen, **resume})
    if not (folder / "ckpt" / "model.pt").exists():
        raise BundleError(f"bundle {copy.name}: the training kept no weights; no validation was ever better.")


def evaluate(copy: Bundle, weights: Path, out: Path, settings: Mapping[str, Any]) -> float:
    """Mean Dice of the weights in a folder over the validation cases, as evaluate.json of the bundle has it.
    BundleError when it leaves no such figure."""
    from medseg.bundles.config import run_config

    make_folder(out)
    run_config(
        copy, ["train", "evaluate"], "run", {**settings, "ckpt_dir": str(weights), "output_dir": str(out)}
    )
    file = out / "metrics.csv"
    rows = list(csv.reader(file.open())) if file.exists() else []
    found = [float(row[1]) for row in rows if len(row) == 2 and row[0] == METRIC]
    if not found:
        raise BundleError(f"bundle {copy.name}: evaluate.json wrote no {METRIC} into metrics.csv.")
    return found[0]


def publish(service: Service, model: Model, weights: Path, record: Mapping[str, Any]) -> str:
    """Keep the new weights as a version of their own, whole, and take it into use; its name."""
    place = service.places.models / model.name
    sweep(place)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    version = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{digest[:8]}"
    unfinished = place / f".partial-{mark()}.{version}"
    copy = unfinished / model.name
    shutil.copytree(model.bundle.folder, copy)
    shutil.copyfile(weights, copy / "models" / "model.pt")
    # Nothing else changes, so that the copy has the code that its operator trusted.
    metadata = {**read_json(copy / "configs" / "metadata.json"), WEIGHTS_KEY: digest}
    write_json(metadata, copy / "configs" / "metadata.json")
    write_json({**record, "version": version}, unfinished / "record.json")
    unfinished.rename(place / version)
    service.models.choose(model.name, version)
    return version
