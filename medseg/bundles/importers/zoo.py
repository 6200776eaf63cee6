"""Bundles of MONAI's model zoo, run as they are: medseg's reader and writers instead of their loading and
saving steps, all others kept.

A zoo bundle reads NIfTI files and writes one label map. Here its ``inference.json`` (or ``.yaml``) gets the
steps that check geometry, find a case again and write structures; the folder itself is not changed. Two of
its own steps are corrected, because medseg's images already are what they make of an image: adding a channel
axis; and interpolating numbers of labels, which would make a third one between two.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from medseg.bundles.find import Bundle
from medseg.bundles.importers.names import structures_of
from medseg.errors import BundleError

NAMES = "structure_names"
"""Id of an adapted config: {label: row}, as :func:`medseg.bundles.importers.names.read_names` has it."""

LOADERS = ("LoadImaged", "LoadImageD", "LoadImageDict")
CHANNEL_FIRST = ("EnsureChannelFirstd", "EnsureChannelFirstD", "AddChanneld", "AsChannelFirstd")
SAVERS = ("SaveImaged", "SaveImageD", "SaveImageDict")
DISCRETE = ("AsDiscreted", "AsDiscreteD", "AsDiscreteDict")
INVERT = ("Invertd", "InvertD", "InvertDict")
RELABELLING = ("Lambdad", "LambdaD", "LabelMapperd", "MapLabelValued")
"""Steps after which the numbers of labels are no longer those of the channels."""

NEEDED = ("network_def", "preprocessing", "inferer", "postprocessing")
BACKGROUND = ("background", "bg", "")


def is_of_zoo(content: Mapping[str, Any]) -> bool:
    """True of an inference config that saves by MONAI's own step: a config of medseg has ``formats``."""
    return "formats" not in content and "preprocessing" in content


