"""``medseg bundles import nnunet``: an nnU-Net v2 model folder as a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medseg.bundles.find import Bundle, read_json
from medseg.bundles.importers.channels import series_words
from medseg.bundles.importers.names import read_names, structures_of
from medseg.bundles.importers.plain import malformed
from medseg.bundles.importers.plans import Model, axcodes, network_def, read_model, stage_of
from medseg.bundles.importers.writing import Imported, write_bundle
from medseg.errors import BundleError, InputError

POSTPROCESSING = "remove_all_but_largest_component_from_segmentation"


@dataclass(frozen=True)
class NnunetRequest:
    """What to import. ``model``: a folder TRAINER__PLANS__CONFIGURATION, or that of a data set which holds
    such. ``configuration``: which of several. ``folds``: None for all there are. ``names``: a CSV file, see
    :func:`medseg.bundles.importers.names.read_names`. ``modalities``: CT, MR or PT of every channel, where
    their names do not say it. ``postprocessing``: a postprocessing.json of nnU-Net; None: that of the model's
    folder, where there is one."""

    model: Path
    output: Path
    configuration: str | None = None
    folds: tuple[str, ...] | None = None
    names: Path | None = None
    modalities: tuple[str, ...] = ()
    postprocessing: Path | None = None


def import_nnunet(request: NnunetRequest) -> Bundle:
    """Write the bundle; returns it. BundleError and InputError, in one line, for a model or names that cannot
    be taken without guessing."""
    require_networks()
    if request.output.exists():
        raise InputError(f"{request.output}: exists already; name a new folder.")
    model = read_model(request.model, request.configuration, request.folds)
    names = read_names(request.names) if request.names else {}
    structures = structures_of(model.labels, names, str(request.names or f"{model.folder}/dataset.json"))
    sets = largest_sets(model, request.postprocessing)
    with malformed(model.folder, "plans.json as nnU-Net v2 writes it"):
        stages = [stage_of(one) for one in stages_in_order(model)]
        networks = [networks_of(one) for one in stages_in_order(model)]
    stages[-1] |= {"keep_largest": sets} if sets else {}
    if model.previous:
        stages[0] |= {"result": False}
        stages[-1] |= {"previous": 0}
    unused = []
    if not sets and _pickled(model):
        unused = [f"{_pickled(model)} was not read, it would be executed; name postprocessing.json beside it"]
    return write_bundle(
        Imported(
            title=f"nnU-Net {model.name} of {model.plans.get('dataset_name', 'an unnamed data set')}",
            source=f"nnU-Net v2 folder {model.folder.name}",
            stages=stages,
            networks=networks,
            structures=structures,
            series=series_words(model.channels, request.modalities),
            axcodes=axcodes(model),
            files=model.files(),
            licence=licence_of(model),
            remarks=unused,
        ),
        request.output,
    )


def require_networks() -> None:
    """InputError when the networks' library is not installed."""
    if find_spec("dynamic_network_architectures") is None:
        raise InputError(
            "nnU-Net's networks are not installed: pip install 'medseg[nnunet]'. Weights are not "
            "changed by it, and nothing is downloaded later."
        )


def stages_in_order(model: Model) -> list[Model]:
    """The first stage of a cascade, then the model; else the model alone."""
    return [model.previous, model] if model.previous else [model]


def networks_of(model: Model) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(the network's definition, the weights of every fold). BundleError for a definition of no network, and
    for weights that do not fit it."""
    import torch
    from monai.bundle import ConfigParser

    from medseg.networks.fitting import unfitting

    definition = network_def(model)
    parser = ConfigParser({"network": definition})
    try:
        with torch.device("meta"):  # shapes only, however large the plans say they are
            network = parser.get_parsed_content("network")
    except RuntimeError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise BundleError(
            f"{model.folder}: plans.json describes no network that can be built ({reason})."
        ) from error
    for checkpoint in model.checkpoints:
        differing = unfitting(network, checkpoint.weights)
        if differing:
            raise BundleError(
                f"{checkpoint.path}: {len(differing)} tensors do not fit the network of plans.json, first "
                f"{differing[0]}: the plans are of another model or configuration."
            )
    return definition, [checkpoint.weights for checkpoint in model.checkpoints]


def licence_of(model: Model) -> str:
    """As dataset.json states it, under either spelling."""
    for key in ("licence", "license"):
        if model.dataset.get(key):
            return " ".join(str(model.dataset[key]).split())
    return "not stated"


def largest_sets(model: Model, path: Path | None) -> list[list[int]]:
    """The sets of labels of which only the largest piece is kept, from nnU-Net's postprocessing.json.
    BundleError for steps of another kind."""
    if path is None and not (model.folder / "postprocessing.json").exists():
        return []
    path = path or model.folder / "postprocessing.json"
    content = read_json(path)
    steps, settings = (content.get(f"postprocessing_{key}") for key in ("fns", "kwargs"))
    if not isinstance(steps, list) or not isinstance(settings, list):
        raise BundleError(
            f"{path}: no lists postprocessing_fns and postprocessing_kwargs; expected nnU-Net's file."
        )
    others = [step for step in steps if step != POSTPROCESSING]
    if others or len(steps) != len(settings):
        raise BundleError(
            f"{path}: step {(others or ['(without settings)'])[0]!r}; expected {POSTPROCESSING}."
        )
    with malformed(path, "nnU-Net's postprocessing.json"):
        sets = [_flat(values["labels_or_regions"], path) for values in settings]
    known = {number for numbers in model.labels.values() for number in numbers}
    unknown = sorted({number for numbers in sets for number in numbers} - known)
    if unknown:
        raise BundleError(f"{path}: label {unknown[0]} is none of the model's: the file is of another model.")
    return sets


def _flat(value: Any, path: Path) -> list[int]:
    numbers = value if isinstance(value, list) else [value]
    flat = [n for item in numbers for n in (item if isinstance(item, list) else [item])]
    if not flat or not all(isinstance(number, int) for number in flat):
        raise BundleError(f"{path}: labels {value!r}; expected numbers.")
    return flat


def _pickled(model: Model) -> str:
    found: Sequence[Path] = sorted(model.folder.glob("**/postprocessing.pkl"))
    return found[0].name if found else ""
