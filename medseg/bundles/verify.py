"""Check a bundle offline: its files, its metadata, what its code is, what MONAI asks of it, its weights.

Nothing of a bundle is executed that may not run anyway: its configs are read as JSON. Building the network is
execution; those checks are left out, and said to be, for a bundle that is not trusted (:mod:`.trust`).
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg.bundles.config import build, load_config, load_network
from medseg.bundles.find import Bundle, bundle_folders, read_json
from medseg.bundles.trust import WEIGHTS_KEY, code_of, is_trusted
from medseg.bundles.weights import read_weights
from medseg.errors import BundleError, MedsegError
from medseg.transforms.gate import read_gate

REQUIRED_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/gate.json",
    "configs/multi_gpu_train.json",
    "configs/logging.conf",
    "docs/README.md",
    "models/model.pt",
)
INFERENCE_FILES = tuple(
    name for name in REQUIRED_FILES if not name.endswith(("train.json", "evaluate.json", "gate.json"))
)
"""Of a bundle that was imported, which has no training and was fitted no gate."""

MAX_WEIGHTS_MB = 10.0
"""Of the bundles that come with medseg."""
NOT_DONE = "not done, since it would run the bundle, which is not trusted: read its code, then `trust_bundle`"

METADATA_SCHEMA = {
    "type": "object",
    "required": [
        "schema",
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    ],
    "properties": {
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "changelog": {"type": "object"},
        "required_packages_version": {"type": "object"},
        "intended_use": {"type": "string"},
        WEIGHTS_KEY: {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {"type": "object", "required": ["image"]},
                "outputs": {"type": "object", "required": ["pred"]},
            },
        },
    },
}
"""What MONAI's metadata schema (2024-07-25) requires, and what medseg needs besides: written here because
MONAI fetches its schema from the network, and a hospital's computer has none."""


def verify(bundle: Bundle) -> list[tuple[str, str | None]]:
    """Run every check: [(what was checked, None when good, else what is wrong)], all of them, offline.

    The problem is :data:`NOT_DONE` for checks that execute what they check, of a bundle that is not trusted.
    """
    results: list[tuple[str, str | None]] = []
    logging.disable(
        logging.WARNING
    )  # MONAI's verifiers log every argument; the results below say what matters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trusted = is_trusted(bundle)
            for what, check in {**CHECKS, **EXECUTING_CHECKS}.items():
                if check is _gate and bundle.inference_only:
                    continue
                if what in EXECUTING_CHECKS and not trusted:
                    results.append((what, NOT_DONE))
                    continue
                try:
                    problem = check(bundle)
                except Exception as error:  # whatever is odd about a bundle is what a check is for
                    kind = "" if isinstance(error, MedsegError) else f"{type(error).__name__}: "
                    problem = kind + " ".join(str(error).split())[:300]
                results.append((what, problem))
    finally:
        logging.disable(logging.NOTSET)
    return results


def _files(bundle: Bundle) -> str | None:
    required = INFERENCE_FILES if bundle.inference_only else REQUIRED_FILES
    missing = [name for name in required if not (bundle.folder / name).is_file()]
    python = [str(path.relative_to(bundle.folder)) for path in bundle.folder.rglob("*.py")]
    if missing:
        return f"missing: {', '.join(missing)}"
    return f"Python in a bundle: {', '.join(python)}" if python else None


def _metadata(bundle: Bundle) -> str | None:
    from monai.bundle import verify_metadata

    with tempfile.TemporaryDirectory() as folder:
        schema = Path(folder) / "schema.json"
        schema.write_text(json.dumps(METADATA_SCHEMA))
        verify_metadata(meta_file=str(bundle.folder / "configs" / "metadata.json"), filepath=str(schema))
    changelog = bundle.metadata.get("changelog", {})
    return None if bundle.version in changelog else f"version {bundle.version} is not in the changelog"


def _series(bundle: Bundle) -> str | None:
    """Whether the series that metadata.json says a case has are those that inference.json loads."""
    declared = {key for key in bundle.modalities if key != "image"}
    _ = bundle.optional
    steps = read_json(bundle.folder / "configs" / "inference.json")["preprocessing"]["transforms"]
    loaded: set[str] = set()
    for step in steps:
        if isinstance(step, dict) and step["_target_"] == "medseg.transforms.LoadSeriesd":
            loaded |= {step["keys"]} if isinstance(step["keys"], str) else set(step["keys"])
    if declared == loaded:
        return None
    says, loads = (", ".join(sorted(keys)) or "none" for keys in (declared, loaded))
    return f"metadata.json says further modalities {says}; inference.json loads {loads}"


def _properties(bundle: Bundle) -> str | None:
    from monai.bundle import ConfigWorkflow

    class Unbuilt(ConfigWorkflow):
        """MONAI's check looks at every property, which would build the data set; ids alone tell whether they
        exist."""

        def _get_property(self, name, property):
            if property["id"] not in self.parser:
                raise AttributeError(name)
            return self.parser[property["id"]]

    configs = bundle.folder / "configs"
    training = [["train.json"], ["train.json", "evaluate.json"], ["train.json", "multi_gpu_train.json"]]
    wanted = [] if bundle.inference_only else [("train", files) for files in training]
    for kind, files in (*wanted, ("infer", ["inference.json"])):
        paths = [str(configs / name) for name in files]
        workflow = Unbuilt(
            config_file=paths,
            meta_file=str(configs / "metadata.json"),
            logging_file=False,
            workflow_type=kind,
            bundle_root=str(bundle.folder),
        )
        workflow.parser.parse(reset=True)
        wrong = workflow.check_properties()
        if wrong:
            return f"{' + '.join(files)}: MONAI misses {', '.join(wrong)}"
    return None


