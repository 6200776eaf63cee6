"""From the evidence of all cases to a ranking: one Finding per case and structure, the most suspicious
first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.audit.disagreement import (
    LEAST_LABELS,
    Disagreement,
    disagreement,
    level_of,
    outline_distances,
    predicted_mask,
    scores,
    threshold_of,
)
from medseg.audit.evidence import Evidence, load_evidence
from medseg.audit.pairs import Pair, Reason
from medseg.audit.places import Place, worst_place
from medseg.audit.reasons import Case, find_reason
from medseg.audit.style import Style, remove_style, styles
from medseg.audit.usual import Usual, level, measures, usual_of
from medseg.errors import InputError

LEAST_DICE = 0.3
"""A structure whose usual Dice is lower was not learned: its predictions tell nothing about its labels."""

NOT_JUDGED = Reason("not judged", "not judged: the predictions of this structure are too poor")


@dataclass(frozen=True)
class Finding:
    """One label. ``score``: suspected error, 0 to 1; ``z``: how suspicious, in robust standard deviations;
    ``unusual``: how far the label's own measures lie from those of its structure (Usual.unusual).
    ``style``: the habit of its group that was taken out first, nan without one. ``place``: the slice of
    the largest difference, None where there is none to name. ``others``: the next best explanations with
    their Dice."""

    case: str
    structure: str
    group: str
    fold: int
    score: float
    z: float
    reason: Reason
    numbers: Disagreement
    unusual: float
    style: float
    unit: str
    spacing: tuple[float, ...]
    image_source: str
    label_source: str
    place: Place | None = None
    others: tuple[tuple[str, float], ...] = ()

    @property
    def gain(self) -> float:
        """The Dice that the correction would win which the reason names; 0 where it names none, or no fault
        of the label."""
        if self.reason.kind == "far prediction":
            return 0.0
        gained = self.reason.dice_after - self.numbers.dice
        return max(gained, 0.0) if math.isfinite(gained) else 0.0


@dataclass(frozen=True)
class Ranking:
    """Findings, worst first; ``thresholds``: {structure: {fold: where its predictions were cut}}; ``styles``
    of groups."""

    findings: tuple[Finding, ...]
    thresholds: dict[str, dict[int, float]]
    styles: tuple[Style, ...]
    cases: tuple[str, ...]
    names: tuple[str, ...]
    unit: str
    notices: tuple[str, ...] = ()


@dataclass
class _Levels:
    """Where each case's prediction would be as large as its label, by structure and fold."""

    by_fold: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    by_structure: dict[int, list[float]] = field(default_factory=dict)

    def add(self, evidence: Evidence) -> None:
        for number in np.flatnonzero(evidence.known).tolist():
            level = level_of(evidence.label[number], evidence.probability[number])
            self.by_fold.setdefault((number, evidence.fold), []).append(level)
            self.by_structure.setdefault(number, []).append(level)

    def threshold(self, number: int, fold: int) -> float:
        """Of the fold's own network where it has enough labels, else of all networks."""
        own = [level for level in self.by_fold.get((number, fold), []) if level == level]
        return threshold_of(own if len(own) >= LEAST_LABELS else self.by_structure.get(number, []))


def rank(
    paths: Sequence[Path],
    groups: Mapping[str, str] | None = None,
    patients: Mapping[str, str] | None = None,
) -> Ranking:
    """Rank the labels of evidence files (one case each; they are read one at a time, three times).

    ``groups``: {case: annotator or centre}; ``patients``: {case: patient}, by which intervals are drawn, each
    case its own where it is not named. InputError without a case, for a name that two cases share, for
    cases of other structures or units, and when every label is empty.
    """
    cases: dict[str, Path] = {}
    levels, names, unit, reach, measured, places = _Levels(), (), "", [], [], []
    for path in paths:
        evidence = load_evidence(path)
        _check_alike(evidence, path, cases, names, unit)
        cases[evidence.case], names, unit = path, evidence.names, evidence.unit
        reach.append(math.prod(evidence.spacing) ** (1 / len(evidence.spacing)))
        levels.add(evidence)
        labels = _labels(evidence)
        measured += [
            (name, measures(label, evidence.image, evidence.spacing)) for name, label in labels.items()
        ]
        places.append({name: level(label, evidence.spacing) for name, label in labels.items()})
    notices = _check_labels(levels, names, len(cases))
    voxel, groups, patients = float(np.median(reach)), groups or {}, patients or {}
    habits: dict[tuple[str, str], Style] = {}
    if groups:
        rows = [row for path in paths for row in _biases(load_evidence(path), levels)]
        habits = styles(
            [(groups.get(case, ""), name, bias, patients.get(case, case)) for case, name, bias in rows], voxel
        )
    kept = {key: habit for key, habit in habits.items() if habit.consistent}
    usual = usual_of(measured, places)
    findings = [one for path in paths for one in _findings(load_evidence(path), levels, groups, kept, usual)]
    scored = scores([(one.structure, one.numbers, one.gain, one.unusual) for one in findings])
    poor = _not_learned(findings, notices)
    findings = [
        replace(one, score=0.0, z=math.nan, reason=NOT_JUDGED)
        if one.structure in poor
        else replace(one, score=score, z=z)
        for one, (score, z) in zip(findings, scored, strict=True)
    ]
    findings.sort(key=lambda finding: (-finding.score, finding.case, finding.structure))
    folds = sorted({finding.fold for finding in findings})
    cut = {
        name: {fold: levels.threshold(number, fold) for fold in folds} for number, name in enumerate(names)
    }
    return Ranking(tuple(findings), cut, tuple(habits.values()), tuple(cases), names, unit, tuple(notices))


