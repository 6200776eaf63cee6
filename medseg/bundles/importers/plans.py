"""The files of an nnU-Net v2 model folder, plans.json, dataset.json and the folds, checked and put into
medseg's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medseg.bundles.find import read_json
from medseg.bundles.importers.checkpoint import FILE, Checkpoint, read_checkpoint
from medseg.bundles.importers.plain import malformed, require_plain
from medseg.errors import BundleError

NETWORKS = {
    "PlainConvUNet": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "ResidualEncoderUNet": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
    "ResidualUNet": "dynamic_network_architectures.architectures.unet.ResidualUNet",
}
"""Class of plans.json, whatever module it stood in when they were written, and where it is now."""

CLASSES = {
    "dropout_op": ("Dropout2d", "Dropout3d"),
    "conv_op": ("Conv2d", "Conv3d"),
    "norm_op": ("InstanceNorm2d", "InstanceNorm3d", "BatchNorm2d", "BatchNorm3d"),
    "nonlin": ("LeakyReLU", "ReLU", "GELU"),
}
"""Arguments that are classes of torch.nn, and which may be named."""

SCHEMES = {
    "CTNormalization": "ct",
    "ZScoreNormalization": "z_score",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "zero_to_one",
    "RGBTo01Normalization": "rgb",
}

AXCODES = {
    "SimpleITKIO": None,
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIO": None,
    "NibabelIOWithReorient": "RAS",
}
"""How the model's own reader lays an image: as it is stored, or turned."""

RESAMPLING = {"resample_data_or_seg_to_shape": True, "resample_torch_fornnunet": False}
"""Functions of plans.json, and whether logits are rounded to float16 after them."""

CASCADE_NEEDS = "its first stage's folder has to lie beside it"


