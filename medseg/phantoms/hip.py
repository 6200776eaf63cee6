"""A synthetic hip radiograph whose cortical thickness and trabecular texture carry a T-score, made of
formulas and a seed.

Coordinates are millimetres in a field of 120 x 120 mm: x runs towards the middle of the body for a left hip
(to the viewer's left), y downwards. Head, neck and shaft are a ball, and two tubes; what the film shows is
the path of the rays through cortex and through trabecular bone. Facts behind the figures: a femoral cortex
below the lesser trochanter is 4 to 7 mm thick in a young adult and about half of it in osteoporosis, and the
trabecular bundles of the neck thin out and vanish in the order of Singh's grades. BMD follows the public
reference T = (BMD - 0.858) / 0.120 g/cm2.

What must not be learnt, brightness, the machine and the side, is chosen by the caller, so that a set of
images may tie it to the T-score or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, rotate

from medseg.errors import InputError

FIELD_MM = 120.0
REFERENCE_BMD, REFERENCE_SD = 0.858, 0.120
DEVICES = ("sharp", "soft")
"""Two machines: the second blurs more, has less noise and another gamma."""


@dataclass(frozen=True)
class Hip:
    """``image``: float32 (side, side), 0 to 1, bone bright, as [row, column]. ``neck_box``: int (2, 2), first
    row and column, and the row and column behind the last, of the femoral neck."""

    image: np.ndarray
    neck_box: np.ndarray


def bmd_of(t_score: float) -> float:
    """Areal bone mineral density of the femoral neck in g/cm2."""
    return REFERENCE_BMD + REFERENCE_SD * t_score


def make_hip(
    patient: int,
    t_score: float,
    side: str = "L",
    *,
    pixels: int = 128,
    brightness: float = 0.0,
    device: str = "sharp",
) -> Hip:
    """One film: the same arguments give the same picture; a patient's two hips differ as sides do, a little.

    ``side``: "L" or "R", which is its mirror image. ``brightness``: added to all grey values. ``device``: one
    of DEVICES. InputError for fewer than 64 pixels, a T-score outside -6 to 4, another side or device.
    """
    if pixels < 64:
        raise InputError(f"a hip phantom of {pixels} pixels; it needs at least 64 for a cortex to be seen.")
    if side not in ("L", "R") or device not in DEVICES:
        raise InputError(f"side {side!r}, device {device!r}: expected L or R, and {' or '.join(DEVICES)}.")
    if not -6 <= t_score <= 4:
        raise InputError(f"T-score {t_score:g}: expected -6 to 4.")
    shape = np.random.default_rng([patient, 20221018])
    film = np.random.default_rng([patient, "LR".index(side), 20221019])
    scale, tilt = shape.normal(1, 0.05), np.deg2rad(shape.normal(0, 5)) + np.deg2rad(film.normal(0, 2))
    y, x = (np.mgrid[0:pixels, 0:pixels] + 0.5) * FIELD_MM / pixels - FIELD_MM / 2
    moved = film.normal(0, 3), film.normal(0, 3)
    x, y = x + moved[0], y + moved[1]
    u = (np.cos(tilt) * x - np.sin(tilt) * y) / scale
    v = (np.sin(tilt) * x + np.cos(tilt) * y) / scale

    mineral = np.clip(bmd_of(t_score) / REFERENCE_BMD, 0.2, None)
    cortex_mm = 5.5 * mineral**1.5 * shape.normal(1, 0.06)
    bone, cortex = _paths_mm(u, v, cortex_mm)
    streaks = _trabeculae(film, pixels, mineral)
    attenuation = 0.02 * cortex + 0.006 * mineral * bone * (1 + streaks)
    attenuation += (
        0.35 + 0.10 * _smooth(film, pixels, 0.2) + 0.1 * shape.random()
    )  # soft tissue, its thickness
    image = attenuation - 0.1
    blur_mm, noise, gamma = (0.4, 0.03, 1.0) if device == "sharp" else (1.0, 0.015, 1.25)
    image = gaussian_filter(image, blur_mm * pixels / FIELD_MM) + film.normal(0, noise, image.shape)
    image = np.clip(np.clip(image, 0, None) ** gamma + brightness, 0, 1)
    box = _neck_box(pixels, scale, tilt, moved)
    if side == "R":
        image, box = (
            image[:, ::-1],
            np.stack([[box[0, 0], pixels - box[1, 1]], [box[1, 0], pixels - box[0, 1]]]),
        )
    return Hip(np.ascontiguousarray(image, dtype=np.float32), box)


HEAD_MM, HEAD_RADIUS_MM = (-22.0, -28.0), 23.0
SHAFT_X_MM, SHAFT_RADIUS_MM = 24.0, 16.0
NECK_FROM_MM, NECK_TO_MM, NECK_RADIUS_MM = (-14.0, -22.0), (22.0, 6.0), 16.0
NECK_MIDDLE_MM, NECK_BOX_MM = (6.0, -8.0), (44.0, 40.0)
"""Of the box around the neck: (across, down) of its middle, and its height and width."""


def _paths_mm(x: np.ndarray, y: np.ndarray, cortex_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Millimetres of trabecular and of cortical bone that the ray through each pixel passes."""
    outer = np.zeros_like(x)
    inner = np.zeros_like(x)
    for distance, radius, shell in (
        (np.hypot(x - HEAD_MM[0], y - HEAD_MM[1]), HEAD_RADIUS_MM, 0.3 * cortex_mm),
        (_from_segment(x, y, NECK_FROM_MM, NECK_TO_MM), NECK_RADIUS_MM, 0.6 * cortex_mm),
        (_from_segment(x, y, (SHAFT_X_MM, 5.0), (SHAFT_X_MM, 200.0)), SHAFT_RADIUS_MM, cortex_mm),
    ):
        outer = np.maximum(outer, _chord_mm(distance, radius))
        inner = np.maximum(inner, _chord_mm(distance, radius - shell))
    return inner, outer - inner