def _not_learned(findings: Sequence[Finding], notices: list[str]) -> set[str]:
    """Structures whose usual Dice is below LEAST_DICE, with a sentence each in ``notices``."""
    poor = set()
    for name in dict.fromkeys(one.structure for one in findings):
        known = [
            one.numbers.dice
            for one in findings
            if one.structure == name and one.numbers.dice == one.numbers.dice
        ]
        if known and np.median(known) < LEAST_DICE:
            poor.add(name)
            usual = f"the median Dice of labels and predictions is {np.median(known):.2f}, below {LEAST_DICE}"
            notices.append(f"{name}: not judged, since {usual}; train longer or on a finer grid.")
    return poor


def predicted_masks(evidence: Evidence, levels: _Levels) -> dict[str, np.ndarray]:
    """{structure: bool prediction, cut at its threshold and without specks}."""
    return {
        name: predicted_mask(evidence.probability[number], levels.threshold(number, evidence.fold))
        for number, name in enumerate(evidence.names)
    }


def _biases(evidence: Evidence, levels: _Levels) -> Iterator[tuple[str, str, float]]:
    """(case, structure, mean signed distance) of every label that both sides have."""
    masks = predicted_masks(evidence, levels)
    for number in np.flatnonzero(evidence.known).tolist():
        name = evidence.names[number]
        yield evidence.case, name, outline_distances(evidence.label[number], masks[name], evidence.spacing)[1]


def _labels(evidence: Evidence) -> dict[str, np.ndarray]:
    """{structure: label} of what was contoured."""
    return {
        evidence.names[number]: evidence.label[number] for number in np.flatnonzero(evidence.known).tolist()
    }


def _findings(
    evidence: Evidence, levels: _Levels, groups: Mapping[str, str], kept: Mapping, usual: Usual
) -> Iterator[Finding]:
    """The case's findings, as yet without score; a label of a group with a style is judged without that
    style."""
    masks, group = predicted_masks(evidence, levels), groups.get(evidence.case, "")
    labels = _labels(evidence)
    case = Case(masks, labels, usual)
    for number, (name, label) in zip(np.flatnonzero(evidence.known).tolist(), labels.items(), strict=True):
        habit = kept.get((group, name))
        own = remove_style(label, habit.bias, evidence.spacing) if habit else label
        pair = Pair(own, masks[name], evidence.spacing, evidence.unit, evidence.image)
        reason, others = find_reason(pair, name, case)
        yield Finding(
            evidence.case,
            name,
            group,
            evidence.fold,
            math.nan,
            math.nan,
            reason,
            disagreement(own, evidence.probability[number], masks[name], evidence.spacing, evidence.unit),
            usual.unusual(name, measures(own, evidence.image, evidence.spacing)),
            habit.bias if habit else math.nan,
            evidence.unit,
            evidence.spacing,
            evidence.image_source,
            evidence.label_source,
            worst_place(evidence, label, masks[name]),
            tuple((one.words, one.dice_after) for one in others if one is not reason)[:2],
        )


def _check_alike(
    evidence: Evidence, path: Path, cases: Mapping[str, Path], names: tuple[str, ...], unit: str
) -> None:
    if evidence.case in cases:
        raise InputError(
            f"two cases are called {evidence.case!r} ({cases[evidence.case].name}, {path.name})."
        )
    if names and evidence.names != names:
        raise InputError(
            f"{evidence.case}: structures {', '.join(evidence.names)}; the cases before it "
            f"{', '.join(names)}."
        )
    if unit and evidence.unit != unit:
        raise InputError(
            f"{evidence.case}: sizes in {evidence.unit}, the cases before it in {unit}; audit them apart."
        )


def _check_labels(levels: _Levels, names: Sequence[str], count: int) -> list[str]:
    """Sentences about structures that cannot be judged; InputError without a case, and when no structure can
    be."""
    if not count:
        raise InputError("there is no case to audit.")
    notices, empty = [], []
    for number, name in enumerate(names):
        known = levels.by_structure.get(number, [])
        drawn = sum(level == level for level in known)
        if not drawn:
            empty.append(name)
            notices.append(
                f"{name}: no label has a voxel of it; it is not judged."
                if known
                else f"{name}: nobody contoured it."
            )
        elif drawn < LEAST_LABELS:
            notices.append(f"{name}: {drawn} labels; what is usual is taken from all structures together.")
    if len(empty) == len(names):
        raise InputError(
            f"every label of {', '.join(names)} is empty in all {count} cases; there is nothing to judge."
        )
    return notices