@dataclass(frozen=True, eq=False)
class Model:
    """One trained configuration. ``plans``, ``dataset``: the two JSON files. ``name``: of the configuration,
    whose fields, with those that it inherits, are ``configuration``. ``checkpoints``: of the folds, in
    order. ``previous``: the model whose labels it sees, of a cascade."""

    folder: Path
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    name: str
    configuration: Mapping[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    previous: Model | None = None

    @cached_property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """{name: numbers} of dataset.json without the background and what is ignored."""
        found = {}
        for name, value in self.dataset["labels"].items():
            numbers = tuple(int(n) for n in (value if isinstance(value, list) else [value]))
            if name not in ("background", "ignore"):
                found[name] = numbers
        return found

    @property
    def regions(self) -> tuple[int, ...]:
        """The number that each region writes, in order; () of a model of plain labels."""
        if not any(len(numbers) > 1 for numbers in self.labels.values()):
            return ()
        order = tuple(int(n) for n in self.dataset.get("regions_class_order", ()))
        if len(order) != len(self.labels):
            raise BundleError(
                f"{self.folder}: dataset.json has {len(self.labels)} regions and a regions_class_order of "
                f"{len(order)}; expected as many."
            )
        return order

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image's channels, in order."""
        names = self.dataset.get("channel_names", self.dataset.get("modality", {}))
        return tuple(str(names[key]) for key in sorted(names, key=int))

    def files(self) -> list[Path]:
        """What the bundle is made from, first stage included."""
        own = [self.folder / "plans.json", self.folder / "dataset.json"]
        first = self.previous.files() if self.previous else []
        return [*first, *own, *(checkpoint.path for checkpoint in self.checkpoints)]


def read_model(folder: Path, configuration: str | None = None, folds: Sequence[str] | None = None) -> Model:
    """The model in a folder, TRAINER__PLANS__CONFIGURATION, or in the folder of a data set that holds such.

    ``configuration``: which of several; ``folds``: None: all there are. BundleError, in one line, for a
    folder of another version, a missing file, fold or configuration, plans of another configuration and
    everything that medseg would have to guess.
    """
    folder = _model_folder(folder, configuration)
    with malformed(folder, "plans.json and dataset.json as nnU-Net v2 writes them"):
        return _read(folder, configuration, folds)


def _read(folder: Path, configuration: str | None, folds: Sequence[str] | None) -> Model:
    plans, dataset = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    for content, name, keys in (
        (plans, "plans.json", ("configurations", "transpose_forward", "image_reader_writer")),
        (dataset, "dataset.json", ("labels",)),
    ):
        lacking = [key for key in keys if key not in content]
        if lacking:
            raise BundleError(f"{folder}: {name} has no {lacking[0]}; expected files of nnU-Net v2.")
    checkpoints = tuple(read_checkpoint(path) for path in _fold_files(folder, folds))
    name = _trained(folder, plans, checkpoints, configuration)
    merged = _inherited(plans["configurations"], name, folder)
    previous = None
    if merged.get("previous_stage"):
        previous = _first_stage(folder, name, merged["previous_stage"], folds)
    model = Model(folder, plans, dataset, name, merged, checkpoints, previous)
    _check_labels(model)
    return model


def _check_labels(model: Model) -> None:
    """BundleError unless the background is 0 and no two labels are one number."""
    if model.dataset["labels"].get("background") not in (0, [0]):
        raise BundleError(
            f"{model.folder}: dataset.json: its background is not 0; expected nnU-Net v2's labels."
        )
    seen: dict[tuple[int, ...], str] = {}
    for label, numbers in model.labels.items():
        if not numbers or min(numbers) < 1:
            raise BundleError(
                f"{model.folder}: dataset.json: label {label!r} is {numbers}; expected 1 or more."
            )
        if numbers in seen:
            raise BundleError(
                f"{model.folder}: dataset.json: {seen[numbers]!r} and {label!r} are both {numbers}; which is "
                "which is not known."
            )
        seen[numbers] = label


def _model_folder(folder: Path, configuration: str | None) -> Path:
    if (folder / "plans.json").is_file() and (folder / "dataset.json").is_file():
        return folder
    if (folder / "plans.pkl").exists() or list(folder.glob("*/plans.pkl")):
        raise BundleError(
            f"{folder}: a model of nnU-Net version 1 (plans.pkl, which would have to be executed); expected "
            "version 2, with plans.json and dataset.json. Train it anew with nnunetv2."
        )
    inside = sorted(path.parent for path in folder.glob("*__*__*/plans.json"))
    found = [path for path in inside if configuration in (None, path.name.rpartition("__")[2])]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in inside) or "none"
    if found:
        raise BundleError(f"{folder}: several models there ({names}); name one folder, or `configuration`.")
    wanted = f" of configuration {configuration}" if configuration else ""
    raise BundleError(
        f"{folder}: no nnU-Net v2 model{wanted}; expected plans.json, dataset.json and fold_0 in it, or "
        f"folders that have them. There: {names}."
    )


def _fold_files(folder: Path, folds: Sequence[str] | None) -> list[Path]:
    there = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{FILE}"))
    numbered = sorted((fold for fold in there if fold.isdigit()), key=int)  # and no fold_0_old
    if folds is not None and (not folds or len(set(folds)) < len(folds)):
        raise BundleError(f"folds {', '.join(folds) or '(none)'}: expected each once, such as 0,1,2.")
    chosen = list(folds) if folds else numbered or [fold for fold in there if fold == "all"]
    missing = [fold for fold in chosen if fold not in there]
    if missing or not chosen:
        wanted = f"fold {missing[0]}" if missing else "a fold"
        raise BundleError(
            f"{folder}: no {FILE} of {wanted}; folds there: {', '.join(there) or 'none'}. Choose `folds`, or "
            "finish its training."
        )
    return [folder / f"fold_{fold}" / FILE for fold in chosen]


def _trained(
    folder: Path, plans: Mapping[str, Any], checkpoints: Sequence[Checkpoint], wanted: str | None
) -> str:
    """The configuration that the checkpoints were trained for, which plans.json has to have."""
    trained = {checkpoint.configuration for checkpoint in checkpoints} - {""}
    if len(trained) > 1:
        raise BundleError(f"{folder}: folds of different configurations: {', '.join(sorted(trained))}.")
    name = trained.pop() if trained else wanted or folder.name.rpartition("__")[2]
    if wanted not in (None, name):
        raise BundleError(f"{folder}: trained as {name}, not as {wanted}; leave `configuration` out.")
    if name not in plans["configurations"]:
        raise BundleError(
            f"{folder}: its checkpoints are of configuration {name!r}, and plans.json has "
            f"{', '.join(plans['configurations'])}: these plans are of another model."
        )
    return name


