"""A synthetic chest radiograph with lungs, heart and clavicles of true proportions, made of formulas and a
seed.

Coordinates are fractions of the image side: x runs to the viewer's right (the patient's left), y downwards.
Sizes follow the films that the label-noise literature uses: at 256 pixels a clavicle's inscribed radius is
about 8. Structures overlap (a clavicle lies over its lung, the heart over the left one), so each has a
channel of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.ndimage import label as connected

from medseg.errors import InputError

STRUCTURES = ("Lungs", "Heart", "Clavicles")


@dataclass(frozen=True)
class Radiograph:
    """image float32 (side, side) in 0..1, bone bright; masks bool (3, side, side) in the order of
    STRUCTURES."""

    image: np.ndarray
    masks: np.ndarray


def make_radiograph(seed: int, side: int = 256) -> Radiograph:
    """One patient: the same seed gives the same picture. InputError for an image smaller than 32 pixels."""
    if side < 32:
        raise InputError(
            f"a radiograph phantom of {side} pixels; it needs at least 32 for a clavicle to be visible."
        )
    rng = np.random.default_rng([seed, 20190703])
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side
    x, y = _posture(x, y, rng)
    lung_right, lung_left = _lung(x, y, -1.0, rng), _lung(x, y, 1.0, rng)
    heart = _heart(x, y, rng)
    clavicles, clavicle_thickness = _clavicles(x, y, rng)
    masks = np.stack([lung_right | lung_left, heart > 0, clavicles])
    attenuation = _soft_tissue(x, y, rng)
    aerated = gaussian_filter((lung_right | lung_left).astype(float), 0.006 * side)
    attenuation -= rng.uniform(0.35, 0.5) * aerated
    # Through the lung the heart shows as a shadow; its border is soft where it beats.
    attenuation += rng.uniform(0.22, 0.34) * gaussian_filter(np.clip(heart, 0, 0.35) / 0.35, 0.006 * side)
    attenuation += rng.uniform(0.18, 0.28) * gaussian_filter(clavicle_thickness, 0.003 * side)
    attenuation += rng.uniform(0.05, 0.10) * _ribs(x, y, rng)
    attenuation += rng.uniform(0.10, 0.20) * np.exp(-(((x - 0.5) / 0.055) ** 2))  # spine and mediastinum
    attenuation += rng.uniform(0.02, 0.05) * _smooth_field(rng, side, 0.02) + 0.04 * _smooth_field(
        rng, side, 0.15
    )
    image = (attenuation - 0.2) / rng.uniform(0.75, 1.0)
    image += rng.normal(0, rng.uniform(0.02, 0.05), image.shape)
    return Radiograph(np.clip(image, 0, 1).astype(np.float32) ** rng.uniform(0.8, 1.25), masks)


def _posture(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the standard patient: rotation, scale, shift, and a smooth displacement of up to about 2
    %."""
    angle = rng.normal(0, np.deg2rad(2.5))
    scale_x, scale_y = rng.normal(1, 0.05, 2)
    u, v = x - 0.5 - rng.normal(0, 0.015), y - 0.5 - rng.normal(0, 0.02)
    u, v = (
        (np.cos(angle) * u - np.sin(angle) * v) / scale_x,
        (np.sin(angle) * u + np.cos(angle) * v) / scale_y,
    )
    side = x.shape[0]
    return u + 0.5 + 0.01 * _smooth_field(rng, side, 0.15), v + 0.5 + 0.01 * _smooth_field(rng, side, 0.15)