def _chord_mm(distance: np.ndarray, radius: float) -> np.ndarray:
    """Length of a ray inside a circle of ``radius`` that it passes at ``distance`` from the middle."""
    return 2 * np.sqrt(np.clip(radius**2 - distance**2, 0, None))


def _from_segment(
    x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> np.ndarray:
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    place = ((x - start[0]) * along_x + (y - start[1]) * along_y) / (along_x**2 + along_y**2)
    place = np.clip(place, 0, 1)
    return np.hypot(x - start[0] - place * along_x, y - start[1] - place * along_y)


def _trabeculae(rng: np.random.Generator, pixels: int, mineral: float) -> np.ndarray:
    """Streaks along the neck, mean 0: the fewer minerals, the fewer and the coarser they are."""
    noise = rng.normal(size=(2 * pixels, 2 * pixels))
    width = (0.6 + 0.5 * (1.3 - min(mineral, 1.3))) * pixels / FIELD_MM
    streaks = gaussian_filter(noise, (width, 12 * width))
    turned = rotate(streaks, -38, reshape=False, mode="wrap", order=1)
    middle = slice(pixels // 2, pixels // 2 + pixels)
    return 0.35 * min(mineral, 1.3) ** 2 * turned[middle, middle] / streaks.std()


def _smooth(rng: np.random.Generator, pixels: int, sigma: float) -> np.ndarray:
    field = gaussian_filter(rng.normal(size=(pixels, pixels)), sigma * pixels, mode="wrap")
    return field / (np.abs(field).max() + 1e-9)


def _neck_box(pixels: int, scale: float, tilt: float, moved: tuple[float, float]) -> np.ndarray:
    """The upright box of 44 x 40 mm, as the patient is scaled, whose middle is that of the neck on the
    film."""
    x, y = NECK_MIDDLE_MM
    across = scale * (np.cos(tilt) * x + np.sin(tilt) * y) - moved[0]
    down = scale * (np.cos(tilt) * y - np.sin(tilt) * x) - moved[1]
    middle, half = np.array([down, across]) + FIELD_MM / 2, np.array(NECK_BOX_MM) * scale / 2
    corners = np.stack([middle - half, middle + half]) * pixels / FIELD_MM
    return np.clip(np.rint(corners), 0, pixels).astype(int)
