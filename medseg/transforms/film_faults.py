"""What spoils a radiograph of a bone for a network that learned from clean ones: metal, blur, burnt-in text.

Each rule is a number of the whole film that a person can check, taken at one size so that detectors compare,
and one end of what the training films have (``configs/gate.json`` under ``film_rules``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

LOOKED_AT_PIXELS, TEXT_PIXELS = 160, 512
"""The longest side of a film as it is looked at; letters need more of it than edges of screws."""

FLAT = 0.004
"""Grey values nearer than this are one plateau: metal and burnt-in text have no noise of their own."""

METAL_FROM, TEXT_STANDS_OUT, TEXT_FROM_END = 0.9, 0.2, 0.06
STROKE_SHARE = 0.04
"""Of the film's longest side: strokes are thinner."""

MIDDLE = 0.2
"""The middle of a film, where the neck of a hip lies: all but this share of rows and columns at each edge."""


@dataclass(frozen=True)
class Rule:
    """``number``: of a float (row, column) film, 0 to 1. ``end``: whether the training films have "most" or
    "least" of it. ``fault``: what a film beyond that has, in words."""

    number: Callable[[np.ndarray], float]
    end: str
    fault: str


def looked_at(pixels: np.ndarray, longest: int = LOOKED_AT_PIXELS) -> np.ndarray:
    """The film with its longest side of ``longest`` pixels; a smaller one as it is, since enlarging adds no
    detail."""
    factor = longest / max(pixels.shape)
    if factor >= 1:
        return pixels.astype(float)
    soft = ndimage.gaussian_filter(pixels.astype(float), 0.35 / factor)
    return np.clip(ndimage.zoom(soft, factor, order=1), 0, 1)


def metal_share(pixels: np.ndarray) -> float:
    """Share of the film in its largest piece that is as bright as can be and flat: an implant stops all rays.
    0 for a film without such a plateau."""
    film = looked_at(pixels)
    smooth = ndimage.maximum_filter(film, 3) - ndimage.minimum_filter(film, 3) < 10 * FLAT
    pieces, count = ndimage.label((film >= METAL_FROM * film.max()) & smooth)
    return float(np.bincount(pieces.ravel())[1:].max() / film.size) if count else 0.0


def sharpness(pixels: np.ndarray) -> float:
    """Spread of what a blur of one pixel takes away, over the spread of the film; logarithm."""
    film = looked_at(pixels)
    fine = film - ndimage.gaussian_filter(film, 1.0)
    return float(np.log(fine.std() / (film.std() + 1e-6) + 1e-6))


def text_share(pixels: np.ndarray) -> float:
    """Share of the film's middle in thin strokes, white or black, that stand out from what lies around
    them."""
    film = looked_at(pixels, TEXT_PIXELS)
    strokes = np.zeros(film.shape, bool)
    wider = 1 + 2 * round(STROKE_SHARE * max(film.shape) / 2)
    for turned in (film, 1 - film):
        opened = ndimage.grey_opening(turned, (wider, wider))
        strokes |= (turned - opened > TEXT_STANDS_OUT) & (turned > turned.max() - TEXT_FROM_END)
    rows, columns = (slice(int(n * MIDDLE), n - int(n * MIDDLE)) for n in film.shape)
    return float(strokes[rows, columns].mean())


RULES: dict[str, Rule] = {
    "metal": Rule(metal_share, "most", "a bright flat area like a metal implant"),
    "blur": Rule(sharpness, "least", "hardly any fine detail: it is blurred, or enlarged"),
    "text": Rule(text_share, "most", "thin strokes over the bone like burnt-in text or a marker"),
}
"""What a gate.json may set a limit to under ``film_rules``."""


def film_faults(pixels: np.ndarray, limits: Mapping[str, float]) -> list[str]:
    """What is wrong with a film, a clause each; nothing where ``limits`` ({rule: limit}) are kept."""
    found = []
    for name, limit in limits.items():
        rule = RULES[name]
        number = rule.number(pixels)
        if number > limit if rule.end == "most" else number < limit:
            found.append(
                f"{rule.fault} ({name} {number:.3g}, expected {limit:.3g} or "
                f"{'less' if rule.end == 'most' else 'more'})"
            )
    return found
