"""Synthetic photographs of the back of the eye with bright lesions, made of formulas and seeds: patients who
come back several times.

Coordinates are fractions of the image side: x runs to the viewer's right, y downwards. A patient's eye
(pigment, optic disc, vessels, macula, where lesions and look-alikes lie) is drawn from the patient's seed; a
time point changes exposure, contrast, tint, sharpness, vignette and noise, moves the eye by a little, and
hardly changes the lesions. Look-alikes (drusen, reflexes) resemble lesions in everything but a slightly paler
colour, so that who knows the patient has an easy task and who does not has a hard one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medseg.errors import InputError

FIELD_RADIUS = 0.48
PATIENTS, TIME_POINTS = 40, 5
"""Of the cohort that the phantom stands for."""

LESION_TINT, LOOK_ALIKE_TINT = np.array([0.8, 1.0, 0.25]), np.array([0.8, 0.99, 0.27])
"""What a bright spot adds to red, green and blue, before its own strength."""


@dataclass(frozen=True)
class FundusPhoto:
    """image float32 (side, side, 3) in 0..1; lesions, look_alikes and field (of view) bool (side, side)."""

    image: np.ndarray
    lesions: np.ndarray
    look_alikes: np.ndarray
    field: np.ndarray


@dataclass(frozen=True)
class _Spots:
    """Centres (n, 2) as (x, y), radii and strengths (n,) of bright spots."""

    centres: np.ndarray
    radii: np.ndarray
    strengths: np.ndarray


def make_fundus(patient: int, time_point: int = 0, side: int = 256, lesions: bool = True) -> FundusPhoto:
    """One visit of one patient: the same numbers give the same picture. ``lesions=False`` leaves them out of
    the same eye. InputError for an image smaller than 64 pixels."""
    if side < 64:
        raise InputError(f"a fundus phantom of {side} pixels; a lesion needs at least 64 to be visible.")
    eye = np.random.default_rng([patient, 20200501])
    visit = np.random.default_rng([patient, time_point, 20200502])
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side
    moved = visit.normal(0, 0.004, 2)
    field = np.hypot(x - 0.5, y - 0.5) < FIELD_RADIUS
    picture, disc = _retina(x - moved[0], y - moved[1], eye)
    masks = []
    for tint, wanted in ((LESION_TINT, lesions), (LOOK_ALIKE_TINT, True)):
        spots = _spots(eye, disc)
        sizes = spots.radii * visit.normal(1, 0.05, len(spots.radii))
        height = _spot_height(x - moved[0], y - moved[1], spots, sizes) if wanted else np.zeros(x.shape)
        picture += height[..., None] * tint
        masks.append((height > 0) & field)
    return FundusPhoto(_photographed(picture, field, x, y, visit), masks[0], masks[1] & ~masks[0], field)


def _retina(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours (side, side, 3) of an eye without spots, and where its disc is, (x, y)."""
    side_of_disc = rng.choice([-1.0, 1.0])
    disc = np.array([0.5 + side_of_disc * rng.uniform(0.2, 0.28), 0.5 + rng.normal(0, 0.03)])
    base = np.array([rng.uniform(0.55, 0.75), rng.uniform(0.28, 0.4), rng.uniform(0.08, 0.16)])
    light = np.ones(x.shape)
    for _ in range(6):  # pigment
        where, width = rng.uniform(0.1, 0.9, 2), rng.uniform(0.05, 0.15)
        light += rng.normal(0, 0.06) * _bump(x, y, where, width)
    macula = disc - np.array([side_of_disc * rng.uniform(0.3, 0.34), -0.02])
    light -= rng.uniform(0.25, 0.4) * _bump(x, y, macula, 0.05)
    picture = light[..., None] * base
    vessel = np.zeros(x.shape)
    for up in (-1.0, 1.0):
        for direction in (-side_of_disc, side_of_disc):
            bend, width = rng.uniform(0.35, 0.75), rng.uniform(0.004, 0.008)
            across = np.clip(direction * (x - disc[0]), 0, None)
            centre = disc[1] + up * bend * np.sqrt(across + 1e-6) * (1 - 0.5 * across)
            vessel = np.maximum(vessel, np.exp(-(((y - centre) / width) ** 2)) * (across > 0))
    picture -= vessel[..., None] * np.array([0.12, 0.16, 0.05])
    shine = 1 / (1 + np.exp((np.hypot(x - disc[0], (y - disc[1]) * 0.9) - 0.06) / 0.006))
    return picture + shine[..., None] * np.array([0.3, 0.4, 0.25]), disc


def _bump(x: np.ndarray, y: np.ndarray, where: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((x - where[0]) ** 2 + (y - where[1]) ** 2) / (2 * width**2))


def _spots(rng: np.random.Generator, disc: np.ndarray) -> _Spots:
    """8 to 24 spots in one to three clusters that keep clear of the disc."""
    clusters = []
    while len(clusters) < 3:
        where = 0.5 + rng.uniform(-0.32, 0.32, 2)
        if np.hypot(*(where - disc)) > 0.14 and np.hypot(*(where - 0.5)) < 0.36:
            clusters.append(where)
    count, used = int(rng.integers(8, 25)), int(rng.integers(1, 4))
    centres = np.array([clusters[number % used] for number in range(count)]) + rng.normal(0, 0.03, (count, 2))
    return _Spots(centres, rng.uniform(0.005, 0.014, count), rng.uniform(0.08, 0.22, count))


def _spot_height(x: np.ndarray, y: np.ndarray, spots: _Spots, radii: np.ndarray) -> np.ndarray:
    """How bright the spots are at each pixel; above 0 inside the strongest one."""
    height = np.zeros(x.shape)
    for (cx, cy), radius, strength in zip(spots.centres, radii, spots.strengths, strict=True):
        distance = np.hypot(x - cx, y - cy) / radius
        height = np.maximum(height, np.where(distance < 1, strength * (1.2 - 0.4 * distance), 0))
    return height


def _photographed(
    picture: np.ndarray, field: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What the camera makes of it at one visit."""
    sharp = rng.uniform(0.001, 0.003) * len(x)
    seen = np.stack([gaussian_filter(picture[..., channel], sharp) for channel in range(3)], axis=-1)
    contrast, exposure = rng.uniform(0.65, 1.15), rng.uniform(0.75, 1.25)
    mean = seen[field].mean(axis=0)
    seen = mean + contrast * (seen - mean)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    vignette = 1 + strength * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    vignette -= rng.uniform(0.4, 1.0) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    tint = rng.normal(1, 0.05, 3)
    seen = seen * exposure * vignette[..., None] * tint + rng.normal(0, 0.012, seen.shape)
    return (np.clip(seen, 0.02, 1) * field[..., None]).astype(np.float32)
