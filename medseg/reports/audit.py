"""audit.html: the most suspicious labels first, each beside its prediction, in one file that needs nothing
else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.files import atomic_path
from medseg.geometry import LPS_TO_RAS, Geometry
from medseg.reports.comparison import Picture, draw_pair

if TYPE_CHECKING:
    from medseg.audit.ranking import Finding, Ranking

TEMPLATE = "audit.html"


@dataclass(frozen=True)
class Shown:
    """A finding with its pictures and its rank, from 1."""

    finding: Finding
    rank: int
    pictures: tuple[Picture, ...]


def draw(
    label: np.ndarray,
    prediction: np.ndarray,
    image: np.ndarray | None,
    spacing: Sequence[float],
    affine_ras: np.ndarray | None,
) -> tuple[Picture, ...]:
    """Pictures of a bool label and prediction in the convention of medseg.audit.evidence; () when both are
    empty.

    3D: the axial slice with the largest difference and three planes; 2D (``affine_ras`` None): the image
    around them.
    """
    if affine_ras is not None:
        geometry = Geometry.from_lps_affine(np.linalg.inv(LPS_TO_RAS) @ affine_ras, label.shape)
        return draw_pair(label, prediction, geometry, image, modality="")
    affine_lps = np.eye(4)[:, [2, 1, 0, 3]] @ np.diag([1.0, *spacing, 1.0])
    geometry = Geometry.from_lps_affine(affine_lps, (1, *label.shape))
    pictures = draw_pair(
        label[None], prediction[None], geometry, None if image is None else image[None], modality=""
    )
    return tuple(replace(picture, caption="the image around label and prediction") for picture in pictures)


def write_html(
    ranking: Ranking,
    shown: Sequence[Shown],
    about: Mapping[str, Any],
    definitions: Mapping[str, str],
    out: Path,
) -> None:
    """Write the page atomically. ``about``: words on how the predictions were made, by title."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = _number
    drawn = {(one.finding.case, one.finding.structure) for one in shown}
    page = environment.get_template(TEMPLATE).render(
        ranking=ranking,
        shown=shown,
        about=about,
        definitions=definitions,
        structures=_structures(ranking),
        drawn=drawn,
    )
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _structures(ranking: Ranking) -> list[dict[str, Any]]:
    """For each structure what is usual: labels, median Dice and distance, and how many labels reach a score
    of 0.5."""
    rows = []
    for name in ranking.names:
        own = [one for one in ranking.findings if one.structure == name]
        both = [
            one.numbers
            for one in own
            if math.isfinite(one.numbers.distance) and one.numbers.dice == one.numbers.dice
        ]
        rows.append(
            {
                "name": name,
                "labels": len(own),
                "suspected": sum(one.score >= 0.5 for one in own),
                "dice": float(np.median([one.dice for one in both])) if both else math.nan,
                "distance": float(np.median([one.distance for one in both])) if both else math.nan,
            }
        )
    return rows


def _number(value: float, digits: int) -> str:
    """A number with so many decimals, ∞, or a dash where there is none."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"