LIST = "list"
"""The format of ``pred`` in metadata.json, of a network that answers each image of a batch by itself, as
:class:`medseg.networks.SliceDetector`: MONAI's check needs a tensor, and is given the ``rows`` of the
first."""


def _network_in_out(bundle: Bundle) -> str | None:
    import torch
    from monai.bundle import verify_net_in_out

    class FirstRows(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            answers = self.network(images)
            if not isinstance(answers, list):
                raise BundleError(
                    f"the network answers with {type(answers).__name__}; metadata.json says a list."
                )
            return answers[0]["rows"]

    configs = bundle.folder / "configs"
    checked = "network_def"
    overrides: dict[str, Any] = {}
    if bundle.metadata["network_data_format"]["outputs"]["pred"].get("format") == LIST:
        network = build(bundle, load_config(bundle, "inference", {"device": "cpu"}), "network_def")
        checked, overrides = "first_rows", {"first_rows": FirstRows(network)}
    verify_net_in_out(
        net_id=checked,
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        n=2,
        p=2,
        any=64,
        **overrides,
    )
    return None


def _code(bundle: Bundle) -> str | None:
    """What a reader should look at before trusting; nobody has to of a bundle that may run."""
    foreign = code_of(bundle).foreign
    if not foreign or is_trusted(bundle):
        return None
    return f"{len(foreign)} that no bundle of medseg has:" + "".join(f"\n      {line}" for line in foreign)


def _weights(bundle: Bundle) -> str | None:
    read_weights(bundle)
    size_mb = bundle.weights.stat().st_size / 1e6
    if size_mb > MAX_WEIGHTS_MB and bundle.folder in bundle_folders().values():
        return f"{size_mb:.1f} MB of weights; at most {MAX_WEIGHTS_MB:g} MB are shipped"
    return None


def _weights_fit(bundle: Bundle) -> str | None:
    load_network(bundle, load_config(bundle, "inference", {"device": "cpu"}), "cpu")
    return None


def _agreement(bundle: Bundle) -> str | None:
    inference = read_json(bundle.folder / "configs" / "inference.json")
    trained = inference if bundle.inference_only else read_json(bundle.folder / "configs" / "train.json")
    if trained.get("network_def") != inference.get("network_def"):
        return "train.json and inference.json define different networks"
    if inference.get("bundle_version") != bundle.version:
        return (
            f"inference.json says version {inference.get('bundle_version')}, metadata.json {bundle.version}"
        )
    return None


GATE, BEFORE_THE_GATE = (
    "medseg.transforms.CheckInputd",
    (
        "medseg.transforms.LoadCased",
        "medseg.transforms.LoadRadiographd",
        "medseg.transforms.LoadPhotographd",
        "medseg.transforms.CropWithind",
    ),
)
"""The step that holds an image against the gate, and what may come before: a reader, and a region of its
image. Anything else would change the values that the gate was fitted on."""


def _gate(bundle: Bundle) -> str | None:
    read_gate(bundle.folder / "configs" / "gate.json")
    inference = read_json(bundle.folder / "configs" / "inference.json")
    steps = [
        step.get("_target_") if isinstance(step, dict) else step
        for step in inference["preprocessing"]["transforms"]
    ]
    if steps.count(GATE) != 1:
        return f"inference.json: {steps.count(GATE)} steps {GATE} in its preprocessing; expected one"
    place = steps.index(GATE)
    early = [str(step) for step in steps[:place] if step not in BEFORE_THE_GATE]
    if place == 0 or early:
        return (
            f"inference.json: {GATE} comes after {', '.join(early) or 'nothing'}; expected it right after "
            f"the reader and CropWithind"
        )
    late = [step for step in steps[place:] if step in BEFORE_THE_GATE]
    if late:
        return f"inference.json: {', '.join(late)} comes after {GATE}, which has to see what they give"
    path = str(inference["preprocessing"]["transforms"][place].get("gate"))
    if "configs/gate.json" not in path:
        return f"inference.json: {GATE} reads {path}; expected the bundle's own configs/gate.json"
    return None


CHECKS: dict[str, Callable[[Bundle], str | None]] = {
    "files of the bundle layout": _files,
    "metadata (MONAI verify_metadata)": _metadata,
    "series of a case": _series,
    "expressions and calls in the configs": _code,
    "properties of train, evaluate, multi_gpu_train and inference (MONAI check_properties)": _properties,
    "train and inference agree": _agreement,
    "gate, and the image is held against it as it was read": _gate,
    "weights are whole, finite, and those that metadata.json names": _weights,
}
"""Checks that read and never execute."""

EXECUTING_CHECKS: dict[str, Callable[[Bundle], str | None]] = {
    "weights load strictly, weights_only": _weights_fit,
    "network input and output (MONAI verify_net_in_out)": _network_in_out,
}
"""Checks that build the network, and so run the bundle."""
