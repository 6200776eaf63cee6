"""Find, check and load MONAI bundles. A bundle's own ``inference.json`` says what happens between case and
contours."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.dummy import DummyProcess
from pathlib import Path
from typing import Any

from medseg.bundles.datalist import check_datalist
from medseg.errors import BundleError, MedsegError

REQUIRED_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/multi_gpu_train.json",
    "configs/logging.conf",
    "docs/README.md",
    "models/model.pt",
)
MAX_WEIGHTS_MB = 10.0

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


@dataclass(frozen=True)
class Bundle:
    """A bundle folder that exists."""

    name: str
    folder: Path

    @cached_property
    def metadata(self) -> dict:
        """The content of configs/metadata.json. BundleError when it is missing or not JSON."""
        return _json(self.folder / "configs" / "metadata.json")

    @property
    def version(self) -> str:
        return str(self.metadata.get("version", "unknown"))

    @property
    def weights(self) -> Path:
        return self.folder / "models" / "model.pt"

    @cached_property
    def weights_sha256(self) -> str:
        """Hex digest of models/model.pt. BundleError when there are no weights."""
        if not self.weights.is_file():
            raise BundleError(
                f"bundle {self.name}: no weights at {self.weights}; train it or restore the file."
            )
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    @cached_property
    def inference_sha256(self) -> str:
        """Hex digest of configs/inference.json: a changed step gives other contours with the same weights."""
        try:
            return hashlib.sha256((self.folder / "configs" / "inference.json").read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(
                f"bundle {self.name}: configs/inference.json cannot be read ({error})."
            ) from error

    @property
    def modality(self) -> str | None:
        """The modality of the images that the network takes ("CT"), from metadata.json; None when it does not
        say."""
        try:
            return self.metadata["network_data_format"]["inputs"]["image"].get("modality")
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"bundle {self.name}: metadata.json has no network_data_format/inputs/image."
            ) from error


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not a readable JSON file ({error}).") from error


def bundle_folders() -> dict[str, Path]:
    """{name: folder} of the bundles that come with medseg: installed inside the package, or beside it in a
    checkout."""
    package = Path(__file__).resolve().parents[1]
    found: dict[str, Path] = {}
    for root in (package.parent / "monai_bundles", package / "monai_bundles"):
        for metadata in sorted(root.glob("*/configs/metadata.json")):
            found[metadata.parents[1].name] = metadata.parents[1]
    return found


def find_bundle(name: str | Path) -> Bundle:
    """A bundle by the name of one that comes with medseg, or by its folder. BundleError lists the names when
    unknown."""
    folder = Path(name)
    if (folder / "configs" / "metadata.json").is_file():
        return Bundle(folder.resolve().name, folder.resolve())
    known = bundle_folders()
    if str(name) not in known:
        raise BundleError(
            f"no bundle {str(name)!r}: expected a bundle folder or one of {', '.join(known) or '(none)'}."
        )
    return Bundle(str(name), known[str(name)])


def load_config(bundle: Bundle, config: str, overrides: Mapping[str, Any]):
    """MONAI ConfigParser over ``configs/<config>.json`` with ``bundle_root`` set and ``overrides`` applied.

    Unlike MONAI, which takes any new name in silence, an override must name an id that the config already
    has.
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_meta(str(bundle.folder / "configs" / "metadata.json"))
    content = _json(bundle.folder / "configs" / f"{config}.json")
    parser.read_config(content)
    for key, value in {"bundle_root": str(bundle.folder), **overrides}.items():
        check_override(bundle, config, content, key, value)
        parser[key] = value
    parser.parse()
    return parser


def check_override(bundle: Bundle, config: str, content: Mapping[str, Any], key: str, value: Any) -> None:
    """Raise BundleError when ``key`` (``a``, ``a#b#0`` or ``a::b``) names nothing in the config or takes no
    such value.

    An empty mapping, such as ``method_options``, takes any name: its reader knows which there are.
    """
    node: Any = content
    for part in key.replace("::", "#").split("#"):
        if node == {}:
            return
        inside = (
            part in node
            if isinstance(node, Mapping)
            else isinstance(node, list) and part.isdigit() and int(part) < len(node)
        )
        if not inside:
            names = ", ".join(sorted(content))
            raise BundleError(
                f"bundle {bundle.name}: {config}.json has no setting {key!r}. Its settings: {names}."
            )
        node = node[part] if isinstance(node, Mapping) else node[int(part)]
    expected = _other_kind(node, value)
    if expected:
        raise BundleError(
            f"bundle {bundle.name}: {config}.json: {key}={json.dumps(value)}: expected {expected}, as in "
            f"{json.dumps(node)}."
        )


def _other_kind(present: Any, value: Any) -> str | None:
    """What kind of value a setting takes, when ``value`` is of another; None when it fits, or the config
    computes it."""
    if present is None or (isinstance(present, str) and present.startswith(("$", "@"))):
        return None
    if isinstance(present, list):
        numbers = bool(present) and all(map(_is_number, present))
        fits = isinstance(value, list) and (
            not numbers or len(value) == len(present) and all(map(_is_number, value))
        )
        return None if fits else f"a list of {len(present)} numbers" if numbers else "a list"
    for kind, words, fits in (
        (bool, "true or false", isinstance(value, bool)),
        ((int, float), "a number", _is_number(value)),
        (str, "text", isinstance(value, str)),
        (Mapping, "a definition", isinstance(value, Mapping)),
    ):
        if isinstance(present, kind):
            return None if fits else words
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def parsed(bundle: Bundle, parser, name: str) -> Any:
    """What the config builds under ``name``. MONAI wraps what a class raises; the error here has the class's
    own words."""
    try:
        return parser.get_parsed_content(name)
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, ImportError) as error:
        cause = _first_cause(error)
        if isinstance(cause, MedsegError):
            raise cause from error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())
        raise BundleError(
            f"bundle {bundle.name}: {name} cannot be built with these settings: {reason}"
        ) from error


