"""A copy of a bundle with the weights of a training: what scores them, and what a user contours with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.bundles.find import Bundle, read_json
from medseg.bundles.trust import WEIGHTS_KEY, require_trusted, trust
from medseg.errors import BundleError, InputError
from medseg.files import make_folder, staging_folder, write_json

META = "_meta_"
"""What a variant changes of metadata.json, {id: value}, since its network takes or answers something else:
MONAI's name for the metadata in a config. A training is told the bundle's own."""


def with_weights(bundle: Bundle, weights: Path, folder: Path, variant: str | None = None) -> Bundle:
    """The bundle, copied into the new ``folder``, with other weights, what ``configs/<variant>.json`` changes
    of its inference, its training and, under META, its metadata, and no calibration, since the bundle's is of
    its own weights. BundleError for a change of metadata that it has not."""
    changes: dict[str, Any] = {}
    if variant:
        name = bundle.require_variant(variant)
        changes = read_json(bundle.folder / "configs" / f"{name}.json")
    shutil.copytree(bundle.folder, folder)
    make_folder(folder / "models")  # a bundle may come without weights
    shutil.copyfile(weights, folder / "models" / "model.pt")
    for path in (folder / "configs" / name for name in ("inference.json", "train.json")):
        if path.is_file():
            write_json(_uncalibrated(_changed(read_json(path), changes)), path)
    metadata = folder / "configs" / "metadata.json"
    kept = {key: value for key, value in read_json(metadata).items() if key != WEIGHTS_KEY}
    about = changes.get(META, {})
    unknown = [key for key in about if not _has(kept, key)]
    if unknown:
        raise BundleError(
            f"bundle {bundle.name}: {variant}.json changes {', '.join(unknown)} of metadata.json, which has "
            "no such entry."
        )
    write_json(_changed(kept, about), metadata)
    return Bundle(bundle.name, folder, derived_from=bundle)


def _changed(config: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with what it has of ``changes``, {id: value}."""
    for key, value in changes.items():
        if _has(config, key):
            *parents, name = key.split("#")
            node = config
            for parent in parents:
                node = node[parent]
            node[name] = value
    return config


def _has(config: Any, key: str) -> bool:
    for part in key.split("#"):
        if not isinstance(config, Mapping) or part not in config:
            return False
        config = config[part]
    return True


def _uncalibrated(node: Any) -> Any:
    """A config in which no transform has a ``calibration``."""
    if isinstance(node, dict):
        return {key: None if key == "calibration" else _uncalibrated(value) for key, value in node.items()}
    return [_uncalibrated(value) for value in node] if isinstance(node, list) else node


def copy_bundle(
    bundle: Bundle, out: Path, weights: Path, variant: str | None = None, thresholds: Path | None = None
) -> Bundle:
    """A bundle of the user's own in the new folder ``out``: see :func:`with_weights`; ``thresholds``: a file
    for its configs/thresholds.json, as ``medseg score`` writes it on validation cases. It may run, as the one
    that it was copied from may.

    InputError for a folder that exists, and thresholds of a bundle that has none; BundleError for weights
    that do not fit, as those of another variant, and thresholds that are not those of its classes.
    """
    from medseg.bundles.config import load_config, load_network  # here, since it loads torch
    from medseg.transforms.detections import thresholds_of

    require_trusted(bundle)
    if out.exists():
        raise InputError(f"{out}: exists already; name a new folder.")
    with staging_folder(out.parent) as staging:
        copy = with_weights(bundle, weights, staging / out.name, variant)
        digest = {**copy.metadata, WEIGHTS_KEY: copy.weights_sha256}
        write_json(digest, copy.folder / "configs" / "metadata.json")
        inference = copy.folder / "configs" / "inference.json"
        # DICOM files name it as the model that drew.
        config = _changed(read_json(inference), {"bundle_name": out.name})
        write_json(config, inference)
        if thresholds:
            place = copy.folder / "configs" / "thresholds.json"
            if not place.exists():
                raise InputError(f"bundle {bundle.name}: its answers have no thresholds.")
            thresholds_of(str(thresholds), config["classes"])
            shutil.copyfile(thresholds, place)
        copy = Bundle(bundle.name, copy.folder, derived_from=bundle)
        load_network(copy, load_config(copy, "inference", {"device": "cpu"}), "cpu")
        copy.folder.rename(out)
    made = Bundle(out.name, out)
    trust(made)
    return made
