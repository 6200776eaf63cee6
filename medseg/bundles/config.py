"""Build what a bundle's configs define, with overrides that are checked by name, and run them."""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.dummy import DummyProcess
from pathlib import Path
from typing import Any

from medseg.bundles.datalist import check_datalist
from medseg.bundles.find import Bundle, read_json
from medseg.bundles.importers.zoo import NAMES, adapted, is_of_zoo, require_own_weights
from medseg.bundles.trust import require_trusted
from medseg.bundles.weights import read_state, read_weights
from medseg.errors import BundleError, MedsegError


def load_config(bundle: Bundle, config: str, overrides: Mapping[str, Any]):
    """MONAI ConfigParser over ``configs/<config>.json`` with ``bundle_root`` set and ``overrides`` applied.

    Unlike MONAI, which takes any new name in silence, an override must name an id that the config already
    has. What is built from the parser is executed, so BundleError for a bundle that may not run.
    """
    require_trusted(bundle)
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_meta(str(bundle.folder / "configs" / "metadata.json"))
    content, of_zoo = _content(bundle, config, overrides)
    parser.read_config(content)
    for key, value in {"bundle_root": str(bundle.folder), **overrides}.items():
        check_override(bundle, config, content, key, value)
        parser[key] = value
    parser.parse()
    if of_zoo:
        _make_scripts_importable(bundle)
        require_own_weights(bundle, parser)
    return parser


def _make_scripts_importable(bundle: Bundle) -> None:
    """A zoo bundle names its own Python as scripts.…; that of another bundle may be loaded under this
    name."""
    if (bundle.folder / "scripts").is_dir():
        for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
            del sys.modules[name]
        sys.path[:] = [str(bundle.folder), *(path for path in sys.path if path != str(bundle.folder))]


