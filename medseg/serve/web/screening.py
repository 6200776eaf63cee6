"""What a bundle's metadata ask for beside its answer, where that answer screens: an explanation, and a
questionnaire of its field.

``metadata.json`` says ``"screening": {"meaning": {"en": …, "zh-hans": …, "zh-hant": …}, "self_assessment":
"osta"}``; the second is a key of :data:`QUESTIONNAIRES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import get_language

from medseg.bundles.find import find_bundle
from medseg.errors import InputError, MedsegError
from medseg.serve.web.site import the_site


@dataclass(frozen=True)
class Question:
    """A number that is asked for: its words, and the least and the greatest that make sense."""

    name: str
    words: str
    least: float
    most: float


@dataclass(frozen=True)
class Questionnaire:
    """A published index. ``index``: of the answers, by name. ``bands``: (words, what it means, highest index
    of the band), from the lowest; the last reaches to infinity. ``for_whom``, ``formula``, ``source``: shown
    with it."""

    title: str
    for_whom: str
    questions: tuple[Question, ...]
    index: Callable[[Mapping[str, float]], float]
    bands: tuple[tuple[str, str, float], ...]
    formula: str
    source: str

    def band_of(self, index: float) -> tuple[str, str]:
        """(words, what it means) of an index."""
        return next((words, meaning) for words, meaning, highest in self.bands if index <= highest)


def osta(answers: Mapping[str, float]) -> float:
    """0.2 x (weight in kg - age in years), truncated to an integer (Koh et al. 2001)."""
    return float(math.trunc(round(0.2 * (answers["weight_kg"] - answers["age"]), 6)))


QUESTIONNAIRES = {
    "osta": Questionnaire(
        "Osteoporosis Self-assessment Tool for Asians (OSTA)",
        "Made for Asian women after the menopause; of others it says little.",
        (Question("age", "Age, years", 40, 110), Question("weight_kg", "Weight, kg", 25, 200)),
        osta,
        (
            ("high", "Below -4: in the study that made the index most of these women had osteoporosis.", -5),
            ("medium", "From -4 to -1: a measurement of the bone density (DXA) is worth asking about.", -1),
            ("low", "Above -1: osteoporosis was rare among these women. Other risks still count.", math.inf),
        ),
        "0.2 × (kg − years)",
        "Koh LKH, Ben Sedrine W, Torralba TP, et al. A simple tool to identify Asian women at increased risk "
        "of osteoporosis. Osteoporos Int 2001; 12: 699–705. doi:10.1007/s001980170070",
    ),
}


def screening_of(bundle_name: str) -> dict[str, Any]:
    """{"meaning"} in the user's language, and {"self_assessment", "questionnaire"} where there is one, of a
    bundle of this site; {} where its metadata say nothing of it, or the bundle is no longer there."""
    try:
        said = find_bundle(bundle_name).metadata.get("screening")
    except MedsegError:
        return {}
    if bundle_name not in the_site().bundles or not isinstance(said, dict):
        return {}
    meaning, key = said.get("meaning"), said.get("self_assessment")
    texts = meaning if isinstance(meaning, dict) else {"en": str(meaning or "")}
    words = texts.get(get_language() or "en") or texts.get("en", "")
    found = {"self_assessment": key, "questionnaire": QUESTIONNAIRES[key]} if key in QUESTIONNAIRES else {}
    return {"meaning": words, **found}


def answers_of(questionnaire: Questionnaire, form: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a form. InputError for what is none, or out of its range."""
    found = {}
    for question in questionnaire.questions:
        text = form.get(question.name, "").strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not question.least <= value <= question.most:
            low, high = f"{question.least:g}", f"{question.most:g}"
            raise InputError(f"{question.words} {text[:20]!r}: expected a number from {low} to {high}.")
        found[question.name] = value
    return found
