"""K-fold training of a bundle, grouped by patient, so that every training label meets a prediction that never
saw it.

Each fold is the bundle's own ``train.json`` on the other folds' cases, trained to its last epoch: nothing is
chosen by the held-out labels, which are what is in question. The held-out cases go through
``validate#dataset`` and ``validate#inferer``, so labels and images come in whatever form the bundle reads.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.audit.evidence import Evidence, grey_levels, save_evidence, turn, unit_of
from medseg.audit.patients import group_of, patient_of
from medseg.bundles.config import build, load_config
from medseg.bundles.datalist import check_datalist
from medseg.bundles.find import Bundle
from medseg.errors import BundleError, GeometryError, sizes, why
from medseg.files import load_json, make_folder, write_json
from medseg.geometry import Geometry

RECORD, LAST = "fold.json", "last.pt"
TAKEN = ("datalist", "dataset_dir", "ckpt_dir", "output_dir", "resume", "val_interval")
"""Settings of train.json that an audit sets itself."""


@dataclass(frozen=True)
class Fold:
    """One training and what it predicts. ``settings``: overrides of train.json. ``predictions``: the folder
    of its cases."""

    bundle: Bundle
    dataset_dir: Path
    training: tuple[dict, ...]
    held_out: tuple[dict, ...]
    folder: Path
    predictions: Path
    settings: Mapping[str, Any]
    number: int = -1
    group_key: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hex digest of what the predictions depend on: configuration, settings, cases, and sizes and times
        of files."""
        config = (self.bundle.folder / "configs" / "train.json").read_bytes()
        files = [
            _stamp(self.dataset_dir / case[key])
            for case in (*self.training, *self.held_out)
            for key in ("image", "label")
            if isinstance(case[key], str)  # a class's number is among the words
        ]
        words = [dict(self.settings), self.training, self.held_out, str(self.dataset_dir), files]
        return hashlib.sha256(config + json.dumps(words, sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> tuple:
    if not path.exists():
        return (str(path),)
    state = path.stat()
    return (str(path), state.st_size if path.is_file() else 0, state.st_mtime_ns)


def save_predictions(fold: Fold, parser) -> None:
    """Write what the network in ``parser`` gives each held-out case, as evidence."""
    for evidence in predictions(fold, parser):
        save_evidence(evidence, fold.predictions)


def run_fold(
    fold: Fold,
    report: Callable[[str], None] = print,
    save: Callable[[Fold, Any], None] = save_predictions,
) -> None:
    """Train a fold, or continue it, and write the predictions of its held-out cases; nothing is done twice.

    ``save``: writes what the network in a parsed train.json answers.

    BundleError when the folder holds a fold of other data or settings, and whatever the bundle's classes
    raise.
    """
    state = _state(fold)
    if state == "done":
        report(f"{fold.folder.name}: done before")
        return
    parser = fold_parser(fold, resume=state == "begun")
    make_folder(fold.folder)
    make_folder(fold.predictions)
    datalist = fold.folder / "datalist.json"
    write_json({"training": fold.training, "validation": fold.held_out}, datalist)
    check_datalist(datalist, fold.dataset_dir)
    write_json({"fingerprint": fold.fingerprint, "done": False}, fold.folder / RECORD)
    with _quiet():
        _train(fold, parser, report)
        save(fold, parser)
    write_json({"fingerprint": fold.fingerprint, "done": True}, fold.folder / RECORD)
    report(f"{fold.folder.name}: {len(fold.held_out)} cases predicted")


def predict_with_weights(
    fold: Fold,
    seen: Collection[Mapping[str, Any]],
    report: Callable[[str], None] = print,
    save: Callable[[Fold, Any], None] = save_predictions,
) -> None:
    """Write the predictions of the bundle's own weights for the held-out cases, without any training.

    ``seen``: the cases that the weights learned from; BundleError when one of them, or another image of such
    a patient, is to be audited, since a network agrees with what it was taught, right or wrong.
    """
    marks = {mark for case in seen for mark in (str(case["case_id"]), patient_of(case), case.get("image"))}
    known = sorted(
        str(case["case_id"])
        for case in fold.held_out
        if marks & {str(case["case_id"]), patient_of(case), case.get("image")}
    )
    if known:
        raise BundleError(
            f"bundle {fold.bundle.name}: its weights learned from {len(known)} of these cases, the first "
            f"{known[0]}; train folds instead."
        )
    from medseg.bundles.config import load_network

    make_folder(fold.folder)
    make_folder(fold.predictions)
    write_json({"training": fold.training, "validation": fold.held_out}, fold.folder / "datalist.json")
    parser = fold_parser(fold, resume=False)
    with _quiet():
        trained = load_network(fold.bundle, parser, build(fold.bundle, parser, "device"))
        build(fold.bundle, parser, "network").load_state_dict(trained.state_dict())
        save(fold, parser)
    report(f"{len(fold.held_out)} cases predicted by the weights of {fold.bundle.name}")


def _state(fold: Fold) -> str:
    """ "new", "begun" or "done". BundleError for a folder that was begun with other data or settings."""
    path = fold.folder / RECORD
    if not path.exists():
        return "new"
    try:
        record = load_json(path)
        same = record["fingerprint"] == fold.fingerprint
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: not the record of a fold ({why(error)}); delete the folder.") from error
    if not same and not (fold.folder / LAST).exists():
        return "new"
    if not same:
        raise BundleError(
            f"{fold.folder}: was trained with other data, labels or settings; choose another output folder "
            f"or delete it."
        )
    return "done" if record["done"] else "begun"


def fold_parser(fold: Fold, resume: bool):
    """The parsed train.json of a fold. BundleError for an unknown setting or one that an audit sets
    itself."""
    own = sorted(set(fold.settings) & set(TAKEN))
    if own:
        raise BundleError(
            f"{', '.join(own)}: set by the audit itself; it takes the other settings of train.json."
        )
    out = str(fold.folder)
    settings = {
        **fold.settings,
        "datalist": str(fold.folder / "datalist.json"),
        "dataset_dir": str(fold.dataset_dir),
        "ckpt_dir": out,
        "output_dir": out,
        "resume": resume,
    }
    epochs = load_config(fold.bundle, "train", settings)["epochs"]
    # Never reached: a validation would choose the weights that please the labels in question.
    return load_config(fold.bundle, "train", {**settings, "val_interval": epochs + 1})


def _train(fold: Fold, parser, report: Callable[[str], None]) -> None:
    from ignite.engine import Events

    from medseg.training.checkpoints import load_checkpoint, load_weights

    last, epochs = fold.folder / LAST, parser["epochs"]
    if last.exists():
        state = load_checkpoint(last)
        if state["trainer"]["epoch"] >= epochs:
            load_weights(build(fold.bundle, parser, "network"), state["network"], last)
            return
    build(fold.bundle, parser, "initialize")
    trainer = build(fold.bundle, parser, "train#trainer")

    def tell(engine) -> None:
        weights = build(fold.bundle, parser, "network").state_dict().values()
        if not all(bool(values.isfinite().all()) for values in weights):
            raise BundleError(
                f"{fold.folder.name}: the training diverged in epoch {engine.state.epoch} (weights are not "
                f"finite); delete {fold.folder} and try a lower learning_rate, or amp=false."
            )
        report(f"{fold.folder.name}: epoch {engine.state.epoch} of {epochs}")

    trainer.add_event_handler(Events.EPOCH_COMPLETED, tell)
    trainer.run()
    if not last.exists():
        raise BundleError(
            f"bundle {fold.bundle.name}: train.json keeps no {LAST}; add "
            "medseg.training.checkpoints.Checkpoints to it."
        )


def predictions(fold: Fold, parser) -> Iterator[Evidence]:
    """The held-out cases on the network's grid, with the network as it is in ``parser``."""
    import torch

    network, inferer = (build(fold.bundle, parser, name) for name in ("network", "validate#inferer"))
    device, dataset = (build(fold.bundle, parser, name) for name in ("device", "validate#dataset"))
    to_probability = probability_steps(build(fold.bundle, parser, "validate#postprocessing"))
    names = channel_names(fold.bundle)
    network.eval()
    for number, case in enumerate(fold.held_out):
        sample = dataset[number]
        with torch.inference_mode():
            logits = inferer(sample["image"][None].to(device), network)
        output = {"pred": logits[0].float().cpu()}
        for step in to_probability:
            output = step(output)
        evidence = _evidence(case, sample, output["pred"].numpy(), names)
        yield replace(evidence, fold=fold.number, group=group_of(case, fold.group_key))


def probability_steps(postprocessing) -> list:
    """The steps of validate#postprocessing up to the one that makes masks of the probabilities."""
    from monai.transforms import AsDiscreted

    steps = list(getattr(postprocessing, "transforms", []))
    cut = next((number for number, step in enumerate(steps) if isinstance(step, AsDiscreted)), len(steps))
    return steps[:cut]


def channel_names(bundle: Bundle) -> list[str]:
    """Structures in the order of the network's channels, from metadata.json. BundleError when it does not
    say."""
    try:
        defined = bundle.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        return [str(defined[key]) for key in sorted(defined, key=int)]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"bundle {bundle.name}: metadata.json has no channel_def of its outputs ({why(error)})."
        ) from error


def _evidence(
    case: Mapping[str, Any], sample: Mapping[str, Any], probability: np.ndarray, names: list[str]
) -> Evidence:
    name, label, image = str(case["case_id"]), np.asarray(sample["label"]), np.asarray(sample["image"])
    if label.shape[0] == 1 and len(names) > 1:  # class numbers
        label = np.stack([label[0] == number for number in range(len(names))]).astype(np.float32)
    if label.shape != probability.shape or label.shape[1:] != image.shape[1:] or len(label) != len(names):
        raise GeometryError(
            f"{name}: label of {sizes(label.shape)}, prediction of {sizes(probability.shape)}, image of "
            f"{sizes(image.shape)} values for {len(names)} structures; label and image must have one size."
        )
    affine_ras = np.asarray(getattr(sample["image"], "affine", np.eye(4)), dtype=np.float64)
    kept = [number for number, structure in enumerate(names) if structure.lower() != "background"]
    known = ~np.isnan(label.reshape(len(label), -1)).any(1)
    masks, affine = turn(np.nan_to_num(label) > 0.5, affine_ras)
    if affine is None:
        scale = np.abs(np.linalg.norm(affine_ras[:2, :2], axis=0))
        spacing = (float(scale[1]), float(scale[0]))
    else:
        spacing = tuple(float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))
    return Evidence(
        name,
        tuple(names[number] for number in kept),
        masks[kept],
        known[kept],
        np.clip(turn(probability, affine_ras)[0][kept], 0, 1),
        grey_levels(turn(image[:1], affine_ras)[0][0]),
        spacing,
        unit_of(str(case["image"])),
        affine,
        str(case["image"]),
        str(case["label"]),
        own_slices=own_slices(sample["image"]) if affine is not None else None,
    )


def own_slices(image) -> Geometry | None:
    """The slices of a loaded image (a MetaTensor) before any transform; None where nothing says so.

    What CaseReader read is asked again, since uneven and tilted slices come on a regular grid; of others
    MONAI keeps the first affine and shape.
    """
    from medseg.transforms.readers import ALLOW_KEY, case_of

    meta = getattr(image, "meta", {})
    if ALLOW_KEY in meta:
        return case_of(meta).geometry
    affine_ras, shape = meta.get("original_affine"), np.asarray(meta.get("spatial_shape", ()))
    if affine_ras is None or np.shape(affine_ras) != (4, 4) or shape.size != 3:
        return None
    return Geometry.from_ras_affine(np.asarray(affine_ras, dtype=np.float64), shape.tolist())


@contextmanager
def _quiet() -> Iterator[None]:
    """MONAI and ignite log every epoch and, for an error, its traceback; errors come up as one line here."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
