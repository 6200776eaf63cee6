"""Write an imported model as a bundle: configs, weights and card, in one piece or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.bundles.find import Bundle, bundle_folders
from medseg.bundles.importers.plain import require_plain
from medseg.bundles.trust import WEIGHTS_KEY, trust
from medseg.errors import InputError
from medseg.files import make_folder, write_json

if TYPE_CHECKING:
    import torch

VERSION = "1.0.0"
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
NOT_EVALUATED = "**Not evaluated by medseg.**"
"""Stands in the card until cases of the user's own were scored."""

INTENDED_USE = "Research only. Not a medical device; every contour must be reviewed by a qualified person."


@dataclass(frozen=True, eq=False)
class Imported:
    """What makes a bundle of an imported model.

    ``title``: what it is, in a line. ``stages``, ``networks``: of :class:`medseg.inference.NnunetInferer`:
    per stage its fields, and the definition of its network with the weights of every fold. ``structures``:
    of :class:`medseg.transforms.LabelsToStructuresd`. ``series``: {item key: modality}. ``axcodes``: how the
    image is turned first. ``files``: what it was made from. ``licence``: as the model states it.
    """

    title: str
    source: str
    stages: Sequence[Mapping[str, Any]]
    networks: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, torch.Tensor]]]]
    structures: Sequence[Mapping[str, Any]]
    series: Mapping[str, str]
    axcodes: str | None
    files: Sequence[Path]
    licence: str
    remarks: Sequence[str] = field(default=())


def write_bundle(model: Imported, folder: Path) -> Bundle:
    """The bundle in ``folder``, which must be new; recorded as one that this user lets run, since nothing of
    the model became code. InputError for a folder that exists and for a text that would be code."""
    import torch

    if folder.exists():
        raise InputError(f"{folder}: exists already; name a new folder.")
    for part in (folder.name, model.licence, model.title, model.stages, model.structures, model.series):
        require_plain(part, model.source)
    make_folder(folder.parent)
    staging = folder.with_name(f".{folder.name}.part{os.getpid()}")
    try:
        for name in ("configs", "models", "docs"):
            (staging / name).mkdir(parents=True)
        torch.save(_state(model), staging / "models" / "model.pt")
        digest = hashlib.sha256((staging / "models" / "model.pt").read_bytes()).hexdigest()
        write_json(_metadata(model, folder.name, digest), staging / "configs" / "metadata.json")
        write_json(_inference(model, folder.name), staging / "configs" / "inference.json")
        shipped = next(iter(bundle_folders().values()))
        shutil.copyfile(shipped / "configs" / "logging.conf", staging / "configs" / "logging.conf")
        (staging / "LICENSE").write_text(_licence(model), encoding="utf-8")
        (staging / "docs" / "README.md").write_text(_card(model, folder.name, digest), encoding="utf-8")
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    bundle = Bundle(folder.resolve().name, folder.resolve())
    trust(bundle)
    return bundle


def _state(model: Imported) -> dict[str, torch.Tensor]:
    """The weights under the names that :class:`medseg.networks.Stages` gives them."""
    return {
        f"stages.{stage}.{fold}.{name}": tensor
        for stage, (_, folds) in enumerate(model.networks)
        for fold, weights in enumerate(folds)
        for name, tensor in weights.items()
    }


def _digests(model: Imported) -> dict[str, str]:
    """{parent/name: SHA-256} of the files it was made from."""
    return {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in model.files
    }


def _metadata(model: Imported, name: str, digest: str) -> dict[str, Any]:
    import monai
    import numpy
    import torch

    import medseg

    names = [str(structure["name"]) for structure in model.structures]
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: f"imported from {model.source}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": numpy.__version__,
        "required_packages_version": {
            "medseg": medseg.__version__,
            "dynamic-network-architectures": "0.4",
        },
        "name": model.title,
        "task": f"Contour {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
        "description": f"{model.title}; imported from {model.source}",
        "authors": "those of the imported weights",
        "copyright": f"of the weights: {model.licence}",
        "intended_use": INTENDED_USE,
        "inference_only": True,
        "imported": {
            "source": model.source,
            "licence": model.licence,
            "remarks": list(model.remarks),
            "sha256": _digests(model),
        },
        **({"modalities": dict(model.series)} if len(model.series) > 1 else {}),
        "network_data_format": _data_format(model),
        WEIGHTS_KEY: digest,
    }


def _data_format(model: Imported) -> dict[str, Any]:
    """What goes into the first network and what comes out of it."""
    network, words = model.networks[0][0], list(model.series.values())
    shape = {"spatial_shape": list(model.stages[0]["patch_size"]), "dtype": "float32", "is_patch_data": True}
    image = {
        "type": "image",
        "format": "hounsfield" if words[0] == "CT" else "magnitude",
        "modality": words[0].partition(":")[0],
        "num_channels": int(network["input_channels"]),
        **shape,
        "value_range": [],
        "channel_def": {str(number): word for number, word in enumerate(words)},
    }
    pred = {
        "type": "image",
        "format": "segmentation",
        "num_channels": int(network["num_classes"]),
        **shape,
        "value_range": [],
        "channel_def": {
            str(label): structure["name"] for structure in model.structures for label in structure["labels"]
        },
    }
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}


