"""What ``medseg score`` is asked, and the way of a datalist's cases through the door a user takes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medseg.bundles.cohort import segment
from medseg.bundles.copies import with_weights
from medseg.bundles.datalist import check_cases
from medseg.bundles.find import Bundle, read_json
from medseg.bundles.request import Request
from medseg.cases.find import folder_name
from medseg.cases.volume import ALLOWABLE_AT_THE_GATE
from medseg.errors import InputError
from medseg.files import make_folder, own_folder

LINKS = ".images"
"""Folder of the cases while they are answered."""


@dataclass(frozen=True)
class ScoreRequest:
    """What to score. ``data``: where the paths of the datalist begin, or a folder of one DICOM folder per
    patient.

    ``section``: of the datalist (``datalist``: the bundle's own when None). ``truth``: {structure of the
    bundle: ROI}; names the truth in each patient's only structure set and makes ``data`` such a folder of
    patients. ``region_margins_mm``: contour within a box around the true structure, each side moved out by
    its own margin drawn from this range with ``seed``: what a planner's rough box does. ``tolerances``: of
    surface DSC, in mm (pixels on radiographs). ``weights`` (and ``variant``, one of
    ``Bundle.variants``): other weights than the bundle's, such as those of a baseline.
    ``strata``: fields of the datalist's cases, such as sex and device, by which labels are scored apart too.
    ``trust_bundle``: as in :class:`medseg.bundles.request.Request`.
    """

    bundle: str | Bundle
    data: Path
    output_dir: Path
    _: KW_ONLY
    section: str = "test"
    datalist: Path | None = None
    truth: Mapping[str, str] = field(default_factory=dict)
    region_margins_mm: tuple[float, float] | None = None
    seed: int = 0
    tolerances: tuple[float, ...] = (2.0,)
    device: str = "auto"
    weights: Path | None = None
    variant: str | None = None
    trust_bundle: bool = False
    strata: tuple[str, ...] = ()

    def __post_init__(self):
        if self.variant and not self.weights:
            raise InputError("`variant` is of the training of other weights; name them too: `weights`.")
        if self.region_margins_mm and not self.truth:
            raise InputError("`region_margins_mm` needs the ROI that a region lies around: `truth`.")
        if self.region_margins_mm and not (
            0 <= self.region_margins_mm[0] <= self.region_margins_mm[1] < math.inf
        ):
            raise InputError(
                f"`region_margins_mm` {self.region_margins_mm}: expected smallest, largest, from 0."
            )
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: expected 0 or more.")
        if not self.tolerances or not all(0 <= tolerance < math.inf for tolerance in self.tolerances):
            raise InputError(f"`tolerances` {self.tolerances}: expected one or more numbers from 0.")


def used_bundle(bundle: Bundle, request: ScoreRequest, folder: Path) -> Bundle:
    """The bundle, or a copy in ``folder`` with the weights that are asked for."""
    if request.weights is None:
        return bundle
    return with_weights(bundle, request.weights, folder / bundle.name, request.variant)


def answer(
    bundle: Bundle,
    source: Path,
    out: Path,
    formats: tuple[str, ...],
    request: ScoreRequest,
    asked: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """{case: its record} of what ``medseg segment`` made of ``source``; images that the gate would refuse as
    well, since the scores are the network's. ``asked``: further fields of a Request."""
    wanted = Request(
        source,
        bundle,
        out,
        formats=formats,
        device=request.device,
        allow=tuple(ALLOWABLE_AT_THE_GATE),
        **asked,
    )
    return {record["case"]: record for record in segment(wanted)["cases"]}


def cases_of(datalist: Path, request: ScoreRequest) -> list[dict]:
    """The section's cases. InputError for a case without its files, and for a case_id that is there
    twice."""
    content = read_json(datalist)
    cases = content.get(request.section)
    if not isinstance(cases, list) or not cases or not all(isinstance(case, dict) for case in cases):
        sections = ", ".join(name for name, value in content.items() if isinstance(value, list))
        raise InputError(f"{datalist}: no cases in the section {request.section!r}; it has {sections}.")
    check_cases(cases, request.section, datalist, request.data)
    return cases


def require_folders(cases: list[dict], section: str) -> None:
    """InputError where two cases would be answered into one folder."""
    names = [folder_name(case["case_id"]) for case in cases]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two case_ids of {section} would both name the folder {twice!r}.")


def without_failed(
    request: ScoreRequest,
    cases: list[dict],
    records: Mapping[str, Mapping[str, Any]],
    report: Callable[[str], None],
) -> tuple[list[dict], dict[str, str]]:
    """(the cases that were answered, {case: why it was not}), with a line to ``report`` for each of the
    others. InputError where none was."""
    failed = {
        case["case_id"]: records[name]["error"]
        for case in cases
        if records[name := folder_name(case["case_id"])]["status"] == "failed"
    }
    for case_id, reason in failed.items():
        report(f"{case_id}: {reason}")
    done = [case for case in cases if case["case_id"] not in failed]
    if not done:
        raise InputError(f"{request.data}: no case of it could be answered.")
    return done, failed


def answer_cases(
    bundle: Bundle,
    request: ScoreRequest,
    cases: list[dict],
    suffix: str | None,
    formats: tuple[str, ...],
    asked: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """{name of the case's folder: record} of the cases of a datalist; ``suffix`` of their files, None for
    each one's own.

    The cases are links below ``request.output_dir`` as long as it takes. A case is known by its path, which
    is the same in every run: one that was answered before by the same weights is not answered again.
    """
    links = request.output_dir / LINKS
    with own_folder(request.output_dir):
        shutil.rmtree(links, ignore_errors=True)  # of a process that was killed
        make_folder(links)
        try:
            for case in cases:
                image = (request.data / case["image"]).resolve()
                own = ".nii.gz" if image.name.lower().endswith(".nii.gz") else image.suffix
                (links / f"{folder_name(case['case_id'])}{suffix or own}").symlink_to(image)
            return answer(bundle, links, request.output_dir, formats, request, asked)
        finally:
            shutil.rmtree(links)