def _content(bundle: Bundle, config: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """(a config as it is run, whether it is one of MONAI's zoo, made to fit)."""
    if config != "inference":
        return read_json(bundle.folder / "configs" / f"{config}.json"), False
    content = read_json(bundle.inference_file) if bundle.inference_file.suffix == ".json" else _yaml(bundle)
    if not is_of_zoo(content):
        return content, False
    return adapted(bundle, content, settings.get(NAMES, {})), True


def _yaml(bundle: Bundle) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise BundleError(f"{bundle.inference_file}: pip install pyyaml, which reads it.") from error
    try:
        content = yaml.safe_load(bundle.inference_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BundleError(f"{bundle.inference_file}: not a readable YAML file ({error}).") from error
    if not isinstance(content, dict):
        raise BundleError(f"{bundle.inference_file}: expected an object of settings.")
    return content


def check_settings(bundle: Bundle, config: str, settings: Mapping[str, Any]) -> None:
    """BundleError for a setting that ``configs/<config>.json`` has not, or that takes no such value; nothing
    is built."""
    content, _ = _content(bundle, config, settings)
    for key, value in settings.items():
        check_override(bundle, config, content, key, value)


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
            near = difflib.get_close_matches(key, content, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BundleError(
                f"bundle {bundle.name}: {config}.json has no setting {key!r}.{hint} Its settings: {names}."
            )
        node = node[part] if isinstance(node, Mapping) else node[int(part)]
    if (key, value) == ("resume", "changed"):  # of medseg.training.Checkpoints, beside true and false
        return
    expected = _other_kind(node, value)
    if expected:
        raise BundleError(
            f"bundle {bundle.name}: {config}.json: {key}={json.dumps(value)}: expected {expected}, as in "
            f"{_shortened(json.dumps(node))}."
        )


def _other_kind(present: Any, value: Any) -> str | None:
    """What kind of value a setting takes, when ``value`` is of another; None when it fits, or the config
    computes it."""
    if value is None:  # null turns a step off where its class allows it, and else the class says so
        return None
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


def _shortened(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]} …"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def build(bundle: Bundle, parser, name: str) -> Any:
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
    """The outermost of medseg's own errors, else what was raised first.

    MONAI wraps an error once for every component that the config builds; medseg's say what another library's
    error means.
    """
    # MONAI's cache is filled by a pool of threads; one that still works when Python ends would abort the
    # process.
    for thread in threading.enumerate():
        if isinstance(thread, DummyProcess) and thread is not threading.current_thread():
            thread.join(timeout=60)
    while error.__cause__ is not None and not isinstance(error, MedsegError):
        error = error.__cause__
    return error


def load_network(bundle: Bundle, parser, device):
    """The bundle's network with its weights, in evaluation mode. Loads strictly and executes nothing from the
    file of weights; see :func:`medseg.bundles.weights.read_weights` for which it refuses."""
    import torch

    network = build(bundle, parser, "network_def")
    if not isinstance(network, torch.nn.Module):
        raise BundleError(
            f"bundle {bundle.name}: network_def is {type(network).__name__}; expected a torch.nn.Module."
        )
    network = network.to(device)
    state = read_weights(bundle, device)
    try:
        network.load_state_dict(state, strict=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"bundle {bundle.name}: weights {bundle.weights_sha256[:12]} do not fit its network_def "
            f"({reason})."
        ) from error
    return network.eval()


def run_config(bundle: Bundle, configs: Sequence[str], run_id: str, settings: Mapping[str, Any]) -> None:
    """``python -m monai.bundle run RUN_ID`` over ``configs/<name>.json`` in order, with overrides checked by
    name.

    ``settings`` hold at least ``dataset_dir``; without ``datalist`` the bundle's own is taken. The list is
    checked first. BundleError for a bundle that may not run.
    """
    require_trusted(bundle)
    folder = bundle.folder / "configs"
    contents: dict[str, Any] = {}
    for name in configs:
        contents.update(read_json(folder / f"{name}.json"))
    for key, value in settings.items():
        check_override(bundle, " + ".join(configs), contents, key, value)
        _check_training_value(bundle, contents, key, value)
    check_datalist(settings.get("datalist", folder / "datalist.json"), settings["dataset_dir"])
    if "evaluate" in configs:  # MONAI's loader would take damaged weights
        own = read_weights(bundle) if "ckpt_dir" not in settings else None
        _ = own or read_state(Path(settings["ckpt_dir"]) / "model.pt")
    import monai.bundle

    try:
        with warnings.catch_warnings():
            # What a config may run was said, and asked, when the bundle became trusted.
            warnings.filterwarnings("ignore", message="parsing config_file")
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
        if isinstance(cause, (MedsegError, OSError)):  # a disk that is full is no fault of the bundle
            raise cause from error
        reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
        if "Error(s) in loading state_dict" in reason:
            raise BundleError(
                f"bundle {bundle.name}: the weights do not fit the network_def ({reason})."
            ) from error
        component = _not_built(error)
        if component is None:
            raise
        raise BundleError(
            f"bundle {bundle.name}: {component} cannot be built with these settings and data: {reason}"
        ) from error


def _check_training_value(bundle: Bundle, content: Mapping[str, Any], key: str, value: Any) -> None:
    """BundleError for a setting of a training that would change nothing, or with which none could begin."""
    if value is None and content.get(key) is not None:
        raise BundleError(
            f"bundle {bundle.name}: {key}=null: would change nothing, since MONAI takes null for a setting "
            "that is not given; change the config instead."
        )
    if key == "learning_rate" and not (_is_number(value) and value > 0):
        raise BundleError(f"bundle {bundle.name}: {key}={json.dumps(value)}: expected a number above 0.")
    least, most = WHOLE_NUMBERS.get(key, (None, math.inf))
    if least is not None and not (_is_number(value) and value == int(value) and least <= value <= most):
        raise BundleError(
            f"bundle {bundle.name}: {key}={json.dumps(value)}: expected a whole number from {least}."
        )


WHOLE_NUMBERS = {
    "batch_size": (1, math.inf),
    "epochs": (1, math.inf),
    "num_workers": (0, math.inf),
    "seed": (0, 2**32 - 1 - 10**6),  # epochs are added, and numpy takes 32 bits
    "val_interval": (1, math.inf),
}
"""Settings that every bundle's train.json has, and from where to where they go."""


def _not_built(error: BaseException) -> str | None:
    """The innermost component of a config whose building failed, None when what was built failed at work."""
    found: str | None = None
    at: BaseException | None = error
    while at is not None:
        text = " ".join(str(at).split())
        component = re.match(r"Failed to instantiate component '([^']*)'", text)
        expression = re.match(r"Failed to evaluate ConfigExpression: ['\"]\$(.*)['\"]$", text)
        if component:
            found = component.group(1)
        elif expression and not expression.group(1).endswith(".run()"):
            found = re.sub(r"__local_refs\['([^']*)'\]", r"@\1", expression.group(1)).replace("::", "#")
        at = at.__cause__
    return found
