"""How a radiograph of one side of the body lies: upright or turned, and on which side it looks to be.

A small picture of the film is compared with the mean of the training films, all as left ones, in the eight
ways that a picture can lie. No tag is needed, so that a picture file laid on its side is found out as well.
"""

from __future__ import annotations

import numpy as np

from medseg.transforms.likeness import best_likeness, details

WAYS = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))
"""(quarter turns counterclockwise, whether mirrored first) of what is done to a film."""


def posture_likenesses(film: np.ndarray, template: np.ndarray) -> np.ndarray:
    """float (8,), in the order of WAYS: how alike the details of a small film
    (:func:`medseg.transforms.likeness.small_film`) are to those of ``template``, the mean of upright left
    ones, when it is mirrored and turned so. The first is the film as a left one, the fifth as a right one."""
    wanted = details(template)
    shown = (np.rot90(film[:, ::-1] if mirrored else film, turns) for turns, mirrored in WAYS)
    return np.array([best_likeness(details(picture), wanted) for picture in shown])


def posture_margin(likenesses: np.ndarray, side: str | None) -> float:
    """How much more alike the film is as it is said to lie than in any other way; below 0 it looks to lie
    otherwise. ``likenesses``: of :func:`posture_likenesses`; ``side``: L, R, or None for either."""
    stated = [number for number, way in enumerate(WAYS) if way in _stated(side)]
    others = [number for number in range(len(WAYS)) if number not in stated]
    return float(likenesses[stated].max() - likenesses[others].max())


def posture_fault(film: np.ndarray, template: np.ndarray, least_margin: float, side: str | None) -> list[str]:
    """One clause where the film looks to lie otherwise than upright, or to be of the other side than
    ``side``; none where the margin is ``least_margin`` or more."""
    likenesses = posture_likenesses(film, template)
    margin = posture_margin(likenesses, side)
    if margin >= least_margin:
        return []
    # Among the ways that are not stated: the film may be nearly as alike as stated.
    turns, mirrored = max(
        (way for way in WAYS if way not in _stated(side)), key=lambda way: likenesses[WAYS.index(way)]
    )
    if not turns:
        seen = f"it looks like a {'right' if mirrored else 'left'} one, and {side} is stated"
    else:
        seen = f"it looks turned by {90 * turns} degrees" + (" or mirrored" if side else "")
    return [f"{seen} (margin {margin:.2f}, expected {least_margin:g} or more)"]


def _stated(side: str | None) -> set[tuple[int, bool]]:
    return {"L": {(0, False)}, "R": {(0, True)}, None: {(0, False), (0, True)}}[side]
