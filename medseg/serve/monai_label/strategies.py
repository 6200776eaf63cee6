"""Which image next: the first, any, the one that the model is least sure of, the one that is least like those
done, or the label that an audit suspects most."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputError
from medseg.files import load_json


class UnknownStrategy(InputError):
    """There is no strategy of this name."""


class NothingKnown(InputError):
    """The strategy has nothing to go by yet."""


@dataclass(frozen=True)
class Situation:
    """What a strategy chooses by. ``images``: every image's id; ``done``: those that the person has labelled;
    ``scores``: {image: {"entropy", "features"}} of the scoring jobs; ``audit``: folder of an audit, or None;
    ``seed``: for ``random``, None for a new draw each time; ``reviewed``: (image, structure) corrected since
    the audit; ``sources``: {image: its file or folder}, by which an audit may know it."""

    images: Sequence[str]
    done: frozenset[str]
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    audit: Path | None = None
    seed: int | None = None
    reviewed: frozenset[tuple[str, str]] = frozenset()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def open(self) -> list[str]:
        return sorted(set(self.images) - self.done)


Choice = dict[str, Any]
"""``id`` of the image and why it was chosen; {} when all are done."""


def first(situation: Situation) -> Choice:
    """The first image, by id, that has no label."""
    return {"id": situation.open[0]} if situation.open else {}


def any_one(situation: Situation) -> Choice:
    """Any image that has no label."""
    return {"id": random.Random(situation.seed).choice(situation.open)} if situation.open else {}


def uncertain(situation: Situation) -> Choice:
    """The image without a label whose probabilities have the largest mean entropy."""
    if not situation.open:
        return {}
    known = [name for name in situation.open if "entropy" in situation.scores.get(name, {})]
    if not known:
        raise NothingKnown("no image was scored yet; POST /scoring/uncertain, and ask again when it is done.")
    chosen = max(known, key=lambda name: (situation.scores[name]["entropy"], name))
    entropy = situation.scores[chosen]["entropy"]
    reason = f"mean entropy {entropy:.3f} nat, the largest of {len(known)} scored images without a label"
    return {"id": chosen, "score": entropy, "reason": reason, "scored": len(known), "of": len(situation.open)}


def diverse(situation: Situation) -> Choice:
    """The image without a label that lies farthest, by its features, from all that have one (k-centre greedy,
    Sener and Savarese 2018); without a label, the one nearest to the mean."""
    if not situation.open:
        return {}
    vectors = {name: row["features"] for name, row in situation.scores.items() if "features" in row}
    known = [name for name in situation.open if name in vectors]
    if not known:
        raise NothingKnown("no image was scored yet; POST /scoring/diverse, and ask again when it is done.")
    table = np.array([vectors[name] for name in sorted(vectors)], dtype=np.float64)
    spread = np.where(table.std(0) > 0, table.std(0), 1.0)
    place = {name: (np.array(vectors[name]) - table.mean(0)) / spread for name in vectors}
    done = [place[name] for name in sorted(situation.done) if name in place]
    if done:
        distance = {name: min(float(np.linalg.norm(place[name] - one)) for one in done) for name in known}
        chosen = max(known, key=lambda name: (distance[name], name))
        reason = (
            f"distance {distance[chosen]:.2f} from the nearest labelled image, the largest of {len(known)}"
        )
    else:
        distance = {name: float(np.linalg.norm(place[name])) for name in known}
        chosen = min(known, key=lambda name: (distance[name], name))
        reason = f"nothing is labelled yet; the most typical of {len(known)}"
    return {"id": chosen, "score": distance[chosen], "reason": reason, "scored": len(known)}


def suspect(situation: Situation) -> Choice:
    """The image with the most suspicious label by ``medseg audit``, and the reason in mm. Entries that a
    reviewer closed in the audit's worklist, or corrected here since, are passed over."""
    from medseg.audit.worklist import read_worklist  # loads what audits are made of

    if situation.audit is None:
        raise NothingKnown("no audit is known; start the server with the folder of one (medseg audit).")
    findings = read_findings(situation.audit)
    worklist = read_worklist(situation.audit / "worklist.csv")
    for finding in findings:
        case, structure = str(finding["case"]), str(finding["structure"])
        closed = worklist.get((case, structure), {"status": "open"})["status"] != "open"
        image = _image_of(finding, situation)
        if image is not None and not closed and (image, structure) not in situation.reviewed:
            told = ("structure", "score", "words", "slice", "z_mm", "dice", "distance", "bias", "unit")
            return {
                "id": image,
                **{key: finding.get(key) for key in told},
                "reason": f"{structure}: {finding.get('words')}",
                "rank": finding.get("rank"),
            }
    return {}


def _image_of(finding: Mapping[str, Any], situation: Situation) -> str | None:
    """The image that an audit calls by its id, or by its file; None for one that is not here."""
    if finding["case"] in situation.images:
        return str(finding["case"])
    named = str(finding.get("image") or "")
    ends = [name for name, source in situation.sources.items() if f"/{source}".endswith(f"/{named}")]
    return ends[0] if named and len(ends) == 1 else None


def read_findings(folder: Path) -> list[dict[str, Any]]:
    """The findings of an audit's audit.json, worst first. NothingKnown where there is none."""
    try:
        findings = load_json(folder / "audit.json")["findings"]
        return [row for row in findings if isinstance(row, dict) and {"case", "structure"} <= set(row)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NothingKnown(f"no readable audit.json ({type(error).__name__}); run medseg audit.") from error


@dataclass(frozen=True)
class Strategy:
    """``words``: what clients show."""

    choose: Callable[[Situation], Choice]
    words: str


STRATEGIES = {
    "first": Strategy(first, "The first image without a label"),
    "random": Strategy(any_one, "Any image without a label"),
    "uncertain": Strategy(uncertain, "The image that the model is least sure of"),
    "diverse": Strategy(diverse, "The image that is least like those with a label"),
    "suspect": Strategy(suspect, "The label that the audit suspects most"),
}


def choose(name: str, situation: Situation) -> Choice:
    """UnknownStrategy, NothingKnown; {} when nothing is left."""
    if name not in STRATEGIES:
        raise UnknownStrategy(f"no strategy {name[:40]!r}; expected one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name].choose(situation)