def _preprocessing(model: Imported) -> list[dict[str, Any]]:
    others = [key for key in model.series if key != "image"]
    steps: list[dict[str, Any]] = [
        {"_target_": "medseg.transforms.LoadCased", "keys": "image", "allow": "@allow"},
        {"_target_": "medseg.transforms.CropWithind", "keys": "image", "within": "@within"},
    ]
    if model.axcodes:
        turn = {"axcodes": model.axcodes, "labels": None}
        steps.append({"_target_": "Orientationd", "keys": "image", **turn})
    if others:
        steps.append({"_target_": "medseg.transforms.LoadSeriesd", "keys": others})
        steps.append({"_target_": "ConcatItemsd", "keys": ["image", *others], "name": "image"})
    return steps


def writers() -> list[dict[str, Any]]:
    """The steps that write structures, each when its format is wanted."""
    common = {"keys": "structures", "output_dir": "@output_dir"}
    named = {**common, "model_name": "@bundle_name", "model_version": "@bundle_version"}
    rows = (
        ("rtstruct", "SaveRTStructd"),
        ("seg", "SaveDicomSegd"),
        ("nifti", "SaveNiftid"),
        ("preview", "SavePreviewd"),
    )
    return [
        {
            "_target_": f"medseg.transforms.{step}",
            "_disabled_": f"$'{name}' not in @formats",
            **(named if name in ("rtstruct", "seg") else common),
        }
        for name, step in rows
    ]


def _to_structures(model: Imported) -> dict[str, Any]:
    return {
        "_target_": "medseg.transforms.LabelsToStructuresd",
        "keys": "pred",
        "orig_keys": "image",
        "within": "@within",
        "structures": [dict(structure) for structure in model.structures],
    }


def _inference(model: Imported, name: str) -> dict[str, Any]:
    several = len(model.series) > 1
    items = {"_target_": "medseg.bundles.patient_items", "path": "@dataset_dir"}
    items |= {"modalities": dict(model.series)}
    if not several:
        modality = model.series["image"]
        items = {"_target_": "medseg.bundles.case_items", "path": "@dataset_dir", "modality": modality}
    loader = {"_target_": "CheckpointLoader", "load_path": "@checkpoint", "strict": True}
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "bundle_name": name,
        "bundle_version": VERSION,
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "formats": ["rtstruct", "preview"],
        "within": None,
        "allow": [],
        "progress": False,
        "engine": "auto",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "medseg.networks.Stages",
            "stages": [[dict(definition)] * len(folds) for definition, folds in model.networks],
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(model)},
        "dataset": {"_target_": "Dataset", "data": items, "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {
            "_target_": "medseg.inference.NnunetInferer",
            "stages": [dict(stage) for stage in model.stages],
            "engine": "@engine",
            "progress": "@progress",
        },
        "postprocessing": {"_target_": "Compose", "transforms": [_to_structures(model), *writers()]},
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "handlers": [
            {**loader, "load_dict": {"model": "@network"}, "map_location": "@device"},
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


# ---- what a person reads -----------------------------------------------------------------------------------


def _licence(model: Imported) -> str:
    return (
        f"The weights in models/ were imported from {model.source}.\n"
        f"Their licence, as the model states it: {model.licence}\n"
        "medseg neither made nor licenses them; ask their authors before you use or pass them on.\n"
    )


def _card(model: Imported, name: str, digest: str) -> str:
    rows = [
        f"| {s['name']} | {s['interpreted_type']} | {', '.join(map(str, s['labels']))} |"
        for s in model.structures
    ]
    sums = [f"| {path} | `{sha256}` |" for path, sha256 in _digests(model).items()]
    takes = ", ".join(model.series.values())
    return "\n".join(
        [
            f"# {name}: {model.title}",
            "",
            f"Imported from {model.source} on {date.today().isoformat()}.",
            INTENDED_USE,
            "",
            f"{NOT_EVALUATED} Nobody compared its contours with yours yet: `medseg score` does so on your "
            "own cases. No gate refuses images that are unlike those it learned from.",
            "",
            *([f"- {remark}" for remark in model.remarks] + [""] if model.remarks else []),
            f"Licence of the weights, as the model states it: {model.licence}",
            "",
            f"Takes: {takes}. Stages: {len(model.stages)}, folds: "
            f"{', '.join(str(len(folds)) for _, folds in model.networks)}.",
            "",
            "| structure | type | label |",
            "|---|---|---|",
            *rows,
            "",
            "| file | SHA-256 |",
            "|---|---|",
            *sums,
            f"| models/model.pt | `{digest}` |",
            "",
        ]
    )
