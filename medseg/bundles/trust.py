"""A bundle's config is a program: what it would run, and which bundles may.

Bundles that come with medseg may run. Any other one runs after its user said so once; the digest of its
configs and of whatever Python lies in it is then recorded in a small file of that user, so that the same
bundle runs again and an altered one does not. Looking at a bundle (:func:`code_of`) evaluates nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from medseg.bundles.find import Bundle, bundle_folders, find_bundle, read_json
from medseg.errors import BundleError, InputError, why
from medseg.files import write_json

TRUST_FILE_VARIABLE = "MEDSEG_TRUST_FILE"
WEIGHTS_KEY = "weights_sha256"
"""Of metadata.json: training writes it, and it is no code."""

LIBRARIES = frozenset({"medseg", "monai", "torch", "torchvision", "ignite", "dynamic_network_architectures"})
"""Whose classes a bundle may name without being remarked upon, beside those that shipped bundles name."""

IMPORTABLE = frozenset({".py", ".pyc", ".pyd", ".so", ".pth"})
"""MONAI puts the bundle's folder on Python's path, so such files in it can be imported."""


# ---- what may run ------------------------------------------------------------------------------------------


def trust_file() -> Path:
    """Where a user's trusted bundles are recorded: ``$MEDSEG_TRUST_FILE``, else
    ``$XDG_CONFIG_HOME/medseg/trusted_bundles.json`` (``~/.config`` without it)."""
    named = os.environ.get(TRUST_FILE_VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "medseg" / "trusted_bundles.json"


def is_shipped(bundle: Bundle) -> bool:
    """True for a bundle in medseg's own installation."""
    return bundle.folder.resolve() in {folder.resolve() for folder in bundle_folders().values()}


def is_trusted(bundle: Bundle) -> bool:
    """True when the bundle came with medseg or has the very same code, was copied by medseg from one that may
    run, or was trusted as it is now."""
    if bundle.derived_from is not None:
        return is_trusted(bundle.derived_from)
    if is_shipped(bundle):
        return True
    digest = code_digest(bundle)
    return digest in _shipped_digests() or digest in _recorded()


def trust(bundle: Bundle) -> None:
    """Record that this user trusts the bundle as it is now. InputError when the trust file cannot be used."""
    if is_trusted(bundle):
        return
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    entry = {"name": bundle.name, "folder": str(bundle.folder), "trusted": when}
    path = trust_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json({"bundles": {**_recorded(), code_digest(bundle): entry}}, path)


def require_trusted(bundle: Bundle, trust_bundle: bool = False) -> None:
    """Raise BundleError, with what the bundle would run, unless it may run; ``trust_bundle`` records that it
    may."""
    if trust_bundle:
        trust(bundle)
    if is_trusted(bundle):
        return
    code = code_of(bundle)
    foreign = f", among them {code.foreign[0]}" if code.foreign else ""
    raise BundleError(
        f"bundle {bundle.name} in {bundle.folder} did not come with medseg, and a bundle is a program: with "
        f"your rights it would evaluate {code.expressions} expressions and call {code.targets} classes or "
        f"functions, {len(code.foreign)} of a kind that no bundle of medseg has{foreign}. Look at it with "
        f"medseg bundles verify {bundle.folder}; if you trust who made it, allow it once with `trust_bundle`."
    )


def trusted_bundle(name: str | Path | Bundle, trust_bundle: bool = False) -> Bundle:
    """:func:`medseg.bundles.find.find_bundle` and :func:`require_trusted`: how every door gets its bundle."""
    bundle = find_bundle(name)
    require_trusted(bundle, trust_bundle)
    return bundle


def _recorded() -> dict[str, Any]:
    path = trust_file()
    if not path.exists():
        return {}
    try:
        bundles = json.loads(path.read_text(encoding="utf-8"))["bundles"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a readable list of trusted bundles ({why(error)}); delete it."
        ) from error
    if not isinstance(bundles, dict):
        raise InputError(f"{path}: not a list of trusted bundles; delete it.")
    return bundles


def code_digest(bundle: Bundle) -> str:
    """Hex digest of all that the bundle could execute: every file of configs/, and what Python could import.

    The digest of the weights, which a training writes into metadata.json, is left out.
    """
    total = hashlib.sha256()
    for path in sorted(p for p in bundle.folder.rglob("*") if p.is_file() and _is_code(p, bundle)):
        content = path.read_bytes()
        if path == bundle.folder / "configs" / "metadata.json":
            content = _without_weights(content)
        name = path.relative_to(bundle.folder).as_posix()
        total.update(f"{name}\n{hashlib.sha256(content).hexdigest()}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _is_code(path: Path, bundle: Bundle) -> bool:
    return path.is_relative_to(bundle.folder / "configs") or path.suffix.lower() in IMPORTABLE


def _without_weights(metadata: bytes) -> bytes:
    try:
        content = json.loads(metadata)
        content.pop(WEIGHTS_KEY, None)
        return json.dumps(content, sort_keys=True).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):  # no JSON, or no object
        return metadata


