"""What a user asks of ``medseg segment``, checked before anything heavy is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from medseg.bundles.find import Bundle, bundle_folders
from medseg.bundles.kinds import FORMATS
from medseg.cases.region import check_region
from medseg.cases.volume import ALLOWABLE_AT_THE_GATE
from medseg.errors import InputError

BFLOAT16_ENGINE = "openvino-bf16"
ENGINES = ("auto", "torch", "openvino", BFLOAT16_ENGINE)
"""medseg.inference.engines.ENGINE_NAMES, here without loading torch; a test compares them."""

OWN_FIELDS = {
    "device": "device",
    "engine": "engine",
    "output_dir": "output_dir",
    "formats": "formats",
    "within": "within",
    "allow": "allow",
    "dataset_dir": "input",
    "bundle_root": "bundle",
}
"""Ids of inference.json and the field of a Request that sets each; a second way would contradict it."""

NOT_USED = {
    "bundle_name",
    "bundle_version",
    "checkpoint",
    "dataloader",
    "dataset",
    "evaluator",
    "handlers",
    "imports",
    "network",
    "progress",
    "run",
}
"""Ids that say what the bundle is or serve MONAI's own command line; here they would change nothing, or
lie."""


@dataclass(frozen=True)
class Request:
    """What a user asks of ``medseg segment``; one to one with its options. ``settings``: overrides of
    inference.json.

    No ``formats`` means RTSTRUCT and preview for DICOM, NIfTI and preview for a NIfTI file, which has no
    series to refer to, PNG and preview for a radiograph. ``series``: for a bundle of several modalities,
    (modality, what) of series that the caller names: a SeriesInstanceUID in ``input``, a folder or file, or
    "none"; and ("REG", file); without ``input`` all by path. ``bundle``: a name, a folder, or a Bundle.
    ``at``: points (LPS mm) inside the tumour of one patient, from which a bundle that takes points finds its
    region; see :mod:`medseg.bundles.clicks`. ``trust_bundle``: record that this bundle, which did not come
    with medseg, may run; see :mod:`medseg.bundles.trust`. Making a request loads no torch, so a mistyped one
    is refused at once.
    """

    input: Path | None
    bundle: str | Path | Bundle
    output_dir: Path
    _: KW_ONLY
    formats: tuple[str, ...] = ()
    device: str = "auto"
    engine: str = "auto"
    within: str | None = None
    allow: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    series: tuple[tuple[str, str], ...] = ()
    trust_bundle: bool = False
    at: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self):
        if self.input is None and not self.series:
            raise InputError("no `input` and no `series`; say what to contour.")
        if self.allow:
            _check_faults(self.allow)
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise InputError(
                f"format {', '.join(map(repr, unknown))}: expected some of {', '.join(FORMATS)}."
            )
        if self.within is not None and not self.within.strip():
            raise InputError("`within` is empty; leave it out to contour the whole image.")
        if self.within is not None:
            check_region(self.within)
        check_points(self.at, self.within)
        for key in self.settings:
            name = key.replace("::", "#").split("#")[0]
            if name in OWN_FIELDS:
                raise InputError(f"setting {key}: use `{OWN_FIELDS[name]}` for it.")
            if name in NOT_USED:
                raise InputError(f"setting {key}: has no effect on medseg segment.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device {self.device!r}: expected auto, cpu or cuda.")
        if self.engine not in ENGINES:
            raise InputError(f"engine {self.engine!r}: expected one of {', '.join(ENGINES)}.")


def check_points(at: Sequence[Sequence[float]], within: str | None) -> None:
    """Raise InputError for points that are not three finite numbers each, and for points beside a region."""
    for point in at:
        numbers = not isinstance(point, str) and all(isinstance(value, int | float) for value in point)
        if not numbers or len(point) != 3 or not all(map(math.isfinite, point)):
            raise InputError(f"`at` {point!r}: expected a point x, y, z in LPS mm.")
    if at and within is not None:
        raise InputError("`at` and `within`: give points inside the tumour, or where to look, not both.")


def _check_faults(names: tuple[str, ...]) -> None:
    from medseg.dicom import ALLOWABLE

    known = (*ALLOWABLE, *ALLOWABLE_AT_THE_GATE)
    faults = [name for name in names if name not in known]
    if faults:
        raise InputError(f"fault {', '.join(map(repr, faults))}: expected some of {', '.join(known)}.")


# ---- as plain values, for a queue --------------------------------------------------------------------------

PAYLOAD_FIELDS = (
    "input",
    "bundle",
    "output_dir",
    "formats",
    "device",
    "engine",
    "within",
    "allow",
    "settings",
    "series",
    "at",
)
"""Fields of a Request that a queued job carries. Trust in a bundle is not among them: a person gives it."""


def payload_of(request: Request) -> dict[str, Any]:
    """The request as plain values with absolute paths, so that another process can run it. ``bundle``: the
    name, or the folder of one that did not come with medseg."""
    bundle = request.bundle
    if isinstance(bundle, Bundle):
        shipped = bundle_folders().get(bundle.name) == bundle.folder
        bundle = bundle.name if shipped else bundle.folder
    return {
        "input": None if request.input is None else str(Path(request.input).absolute()),
        "bundle": str(bundle.absolute()) if isinstance(bundle, Path) else bundle,
        "output_dir": str(Path(request.output_dir).absolute()),
        "formats": list(request.formats),
        "device": request.device,
        "engine": request.engine,
        "within": request.within,
        "allow": list(request.allow),
        "settings": dict(request.settings),
        "series": [list(pair) for pair in request.series],
        "at": [list(point) for point in request.at],
    }


def request_of(payload: Mapping[str, Any]) -> Request:
    """The Request of :func:`payload_of`'s values. InputError for an unknown or missing field, a value of
    another kind, and a relative path, which would mean another place in the process that runs it."""
    unknown = sorted(set(payload) - set(PAYLOAD_FIELDS))
    if unknown:
        raise InputError(f"job: unknown field {unknown[0]!r}; expected some of {', '.join(PAYLOAD_FIELDS)}.")
    for name in ("bundle", "output_dir"):
        if not isinstance(payload.get(name), str):
            raise InputError(f"job: `{name}` is {payload.get(name)!r}; expected text.")
    for name in ("input", "output_dir"):
        value = payload.get(name)
        if value is not None and not (isinstance(value, str) and Path(value).is_absolute()):
            raise InputError(f"job: `{name}` is {value!r}; expected an absolute path.")
    for name, kind in (
        ("formats", list),
        ("allow", list),
        ("series", list),
        ("at", list),
        ("settings", dict),
    ):
        if not isinstance(payload.get(name, kind()), kind):
            raise InputError(f"job: `{name}` is {payload[name]!r}; expected a {kind.__name__}.")
    series = payload.get("series", [])
    if not all(isinstance(pair, list) and [type(text) for text in pair] == [str, str] for pair in series):
        raise InputError(f"job: `series` is {series!r}; expected pairs of texts.")
    return Request(
        None if payload.get("input") is None else Path(payload["input"]),
        payload["bundle"],
        Path(payload["output_dir"]),
        formats=tuple(payload.get("formats", ())),
        device=payload.get("device", "auto"),
        engine=payload.get("engine", "auto"),
        within=payload.get("within"),
        allow=tuple(payload.get("allow", ())),
        settings=dict(payload.get("settings", {})),
        series=tuple((modality, what) for modality, what in series),
        at=tuple(tuple(point) if isinstance(point, list) else point for point in payload.get("at", [])),
    )
