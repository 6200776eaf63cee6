"""Which jobs the rules make of a study, and the folder of each. Loads no network."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundles.find import find_bundle
from medseg.bundles.request import Request, payload_of
from medseg.serve.dicom_node.config import NodeConfig, Rule, SeriesFacts

REGISTRATION = "REG"


@dataclass(frozen=True)
class Planned:
    """One job to be: a rule, and the series that go in, the contoured one first."""

    rule: Rule
    series: tuple[SeriesFacts, ...]


def plan(config: NodeConfig, series: Sequence[SeriesFacts]) -> list[Planned]:
    """The jobs for a study with these series, in the order of the rules; [] when no rule means it.

    A bundle of one image gets a job for every series that its rule matches. A bundle of several gets one for
    the study: all series of its modalities, with registrations, when the rule matches the one that is
    contoured; the bundle itself refuses what does not fit together. Series that two rules with the same
    bundle match are contoured by the first of them.
    """
    planned: list[Planned] = []
    for rule in config.rules:
        bundle = find_bundle(rule.bundle)
        taken = {row.series_uid for job in planned if job.rule.bundle == rule.bundle for row in job.series}
        matched = [row for row in series if rule.matches(row) and row.series_uid not in taken]
        matched = [row for row in matched if bundle.modality in (None, row.modality)]
        if not matched:
            continue
        if len(bundle.modalities) == 1:
            planned += [Planned(rule, (row,)) for row in matched]
            continue
        modalities = (*bundle.modalities.values(), REGISTRATION)
        others = [row for row in series if row.modality in modalities and row not in matched]
        planned.append(Planned(rule, (*matched, *others)))
    return planned


def work_name(study_uid: str, planned: Planned, objects: Sequence[str]) -> str:
    """The name of a job's folder: the same rule and objects have the same, so that nothing is made twice."""
    text = "\n".join((study_uid, planned.rule.name, planned.rule.bundle, *sorted(objects)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def link_input(config: NodeConfig, work: str, study_uid: str, objects: dict[str, list[str]]) -> Path:
    """The job's own view of its series, ``{series: [object, …]}``, by links: what comes later does not change
    it. Made under another name first, so that it is whole when it is there."""
    folder = config.work / work / "input"
    if folder.is_dir():
        return folder
    unfinished = config.work / work / ".unfinished-input"
    shutil.rmtree(unfinished, ignore_errors=True)
    for series, names in objects.items():
        (unfinished / series).mkdir(parents=True)
        for name in names:
            source = config.incoming / study_uid / series / f"{name}.dcm"
            os.link(source, unfinished / series / f"{name}.dcm")
    os.replace(unfinished, folder)
    return folder


def payload(config: NodeConfig, work: str, rule: Rule) -> dict[str, Any]:
    """The job for the queue."""
    return payload_of(
        Request(
            config.work / work / "input",
            rule.bundle,
            config.work / work / "output",
            formats=rule.formats,
            within=rule.within,
            allow=rule.allow,
            settings=dict(rule.settings),
        )
    )