def _smooth_field(rng: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    """Gaussian random field with a correlation length of `sigma` image sides and standard deviation 1.

    Drawn on a grid of fixed size, so that one patient looks alike at every resolution.
    """
    grid = max(24, int(4 / sigma))
    field = gaussian_filter(rng.normal(size=(grid, grid)), sigma * grid, mode="wrap")
    field = (field - field.mean()) / field.std()
    position = (np.arange(side) + 0.5) / side * (grid - 1)
    low = position.astype(int).clip(max=grid - 2)
    part = position - low
    rows = field[low] * (1 - part)[:, None] + field[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _lung(x: np.ndarray, y: np.ndarray, sign: float, rng: np.random.Generator) -> np.ndarray:
    """One lung field, bool; sign -1 is the patient's right lung, on the viewer's left."""
    apex, base = 0.16 + rng.normal(0, 0.012), (0.76 if sign < 0 else 0.79) + rng.normal(0, 0.02)
    depth = np.clip((y - apex) / (base - apex), 0, 1)
    medial = 0.07 + 0.03 * (1 - depth) ** 2 + (0.035 * depth**2 if sign > 0 else 0.0)
    lateral = 0.185 + 0.19 * np.sqrt(depth) + rng.normal(0, 0.008)
    across = sign * (x - 0.5)
    middle = (medial + lateral) / 2
    # The diaphragm is a dome: highest in the middle of the lung.
    floor = base + 0.10 * ((across - middle) / 0.15) ** 2 - 0.02
    dome = apex + 0.08 * ((across - middle + 0.035) / 0.11) ** 2
    field = (across > medial) & (across < lateral) & (y > dome) & (y < np.minimum(floor, base + 0.09))
    # The sharp corners of the base can shed a pixel.
    pieces, _ = connected(field)
    return pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])


def _heart(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How far inside the heart a point lies (above 0 inside, 1 in the middle): a tilted ellipse."""
    centre_x, centre_y = 0.555 + rng.normal(0, 0.01), 0.635 + rng.normal(0, 0.015)
    long, short = rng.normal(0.20, 0.013), rng.normal(0.15, 0.01)
    tilt = np.deg2rad(rng.normal(35, 6))
    u = np.cos(tilt) * (x - centre_x) + np.sin(tilt) * (y - centre_y)
    v = -np.sin(tilt) * (x - centre_x) + np.cos(tilt) * (y - centre_y)
    return 1 - (u / long) ** 2 - (v / short) ** 2


def _clavicles(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both clavicles as bool, and their thickness along the beam, 0..1."""
    mask, thickness = np.zeros(x.shape, bool), np.zeros(x.shape)
    for sign in (-1.0, 1.0):
        slope, height = rng.normal(-0.28, 0.07), 0.245 + rng.normal(0, 0.012)
        radius = rng.normal(0.028, 0.002)
        bow = rng.normal(0.012, 0.004)
        across = sign * (x - 0.5)
        along = np.clip((across - 0.055) / 0.23, 0, 1)
        centre = height + slope * (across - 0.055) + bow * np.sin(2 * np.pi * along)
        # Distance to a curve of small slope: the vertical one, shortened by the slope's cosine; round ends.
        beyond = across - np.clip(across, 0.055 + radius, 0.285 - radius)
        distance = np.hypot((y - centre) * np.cos(np.arctan(slope)), beyond)
        mask |= distance < radius
        thickness = np.maximum(thickness, np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1)))
    return mask, thickness


def _ribs(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Posterior ribs that fall and anterior ribs that rise towards the side; brightest along their
    borders."""
    across = np.abs(x - 0.5)
    inside = 1 / (1 + np.exp((across - 0.40) / 0.01))
    pattern = np.zeros(x.shape)
    for slope, spacing, strength in ((0.35, 0.072, 1.0), (-0.75, 0.085, 0.6)):
        phase = (y - slope * across + 0.55 * across**2 + rng.uniform(0, spacing)) / spacing
        pattern += strength * np.clip(np.sin(2 * np.pi * phase), 0, 1) ** 0.5
    return pattern * inside


def _soft_tissue(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Trunk, shoulders and abdomen in front of air, with the exposure's fall-off."""
    half_width = 0.44 + 0.05 * y + rng.normal(0, 0.01)
    body = 1 / (1 + np.exp((np.abs(x - 0.5) - half_width) / 0.012))
    neck = 1 / (1 + np.exp(-(y - 0.02 - 0.35 * np.abs(x - 0.5)) / 0.02))
    belly = 1 / (1 + np.exp(-(y - 0.85) / 0.03))
    tilt = rng.normal(0, 0.08) * (x - 0.5) + rng.normal(0, 0.08) * (y - 0.5)
    return body * (0.55 + 0.15 * neck + 0.12 * belly) + tilt
