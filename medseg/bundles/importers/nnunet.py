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
from medseg.bundles.importers.plans import Model, axcodes, network_def, read_model, stage_of
from medseg.bundles.importers.writing import Imported, write_bundle
from medseg.errors import BundleError, InputError

POSTPROCESSING = "remove_all_but_largest_component_from_segmentation"


@dataclass(frozen=True)
class NnunetRequest:
    """What to import. ``model``: a folder TRAINER__PLANS__CONFIGURATION, or that of a data set which holds
    such. ``configuration``: which of several. ``folds``: () for all there are. ``names``: a CSV file, see
    :func:`medseg.bundles.importers.names.read_names`. ``modalities``: CT, MR or PT of every channel, where
    their names do not say it. ``postprocessing``: a postprocessing.json of nnU-Net; None: that of the model's
    folder, where there is one."""

    model: Path
    output: Path
    configuration: str | None = None
    folds: tuple[str, ...] = ()
    names: Path | None = None
    modalities: tuple[str, ...] = ()
    postprocessing: Path | None = None


def import_nnunet(request: NnunetRequest) -> Bundle:
    """Write the bundle; returns it. BundleError and InputError, in one line, for a model or names that cannot
    be taken without guessing."""
    require_networks()
    if request.output.exists():
        raise InputError(f"{request.output}: exists already; name a new folder.")
    model = read_model(request.model, request.configuration, request.folds or None)
    names = read_names(request.names) if request.names else {}
    structures = structures_of(model.labels, names, str(request.names or f"{model.folder}/dataset.json"))
    sets = largest_sets(model, request.postprocessing)
    stages = [stage_of(one) for one in stages_in_order(model)]
    stages[-1] |= {"keep_largest": sets} if sets else {}
    if model.previous:
        stages[0] |= {"result": False}
        stages[-1] |= {"previous": 0}
    unused = [] if sets or not _pickled(model) else [f"{_pickled(model)} was not read: it would be executed"]
    return write_bundle(
        Imported(
            title=f"nnU-Net {model.name} of {model.plans.get('dataset_name', 'an unnamed data set')}",
            source=f"nnU-Net v2 folder {model.folder.name}",
            stages=stages,
            networks=[networks_of(one) for one in stages_in_order(model)],
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
    """(the network's definition, the weights of every fold). BundleError for weights that do not fit it."""
    from monai.bundle import ConfigParser

    from medseg.networks.fitting import unfitting

    definition = network_def(model)
    parser = ConfigParser({"network": definition})
    network = parser.get_parsed_content("network")
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
    path = path or model.folder / "postprocessing.json"
    if not path.exists():
        return []
    content = read_json(path)
    steps, settings = (content.get(f"postprocessing_{key}", []) for key in ("fns", "kwargs"))
    others = [step for step in steps if step != POSTPROCESSING]
    if others or len(steps) != len(settings):
        raise BundleError(
            f"{path}: step {(others or ['(without settings)'])[0]!r}; expected {POSTPROCESSING}."
        )
    return [_flat(values.get("labels_or_regions"), path) for values in settings]


def _flat(value: Any, path: Path) -> list[int]:
    numbers = value if isinstance(value, list) else [value]
    flat = [n for item in numbers for n in (item if isinstance(item, list) else [item])]
    if not flat or not all(isinstance(number, int) for number in flat):
        raise BundleError(f"{path}: labels {value!r}; expected numbers.")
    return flat


def _pickled(model: Model) -> str:
    found: Sequence[Path] = sorted(model.folder.glob("**/postprocessing.pkl"))
    return found[0].name if found else ""