def adapted(bundle: Bundle, content: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """The config with medseg's reader and writers. ``names``: rows of labels that are called otherwise.

    BundleError, with the reason, for a config without the four parts that are run, one whose steps are no
    list, that reads or writes by no step medseg knows, and one whose labels nobody names.
    """
    lacking = [key for key in NEEDED if key not in content]
    if lacking:
        raise BundleError(f"bundle {bundle.name}: its inference config has no {lacking[0]}; medseg runs it.")
    result = deepcopy(dict(content))
    before, after = (_steps(bundle, result, key) for key in ("preprocessing", "postprocessing"))
    result["preprocessing"]["transforms"] = _reading(bundle, before)
    result["postprocessing"]["transforms"] = _writing(bundle, after, names)
    return {
        **result,
        "bundle_root": ".",
        "bundle_name": bundle.name,
        "bundle_version": bundle.version,
        "output_dir": "$@bundle_root + '/eval'",
        "formats": ["rtstruct", "preview"],
        "within": None,
        "allow": [],
        "progress": False,
        "engine": "torch",
        NAMES: {},
    }


def require_own_weights(bundle: Bundle, parser: Any) -> None:
    """BundleError when the config would load another file than models/model.pt, which is the one that is
    read."""
    handlers = parser.get("handlers") or []
    loaders = [
        f"handlers#{number}" for number, step in enumerate(handlers) if _name(step) == "CheckpointLoader"
    ]
    for place in [*loaders, *(["checkpointloader"] if parser.get("checkpointloader") else [])]:
        path = str(parser.get_parsed_content(f"{place}#load_path"))
        if path.replace("\\", "/").rpartition("/")[2] != bundle.weights.name:
            raise BundleError(
                f"bundle {bundle.name}: with these settings it loads {path}; medseg reads {bundle.weights}. "
                "Put those weights there, in a copy of the bundle."
            )


def _name(step: Any) -> str:
    """The class of a step without its module."""
    target = step.get("_target_", "") if isinstance(step, Mapping) else ""
    return str(target).rpartition(".")[2]


def _steps(bundle: Bundle, content: Mapping[str, Any], key: str) -> list[Any]:
    part = content[key]
    steps = part.get("transforms") if isinstance(part, Mapping) else None
    if not isinstance(steps, list):
        raise BundleError(f"bundle {bundle.name}: {key} is no Compose with a list of transforms.")
    return steps


def _reading(bundle: Bundle, steps: list[Any]) -> list[Any]:
    loaders = [step for step in steps if _name(step) in LOADERS]
    if len(loaders) != 1 or steps[0] is not loaders[0]:
        raise BundleError(
            f"bundle {bundle.name}: its preprocessing begins with {_name(steps[0]) or 'nothing'}; expected "
            "one LoadImaged, whose place medseg's reader takes."
        )
    others = [key for key in bundle.modalities if key != "image"]
    ours: list[Any] = [
        {"_target_": "medseg.transforms.LoadCased", "keys": "image", "allow": "@allow"},
        {"_target_": "medseg.transforms.CropWithind", "keys": "image", "within": "@within"},
    ]
    if others:
        ours.append({"_target_": "medseg.transforms.LoadSeriesd", "keys": others})
        ours.append({"_target_": "ConcatItemsd", "keys": ["image", *others], "name": "image"})
    return ours + [step for step in steps[1:] if _name(step) not in CHANNEL_FIRST]


def _writing(bundle: Bundle, steps: list[Any], names: Mapping[str, Any]) -> list[Any]:
    from medseg.bundles.importers.writing import writers

    if not any(_name(step) in SAVERS for step in steps):
        raise BundleError(
            f"bundle {bundle.name}: its postprocessing has no SaveImaged, whose place medseg's writers take."
        )
    kept = [step for step in steps if _name(step) not in SAVERS]
    kinds = [_name(step) for step in kept]
    discrete = next((number for number, kind in enumerate(kinds) if kind in DISCRETE), None)
    if discrete is None:
        raise BundleError(f"bundle {bundle.name}: no AsDiscreted; its answer would be no structures.")
    for number, step in enumerate(kept):
        if kinds[number] in INVERT and number > discrete:
            kept[number] = {**step, "nearest_interp": True}
    one_map = bool(kept[discrete].get("argmax")) and not kept[discrete].get("to_onehot")
    renumbered = any(kind in RELABELLING for kind in kinds[discrete:])
    labels = _labels(bundle, names, background=one_map, renumbered=renumbered)
    structures = structures_of(labels, names, "names")
    wanted = {number for structure in structures for number in structure["labels"]}
    left_out = sorted({number for numbers in labels.values() for number in numbers} - wanted)
    to_structures = {
        "_target_": "medseg.transforms.LabelsToStructuresd",
        "keys": "pred",
        "orig_keys": "image",
        "within": "@within",
        "structures": structures,
        "left_out": left_out,
    }
    return [*kept, to_structures, *writers()]


def _labels(
    bundle: Bundle, names: Mapping[str, Any], background: bool, renumbered: bool
) -> dict[str, tuple[int, ...]]:
    """{label: numbers}: those of metadata.json, or, where it says none, the numbers that ``names`` gives a
    row each."""
    try:
        channels = bundle.metadata["network_data_format"]["outputs"]["pred"].get("channel_def") or {}
    except (KeyError, TypeError, AttributeError):
        channels = {}
    if renumbered or not channels:
        numbers = [label for label in names if label.isdigit() and int(label) > 0]
        if not numbers:
            why = "its postprocessing renumbers them" if renumbered else "no file of it names them"
            raise BundleError(
                f"bundle {bundle.name}: what its labels are called is not known ({why}); say it by their "
                "numbers: `structure_names`."
            )
        return {label: (int(label),) for label in numbers}
    first = 0 if background else 1
    found = {str(name): (int(number) + first,) for number, name in channels.items()}
    return {
        name: numbers
        for name, numbers in found.items()
        if numbers != (0,) and name.strip().lower() not in BACKGROUND
    }
