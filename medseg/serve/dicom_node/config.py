"""The node's one file: where it listens, what it contours with what, and where the results go."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from medseg.bundles.kinds import DICOM_FORMATS
from medseg.errors import InputError
from medseg.files import load_json
from medseg.serve.dicom_node.values import check_value


@dataclass(frozen=True)
class Tls:
    """PEM files. ``authority``: of the certificates that the other side must show."""

    authority: str
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Listen:
    """How the node receives. ``allowed``: AE titles that may send; ["*"] means anyone. ``quiet_s``: a study
    is complete when nothing of it came for so long and no association is open that brought some of it.
    ``commitment``: {AE title: "host:port"} where those who ask for storage commitment are told the outcome;
    others are told on their own association."""

    allowed: tuple[str, ...]
    ae_title: str = "MEDSEG"
    host: str = "127.0.0.1"
    port: int = 11112
    associations: int = 50
    quiet_s: float = 60.0
    least_free_gb: float = 5.0
    tls: Tls | None = None
    commitment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """Where results go: a DICOM store (``ae_title``, ``host``, ``port``), or ``stow``, the URL of a DICOMweb
    service. ``authorization_env``: the environment variable with the Authorization header for it."""

    ae_title: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    tls: Tls | None = None
    stow: str | None = None
    authorization_env: str | None = None

    def __post_init__(self) -> None:
        stores = self.ae_title is not None and self.port is not None
        if stores == (self.stow is not None):
            raise InputError("a target has `ae_title`, `host` and `port`, or `stow`.")
        if self.stow is not None and not self.stow.startswith(("http://", "https://")):
            raise InputError("`stow` is no http:// or https:// address.")


@dataclass(frozen=True)
class Rule:
    """Series to contour, with what, and where to send the result. What is left out is not asked for.

    ``description``: a pattern (*thigh*) for the series' or the study's, whatever the case; ``body_part`` and
    ``sender`` (calling AE title) as they stand. ``at_least``: so many images; a localizer has few.
    """

    bundle: str
    name: str = ""
    modality: str | None = None
    description: str | None = None
    body_part: str | None = None
    sender: str | None = None
    at_least: int = 1
    targets: tuple[str, ...] = ()
    priority: int = 0
    formats: tuple[str, ...] = ("rtstruct",)
    within: str | None = None
    allow: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, series: SeriesFacts) -> bool:
        """True when the series is one of those that the rule means."""
        said = (series.description.lower(), series.study_description.lower())
        return (
            self.modality in (None, series.modality)
            and self.body_part in (None, series.body_part)
            and self.sender in (None, series.sender)
            and (
                self.description is None or any(fnmatchcase(text, self.description.lower()) for text in said)
            )
            and series.images >= self.at_least
        )


@dataclass(frozen=True)
class SeriesFacts:
    """What rules ask of a series that has been received."""

    series_uid: str
    modality: str
    description: str
    study_description: str
    body_part: str
    sender: str
    images: int


@dataclass(frozen=True)
class NodeConfig:
    """The whole file. ``queue``: where the jobs wait, an SQLite file or ``postgresql://…``; by default a file
    in ``folder``. ``lease_s``: a worker that is silent for so long is taken for dead, and its job goes to
    another. ``keep_days``: after so long an answered study and its results are deleted.
    ``keep_trying_days``: so long a target that refuses is asked again."""

    folder: Path
    listen: Listen
    rules: tuple[Rule, ...]
    targets: Mapping[str, Target] = field(default_factory=dict)
    queue: str | None = None
    workers: int = 1
    worker_memory_gb: float | None = None
    lease_s: float = 60.0
    keep_days: float = 30.0
    keep_trying_days: float = 7.0
    metrics_port: int | None = None

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    @property
    def work(self) -> Path:
        """A folder of input and output for every job."""
        return self.folder / "work"

    @property
    def queue_url(self) -> str:
        return self.queue or str(self.folder / "jobs.sqlite")

    @property
    def bundles(self) -> tuple[str, ...]:
        """Those that some rule names: the only ones that run."""
        return tuple(dict.fromkeys(rule.bundle for rule in self.rules))


def read_config(path: Path) -> NodeConfig:
    """The node's file, checked but for the bundles (:func:`check_bundles`). Relative paths count from the
    file's folder. InputError for what is no JSON, an unknown or missing key, and a value of another kind."""
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}).") from error
    try:
        return _config(_table(content, "the file"), path.resolve().parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_bundles(config: NodeConfig) -> None:
    """BundleError or InputError for a rule whose bundle may not run, has no weights, or takes none of the
    rule's formats or settings. Loads no torch."""
    from medseg.bundles.config import check_settings
    from medseg.bundles.kinds import formats_of
    from medseg.bundles.request import Request
    from medseg.bundles.trust import trusted_bundle
    from medseg.bundles.weights import require_digest

    for rule in config.rules:
        bundle = trusted_bundle(rule.bundle)
        require_digest(bundle)
        formats_of(bundle, rule.formats, "")
        check_settings(bundle, "inference", rule.settings)
        Request(
            config.folder,
            bundle,
            config.folder,
            within=rule.within,
            allow=rule.allow,
            settings=dict(rule.settings),
        )


def _config(content: Mapping[str, Any], beside: Path) -> NodeConfig:
    rows = content.get("rules", [])
    if not isinstance(rows, list) or not rows:
        raise InputError("`rules` is no list with a rule in it.")
    targets = {
        name: _made(Target, _with_tls(row, f"targets/{name}", beside), f"targets/{name}")
        for name, row in _table(content.get("targets", {}), "`targets`").items()
    }
    listen = _with_tls(content.get("listen", {}), "`listen`", beside)
    config = _made(
        NodeConfig,
        {
            **content,
            "folder": beside / _text(content.get("folder"), "`folder`"),
            "listen": _made(Listen, listen, "`listen`"),
            "targets": targets,
            "rules": tuple(_rule(row, number, targets) for number, row in enumerate(rows, 1)),
        },
        "the file",
    )
    named = [rule.name for rule in config.rules]
    if len(set(named)) < len(named):
        raise InputError(f"two rules have the name {max(named, key=named.count)!r}.")
    if config.queue and "://" not in config.queue:
        return _made(NodeConfig, {**vars(config), "queue": str(beside / config.queue)}, "the file")
    return config


def _rule(row: Any, number: int, targets: Mapping[str, Target]) -> Rule:
    where = f"rule {number}"
    row = _table(row, where)
    rule = _made(Rule, {"name": f"rule-{number}", **row}, where)
    unknown = [name for name in rule.targets if name not in targets]
    if unknown:
        raise InputError(
            f"{where}: no target {unknown[0]!r}; expected some of {', '.join(targets) or '(none)'}."
        )
    odd = [name for name in rule.formats if name not in DICOM_FORMATS]
    if odd and rule.targets:
        raise InputError(
            f"{where}: format {odd[0]!r} cannot be sent to a DICOM store; expected some of "
            f"{', '.join(DICOM_FORMATS)}."
        )
    return rule


def _with_tls(row: Any, where: str, beside: Path) -> dict[str, Any]:
    """The table with its ``tls`` made, where it has one; its files count from the folder ``beside``."""
    row = dict(_table(row, where))
    if row.get("tls") is not None:
        files = _table(row["tls"], f"{where}, tls")
        placed = {key: str(beside / name) if isinstance(name, str) else name for key, name in files.items()}
        row["tls"] = _made(Tls, placed, f"{where}, tls")
    return row


_KINDS = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple[str, ...]": (list, tuple),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, str]": (dict,),
}
"""What JSON has for a field's type; other types are made before."""


def _made(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass of these values; InputError for a key that it has not, lacks, or takes no such value of."""
    known = {entry.name: entry for entry in fields(kind)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InputError(f"{where}: unknown key {key!r}; expected some of {', '.join(known)}.{hint}")
    for name, entry in known.items():
        if name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise InputError(f"{where}: `{name}` is missing.")
    made = {}
    for key, value in values.items():
        wanted = str(known[key].type)
        kinds = _KINDS.get(wanted.removesuffix(" | None"))
        right = (
            kinds is None or isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)
        )
        if not right and not (value is None and wanted.endswith("| None")):
            raise InputError(
                f"{where}: `{key}` is {value!r}; expected {wanted.replace('tuple[str, ...]', 'texts')}."
            )
        if wanted == "tuple[str, ...]":
            if not all(isinstance(text, str) for text in value):
                raise InputError(f"{where}: `{key}` is {value!r}; expected texts.")
            value = tuple(value)
        check_value(key, value, where)
        made[key] = value
    try:
        return kind(**made)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {type(value).__name__}; expected an object with keys.")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} is {value!r}; expected text.")
    return value