def _inherited(configurations: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """A configuration with what it inherits."""
    chain: list[str] = []
    at: str | None = name
    while at is not None:
        if at in chain or at not in configurations:
            raise BundleError(f"{folder}: plans.json: configuration {name} inherits from {at!r} in a circle.")
        chain.append(at)
        at = configurations[at].get("inherits_from")
    merged: dict[str, Any] = {}
    for each in reversed(chain):
        merged.update(configurations[each])
    return merged


def _first_stage(folder: Path, name: str, previous: str, folds: Sequence[str] | None) -> Model:
    beside = folder.parent / f"{folder.name.rpartition('__')[0]}__{previous}"
    if not (beside / "plans.json").is_file():
        raise BundleError(f"{folder}: {name} is a cascade, and {CASCADE_NEEDS}: {beside.name}.")
    return read_model(beside, previous, folds)


# ---- what the plans say, in medseg's words -----------------------------------------------------------------


def network_def(model: Model) -> dict[str, Any]:
    """The definition of one fold's network. BundleError for one that medseg does not know by name."""
    wanted = model.configuration.get("architecture") or _of_old_plans(model)
    name = str(wanted["network_class_name"]).rpartition(".")[2]
    if name not in NETWORKS:
        raise BundleError(
            f"{model.folder}: network {wanted['network_class_name']!r}; expected one of "
            f"{', '.join(NETWORKS)}."
        )
    heads = len(model.regions) or len(_numbers(model)) + 1
    channels = len(model.channels) + (len(_numbers(model)) if model.previous else 0)
    arguments, classes = dict(wanted["arch_kwargs"]), {}
    for key in wanted.get("_kw_requires_import", ()):
        if arguments.get(key) is not None:
            classes[key] = _class_of(model, key, str(arguments.pop(key)))
    require_plain(arguments, f"{model.folder}: plans.json")
    own = {"input_channels": channels, "num_classes": heads, "deep_supervision": False}
    return {**arguments, **classes, **own, "_target_": NETWORKS[name]}


def _class_of(model: Model, key: str, address: str) -> dict[str, str]:
    name = address.rpartition(".")[2]
    if not address.startswith("torch.nn.") or name not in CLASSES.get(key, ()):
        raise BundleError(
            f"{model.folder}: plans.json: {key} {address!r}; expected torch.nn's "
            f"{' or '.join(CLASSES.get(key, ('none',)))}."
        )
    return {"_target_": f"torch.nn.{name}", "_mode_": "callable"}


def _of_old_plans(model: Model) -> dict[str, Any]:
    """The architecture of plans before nnU-Net 2.5, which name a few numbers and leave the rest to the
    code."""
    own = model.configuration
    try:
        plain = own["UNet_class_name"] == "PlainConvUNet"
        stages, dimensions = len(own["n_conv_per_stage_encoder"]), len(own["patch_size"])
        features = [
            min(own["UNet_base_num_features"] * 2**n, own["unet_max_num_features"]) for n in range(stages)
        ]
        arguments = {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": f"torch.nn.Conv{dimensions}d",
            "kernel_sizes": own["conv_kernel_sizes"],
            "strides": own["pool_op_kernel_sizes"],
            "n_conv_per_stage" if plain else "n_blocks_per_stage": own["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": own["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
    except KeyError as error:
        raise BundleError(f"{model.folder}: plans.json names no architecture and no {error}.") from error
    return {
        "network_class_name": own["UNet_class_name"],
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _numbers(model: Model) -> list[int]:
    """Every label number but 0; BundleError unless they are 1, 2, 3 … without a gap."""
    numbers = sorted({number for values in model.labels.values() for number in values})
    if numbers != list(range(1, len(numbers) + 1)):
        raise BundleError(
            f"{model.folder}: dataset.json numbers its labels {numbers}; expected 1 to {len(numbers)}."
        )
    return numbers


def stage_of(model: Model, previous: int | None = None) -> dict[str, Any]:
    """The fields of a :class:`medseg.inference.nnunet_stage.Stage`. ``previous``: the number of the cascade's
    first stage. BundleError for a reader, preprocessing or resampling that medseg does not know."""
    own, regions = model.configuration, model.regions
    preprocessor = own.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise BundleError(f"{model.folder}: preprocessor {preprocessor!r}; expected DefaultPreprocessor.")
    _check_sizes(model)
    return {
        "transpose": list(model.plans["transpose_forward"]),
        "spacing_mm": [float(mm) for mm in own["spacing"]],
        "patch_size": list(own["patch_size"]),
        "normalisation": _normalisation(model),
        "image": _resampling(model, "resampling_fn_data"),
        "logits": _resampling(model, "resampling_fn_probabilities"),
        "labels": _resampling(model, "resampling_fn_seg"),
        "mirror_axes": list(model.checkpoints[0].mirror_axes),
        **({"regions": list(regions)} if regions else {"classes": len(_numbers(model)) + 1}),
        **({} if previous is None else {"previous": previous}),
    }


def _check_sizes(model: Model) -> None:
    """BundleError for a patch, voxel or order of axes that is none."""
    own, _ = model.configuration, _numbers(model)
    patch, spacing_mm, where = own["patch_size"], own["spacing"], f"{model.folder}: plans.json"
    if len(patch) not in (2, 3) or not all(isinstance(n, int) and n > 0 for n in patch):
        raise BundleError(f"{where}: patch_size {patch}; expected 2 or 3 numbers of voxels.")
    if len(spacing_mm) != len(patch) or not all(0 < float(mm) < float("inf") for mm in spacing_mm):
        raise BundleError(f"{where}: spacing {spacing_mm}; expected {len(patch)} sides in mm.")
    order = model.plans["transpose_forward"]
    if sorted(order) != [0, 1, 2]:
        raise BundleError(f"{where}: transpose_forward {order}; expected an order of 0, 1, 2.")


def axcodes(model: Model) -> str | None:
    """The axes that the model's own reader turns an image to, None for as they are stored. BundleError for a
    reader that medseg does not know."""
    reader = model.plans["image_reader_writer"]
    if reader not in AXCODES:
        raise BundleError(f"{model.folder}: read by {reader!r}; expected one of {', '.join(AXCODES)}.")
    return AXCODES[reader]


def _normalisation(model: Model) -> list[dict[str, Any]]:
    own = model.configuration
    key = "foreground_intensity_properties_per_channel"
    known = model.plans.get(key, model.plans.get("foreground_intensity_properties_by_modality", {}))
    schemes = []
    for number, name in enumerate(own["normalization_schemes"]):
        if name not in SCHEMES:
            raise BundleError(
                f"{model.folder}: normalisation {name!r}; expected one of {', '.join(SCHEMES)}."
            )
        scheme: dict[str, Any] = {"kind": SCHEMES[name]}
        if scheme["kind"] == "z_score":
            scheme["inside_only"] = bool(own["use_mask_for_norm"][number])
        if scheme["kind"] == "ct":
            seen = known[str(number)]
            scheme |= {"low": seen["percentile_00_5"], "high": seen["percentile_99_5"]}
            scheme |= {"mean": seen["mean"], "spread": seen["std"]}
        schemes.append(scheme)
    if len(schemes) != len(model.channels):
        raise BundleError(
            f"{model.folder}: plans.json normalises {len(schemes)} channels, dataset.json names "
            f"{len(model.channels)}; they are not of one model."
        )
    return schemes


def _resampling(model: Model, name: str) -> dict[str, Any]:
    function, kwargs = model.configuration[name], model.configuration[f"{name}_kwargs"]
    if function not in RESAMPLING:
        raise BundleError(f"{model.folder}: {name} {function!r}; expected one of {', '.join(RESAMPLING)}.")
    if not RESAMPLING[function]:
        return {"order": 1, "order_across": 0, "separate": kwargs.get("force_separate_z"), "half": False}
    return {
        "order": int(kwargs.get("order", 3)),
        "order_across": int(kwargs.get("order_z", 0)),
        "separate": kwargs.get("force_separate_z", False),
        "half": True,
    }