# ---- what a bundle would run -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """What a bundle's configs would run: how many ``$`` expressions and ``_target_`` calls, and, a line each,
    those of a kind that no shipped bundle has: other expressions, calls into other libraries, files of
    elsewhere, Python in the folder."""

    expressions: int
    targets: int
    foreign: tuple[str, ...]


def code_of(bundle: Bundle) -> Code:
    """Read every config as JSON and list what it would run; nothing is evaluated, imported or built.

    The list helps a reader and proves nothing: torch alone can start any program. BundleError for a config
    that is no JSON.
    """
    known_expressions, known_targets = _shipped_code()
    libraries = LIBRARIES | {target.partition(".")[0] for target in known_targets if "." in target}
    expressions, targets, foreign = 0, 0, []
    for path in sorted((bundle.folder / "configs").rglob("*")):
        place = path.relative_to(bundle.folder / "configs")
        if path.is_file() and path.suffix.lower() != ".json":
            shipped = path.name == "logging.conf" and _sha256(path) in _shipped_logging()
            foreign += [] if shipped else [f"{place}: no JSON; not looked into"]
        if path.suffix.lower() != ".json" or path.name == "datalist.json":
            continue
        for where, text, is_target in _texts(read_json(path)):
            at = f"{place}, {where}"
            if text.startswith("$") or (is_target and text.startswith("@")):
                expressions += 1
                foreign += [] if text in known_expressions else [f"{at}: {text}"]
            elif is_target:
                targets += 1
                known = text in known_targets or ("." in text and text.partition(".")[0] in libraries)
                known = known or ("." not in text and _is_monai_component(text))
                foreign += [] if known else [f"{at}: calls {text}"]
            elif text.startswith("%") and text not in known_expressions:
                foreign += [f"{at}: takes {text[1:]} in"] if _names_a_file(text) else []
    foreign += [
        f"{path.relative_to(bundle.folder)}: Python that could be imported"
        for path in sorted(bundle.folder.rglob("*"))
        if path.suffix.lower() in IMPORTABLE and path.is_file()
    ]
    return Code(expressions, targets, tuple(foreign))


def _texts(node: Any, where: str = "") -> Iterator[tuple[str, str, bool]]:
    """(id, text, whether it is a _target_) of every text of a config."""
    todo = [(where, node, False)]
    while todo:
        where, node, is_target = todo.pop()
        if isinstance(node, dict):
            todo += [(f"{where}#{key}".lstrip("#"), value, key == "_target_") for key, value in node.items()]
        elif isinstance(node, list):
            todo += [(f"{where}#{number}", value, is_target) for number, value in enumerate(node)]
        elif isinstance(node, str):
            yield where, node.strip() if is_target else node, is_target


def _names_a_file(macro: str) -> bool:
    # "%name" is an id of the same config, "%/path/file.json::name" one of another file.
    return any(suffix in macro.lower() for suffix in (".json", ".yaml", ".yml"))


@cache
def _shipped_code() -> tuple[frozenset[str], frozenset[str]]:
    """(expressions and macros, targets) of all bundles that come with medseg."""
    expressions, targets = set(), set()
    for folder in bundle_folders().values():
        for path in (folder / "configs").glob("*.json"):
            if path.name == "datalist.json":
                continue
            for _, text, is_target in _texts(read_json(path)):
                (targets if is_target and text[:1] not in "$@" else expressions).add(text)
    return frozenset(expressions), frozenset(targets)


@cache
def _shipped_digests() -> frozenset[str]:
    return frozenset(code_digest(Bundle(name, folder)) for name, folder in bundle_folders().items())


@cache
def _shipped_logging() -> frozenset[str]:
    """Digests of the logging.conf of shipped bundles: Python evaluates parts of such a file."""
    return frozenset(_sha256(folder / "configs" / "logging.conf") for folder in bundle_folders().values())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_monai_component(name: str) -> bool:
    """True for a bare name that MONAI knows; it takes any other one for a builtin (``exec``) or a module."""
    from monai.bundle.config_item import ComponentLocator

    return name.isidentifier() and ComponentLocator().get_component_module_name(name) is not None