def _first_cause(error: BaseException) -> BaseException:
    """What was raised first: MONAI wraps an error once for every component that the config builds."""
    # MONAI's cache is filled by a pool of threads; one that still works when Python ends would abort the
    # process.
    for thread in threading.enumerate():
        if isinstance(thread, DummyProcess) and thread is not threading.current_thread():
            thread.join(timeout=60)
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def load_network(bundle: Bundle, parser, device):
    """The bundle's network with its weights, in evaluation mode. Loads strictly and executes nothing from the
    file."""
    import pickle

    import torch

    network = parsed(bundle, parser, "network_def")
    if not isinstance(network, torch.nn.Module):
        raise BundleError(
            f"bundle {bundle.name}: network_def is {type(network).__name__}; expected a torch.nn.Module."
        )
    network = network.to(device)
    digest = bundle.weights_sha256
    try:
        state = torch.load(bundle.weights, map_location=device, weights_only=True)
        network.load_state_dict(state, strict=True)
    except (RuntimeError, pickle.UnpicklingError, AttributeError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"bundle {bundle.name}: weights {digest[:12]} do not fit its network_def ({reason})."
        ) from error
    return network.eval()


def run_config(bundle: Bundle, configs: Sequence[str], run_id: str, settings: Mapping[str, Any]) -> None:
    """``python -m monai.bundle run RUN_ID`` over ``configs/<name>.json`` in order, with overrides checked by
    name.

    ``settings`` hold at least ``dataset_dir``; without ``datalist`` the bundle's own is taken. The list is
    checked first.
    """
    import monai.bundle

    folder = bundle.folder / "configs"
    contents: dict[str, Any] = {}
    for name in configs:
        contents.update(_json(folder / f"{name}.json"))
    for key, value in settings.items():
        check_override(bundle, " + ".join(configs), contents, key, value)
    check_datalist(settings.get("datalist", folder / "datalist.json"), settings["dataset_dir"])
    try:
        monai.bundle.run(
            run_id=run_id,
            config_file=[str(folder / f"{name}.json") for name in configs],
            meta_file=str(folder / "metadata.json"),
            logging_file=str(folder / "logging.conf"),
            bundle_root=str(bundle.folder),
            **settings,
        )
    except RuntimeError as error:
        cause = _first_cause(error)
        if isinstance(cause, MedsegError):
            raise cause from error
        raise


# ---- verification ------------------------------------------------------------------------------------------


def verify(bundle: Bundle) -> list[tuple[str, str | None]]:
    """Run every check: [(what was checked, None when good, else what is wrong)], all of them, offline."""
    results = []
    logging.disable(
        logging.WARNING
    )  # MONAI's verifiers log every argument; the results below say what matters
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for what, check in CHECKS.items():
                try:
                    problem = check(bundle)
                except (BundleError, ValueError, KeyError, RuntimeError, TypeError) as error:
                    problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                results.append((what, problem))
    finally:
        logging.disable(logging.NOTSET)
    return results


def _files(bundle: Bundle) -> str | None:
    missing = [name for name in REQUIRED_FILES if not (bundle.folder / name).is_file()]
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
    for kind, files in (
        ("train", ["train.json"]),
        ("train", ["train.json", "evaluate.json"]),
        ("train", ["train.json", "multi_gpu_train.json"]),
        ("infer", ["inference.json"]),
    ):
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


def _network_in_out(bundle: Bundle) -> str | None:
    from monai.bundle import verify_net_in_out

    configs = bundle.folder / "configs"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        n=4,
        p=2,
        any=64,
    )
    return None


def _weights(bundle: Bundle) -> str | None:
    load_network(bundle, load_config(bundle, "inference", {"device": "cpu"}), "cpu")
    size_mb = bundle.weights.stat().st_size / 1e6
    return (
        None
        if size_mb <= MAX_WEIGHTS_MB
        else f"{size_mb:.1f} MB of weights; at most {MAX_WEIGHTS_MB:g} MB are shipped"
    )


def _agreement(bundle: Bundle) -> str | None:
    train, inference = (_json(bundle.folder / "configs" / f"{name}.json") for name in ("train", "inference"))
    if train.get("network_def") != inference.get("network_def"):
        return "train.json and inference.json define different networks"
    if inference.get("bundle_version") != bundle.version:
        return (
            f"inference.json says version {inference.get('bundle_version')}, metadata.json {bundle.version}"
        )
    return None


CHECKS: dict[str, Callable[[Bundle], str | None]] = {
    "files of the bundle layout": _files,
    "metadata (MONAI verify_metadata)": _metadata,
    "properties of train, evaluate, multi_gpu_train and inference (MONAI check_properties)": _properties,
    "network input and output (MONAI verify_net_in_out)": _network_in_out,
    "weights load strictly, weights_only": _weights,
    "train and inference agree": _agreement,
}
