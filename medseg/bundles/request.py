"""What a user asks of ``medseg segment``, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from medseg.bundles.find import Bundle
from medseg.bundles.kinds import FORMATS
from medseg.cases.region import check_region
from medseg.cases.volume import ALLOWABLE_AT_THE_GATE
from medseg.errors import InputError

ENGINES = ("auto", "torch", "openvino")
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
    ``trust_bundle``: record that this bundle, which did not come with medseg, may run; see
    :mod:`medseg.bundles.trust`. Making a request loads no torch, so a mistyped one is refused at once.
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


def _check_faults(names: tuple[str, ...]) -> None:
    from medseg.dicom import ALLOWABLE

    known = (*ALLOWABLE, *ALLOWABLE_AT_THE_GATE)
    faults = [name for name in names if name not in known]
    if faults:
        raise InputError(f"fault {', '.join(map(repr, faults))}: expected some of {', '.join(known)}.")
