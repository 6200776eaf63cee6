"""Chest CTs made of formulas and a seed: lungs with vessels, calcifications and nodules of known place and
size.

Places are mm from the middle of the grid, (slice, row, column) = (superior, posterior, left), and anatomy is
laid out in shares of the grid's extent, so that a grid of 64 x 64 x 64 voxels of 2 mm holds a small patient
whole. A nodule has the size that is asked for whatever the patient's. Edges are soft over one voxel, as a
scanner's partial volume makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, uniform_filter

from medseg.errors import InputError
from medseg.geometry import Geometry

AIR_HU, FAT_HU, TISSUE_HU, LUNG_HU, VESSEL_HU, BONE_HU = -1000.0, -100.0, 40.0, -860.0, 45.0, 350.0

DENSITIES = ("solid", "part-solid", "ground glass")
TRIES = 200
"""Places that are tried for a nodule before it is left out."""

MOST_FILLED = 0.4
"""Share of a nodule's cube that vessels may fill: a small one within a vessel could not be seen."""


@dataclass(frozen=True)
class Nodule:
    """``centre_lps_mm`` (left, posterior, superior); ``diameter_mm`` of the ball of equal volume;
    ``density``: one of DENSITIES; ``at_pleura``: it touches the wall of its lung."""

    centre_lps_mm: tuple[float, float, float]
    diameter_mm: float
    density: str
    at_pleura: bool


@dataclass(frozen=True, eq=False)
class ChestCt:
    """``volume_hu`` float32, ``lungs`` bool and ``labels`` uint8 [slice, row, column] on ``geometry``: voxels
    of ``nodules[k]`` are k + 1 in ``labels``, 0 elsewhere. Lungs hold their vessels, and nodules up to the
    wall."""

    volume_hu: np.ndarray
    geometry: Geometry
    lungs: np.ndarray
    labels: np.ndarray
    nodules: tuple[Nodule, ...]

    def mask(self, number: int) -> np.ndarray:
        """bool [slice, row, column] of ``nodules[number]``."""
        return self.labels == number + 1


def make_chest_ct(
    seed: int,
    shape: tuple[int, int, int] = (64, 64, 64),
    spacing_mm: float | Sequence[float] = 2.0,
    diameters_mm: tuple[float, float] = (4.0, 30.0),
    count: int | None = None,
    calcifications: int | None = None,
) -> ChestCt:
    """One patient: the same arguments give the same CT.

    ``spacing_mm``: one, or (between slices, rows, columns). ``diameters_mm``: of the smallest and the largest
    nodule, drawn evenly on a logarithmic scale. ``count``: nodules, 1 to 5 for None; those that find no place
    are left out, 0 is a patient without. ``calcifications``: 4 to 9 for None. InputError for a grid of fewer
    than 32 voxels or 100 mm along an axis, for a spacing or diameters that are not positive or not in order,
    and for more than 255 nodules.
    """
    rng = np.random.default_rng([seed, 20260926])
    step_mm = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (3,))
    _check(shape, step_mm, diameters_mm, count)
    canvas = _Canvas(shape, step_mm)
    lungs = _trunk(canvas, rng)
    _ribs_and_spine(canvas, rng)
    _airways(canvas, lungs)
    texture = gaussian_filter(rng.normal(size=shape), 4.0 / step_mm)
    canvas.image += lungs * (40.0 / texture.std()) * texture
    for side in (-1.0, 1.0):
        _vessels(canvas, lungs, side, rng)
    spots = int(rng.integers(4, 10)) if calcifications is None else calcifications
    _calcifications(canvas, lungs, spots, rng)
    wanted = int(rng.integers(1, 6)) if count is None else count
    sizes_mm = np.sort(np.exp(rng.uniform(*np.log(diameters_mm), wanted)))[::-1]
    labels = np.zeros(shape, dtype=np.uint8)
    middle_lps_mm = rng.uniform(-60, 60, 3)
    nodules = _nodules(canvas, lungs > 0.5, sizes_mm, labels, rng)
    blurred = gaussian_filter(canvas.image, 0.5 / step_mm)
    noisy = blurred + gaussian_filter(rng.normal(0, 40, shape), 0.4)
    corner = middle_lps_mm + [axis[0] for axis in canvas.axes_mm[::-1]]
    affine = np.array(
        [[0, 0, step_mm[2], corner[0]], [0, step_mm[1], 0, corner[1]], [step_mm[0], 0, 0, corner[2]]]
    )
    found = tuple(
        Nodule(tuple((middle_lps_mm + centre[::-1]).tolist()), size, density, at_pleura)
        for centre, size, density, at_pleura in nodules
    )
    return ChestCt(
        noisy.clip(-1024, 3000).astype(np.float32),
        Geometry.from_lps_affine(np.vstack([affine, [0, 0, 0, 1]]), shape),
        lungs > 0.5,
        labels,
        found,
    )


def _check(shape, step_mm, diameters_mm, count) -> None:
    if not (np.isfinite(step_mm).all() and (step_mm > 0).all()):
        raise InputError(f"a chest phantom with a spacing of {tuple(step_mm)} mm; expected positive numbers.")
    if min(shape) < 32 or (step_mm * shape).min() < 100:
        raise InputError(
            f"a chest phantom of {tuple(shape)} voxels of {tuple(step_mm.tolist())} mm; expected 32 voxels "
            "and 100 mm or more along each axis."
        )
    low, high = diameters_mm
    if not 0 < low <= high < np.inf:
        raise InputError(
            f"nodules of {low} to {high} mm; expected two positive diameters, the smaller first."
        )
    if count is not None and not 0 <= count <= 255:
        raise InputError(f"{count} nodules; expected 0 to 255.")


# ---- painting ----------------------------------------------------------------------------------------------


class _Canvas:
    """HU on a grid, and what paints on it. ``half_mm``: from its middle to its faces."""

    def __init__(self, shape: Sequence[int], step_mm: np.ndarray) -> None:
        self.step_mm, self.half_mm = step_mm, step_mm * shape / 2
        self.axes_mm = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, step_mm, strict=True)]
        self.image = np.full(shape, AIR_HU)

    def points(self) -> list[np.ndarray]:
        """z, y and x in mm of every voxel, each along its own axis."""
        return list(np.meshgrid(*self.axes_mm, indexing="ij", sparse=True))

    def place(self, flat_index: int) -> np.ndarray:
        """z, y and x in mm of one voxel."""
        indices = np.unravel_index(flat_index, self.image.shape)
        return np.array([axis[index] for axis, index in zip(self.axes_mm, indices, strict=True)])

    def share(self, outside_mm: np.ndarray) -> np.ndarray:
        """0 to 1, how much of a voxel is filled, of the distance to a surface, negative inside."""
        return np.clip(0.5 - outside_mm / self.step_mm.mean(), 0, 1)

    def near(self, low_mm: np.ndarray, high_mm: np.ndarray) -> tuple[tuple[slice, ...], list[np.ndarray]]:
        """The part of the grid between two corners, and its points."""
        ends = [
            np.searchsorted(axis, (low, high))
            for axis, low, high in zip(
                self.axes_mm, low_mm - self.step_mm, high_mm + self.step_mm, strict=True
            )
        ]
        part = tuple(slice(int(first), int(last)) for first, last in ends)
        axes = [axis[cut] for axis, cut in zip(self.axes_mm, part, strict=True)]
        return part, list(np.meshgrid(*axes, indexing="ij", sparse=True))

    def mix(self, hu: float, share: np.ndarray, part: tuple[slice, ...] = (...,)) -> None:
        """Replace ``share`` of the voxels by matter of ``hu``."""
        self.image[part] += share * (hu - self.image[part])


def _ellipsoid_mm(points: list[np.ndarray], centre_mm, half_mm) -> np.ndarray:
    """Distance to an ellipsoid, to first order, negative inside; half axes of infinity make a cylinder."""
    parts = [(p - c) / h for p, c, h in zip(points, centre_mm, half_mm, strict=True)]
    reach = np.sqrt(sum(part**2 for part in parts))
    slope = np.sqrt(sum((part / h) ** 2 for part, h in zip(parts, half_mm, strict=True)))
    return (reach - 1) * reach / np.maximum(slope, 1e-9)


def _tube_mm(points: list[np.ndarray], start_mm: np.ndarray, end_mm: np.ndarray) -> np.ndarray:
    """Distance to the segment between two points."""
    along = end_mm - start_mm
    place = sum((p - s) * a for p, s, a in zip(points, start_mm, along, strict=True)) / (along @ along)
    place = np.clip(place, 0, 1)
    return np.sqrt(sum((p - s - place * a) ** 2 for p, s, a in zip(points, start_mm, along, strict=True)))


# ---- the patient -------------------------------------------------------------------------------------------


def _trunk(canvas: _Canvas, rng: np.random.Generator) -> np.ndarray:
    """Body with its layer of fat, heart and lungs; returns 0 to 1, how much of a voxel is lung."""
    z, y, x = points = canvas.points()
    half = canvas.half_mm * rng.normal(1, 0.03, 3)
    tall, deep, wide = half
    skin_mm = _ellipsoid_mm(points, (0, 0, 0), (np.inf, 0.9 * deep, 0.97 * wide))
    canvas.mix(FAT_HU, canvas.share(skin_mm))
    canvas.mix(TISSUE_HU, canvas.share(skin_mm + 0.07 * wide))
    heart_mm = _ellipsoid_mm(
        points, (-0.25 * tall, -0.22 * deep, 0.14 * wide), (0.42 * tall, 0.3 * deep, 0.3 * wide)
    )
    lungs = np.zeros(canvas.image.shape)
    for side in (-1.0, 1.0):
        middle = side * 0.4 * wide
        lung_mm = _ellipsoid_mm(
            points, (-0.1 * tall, 0.02 * deep, middle), (0.98 * tall, 0.58 * deep, 0.32 * wide)
        )
        # The diaphragm is a dome, highest in the middle of the lung.
        away = ((x - middle) / (0.32 * wide)) ** 2 + (y / (0.58 * deep)) ** 2
        floor_mm = (-0.66 - 0.25 * away) * tall - z
        lungs = np.maximum(lungs, canvas.share(np.maximum(lung_mm, floor_mm)))
    lungs *= 1 - canvas.share(heart_mm)
    canvas.image += lungs * (LUNG_HU + rng.normal(0, 15) + 25 * y / deep - canvas.image)
    return lungs


def _ribs_and_spine(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Vertebrae with discs between them, and ribs that fall towards the front, outside the lungs."""
    z, y, x = points = canvas.points()
    tall, deep, wide = canvas.half_mm
    pitch = 25.0
    phase = rng.uniform(0, pitch)
    spine_mm = _ellipsoid_mm(points, (0, 0.52 * deep, 0), (np.inf, 0.16 * deep, 0.13 * wide))
    disc = np.abs((z + phase) % pitch - pitch / 2) > 0.4 * pitch
    canvas.mix(BONE_HU, canvas.share(spine_mm) * np.where(disc, 0.25, 1.0))
    cage_mm = np.abs(_ellipsoid_mm(points, (0, 0.02 * deep, 0), (np.inf, 0.68 * deep, 0.79 * wide)))
    height_mm = (z + phase - 0.35 * (deep - y)) % pitch - pitch / 2
    rib_mm = np.hypot(np.maximum(cage_mm - 1.5, 0), np.maximum(np.abs(height_mm) - 3.0, 0)) - 1.5
    canvas.mix(BONE_HU, canvas.share(rib_mm) * (np.abs(x) > 0.12 * wide))


def _airways(canvas: _Canvas, lungs: np.ndarray) -> None:
    """Trachea and main bronchi, which lead air into both lungs."""
    tall, deep, wide = canvas.half_mm
    fork = np.array([0.2 * tall, 0.2 * deep, 0.0])
    ends = [np.array([1.2 * tall, 0.2 * deep, 0.0])]
    ends += [np.array([0.05 * tall, 0.15 * deep, side * 0.2 * wide]) for side in (-1, 1)]
    for end, radius in zip(ends, (0.05 * wide, 0.035 * wide, 0.035 * wide), strict=True):
        canvas.mix(AIR_HU + 20, canvas.share(_tube_mm(canvas.points(), fork, end) - radius) * (1 - lungs))


def _vessels(canvas: _Canvas, lungs: np.ndarray, side: float, rng: np.random.Generator) -> None:
    """Two trees of tubes from the hilum outwards that fork and thin until they are below half a mm."""
    tall, deep, wide = canvas.half_mm
    hilum = np.array([0.0, 0.1 * deep, side * 0.16 * wide])
    radius = min(0.055 * wide, 7.0)
    reach = 0.3 * np.array([tall, deep, 0.6 * wide]).mean()
    for _ in range(2):
        for rise in (-0.9, 0.0, 0.9):
            heading = np.array([rise, rng.uniform(-0.6, 0.6), side])
            branches = [(hilum + rng.normal(0, 2, 3), heading, radius, reach)]
            while branches:
                start, heading, thick, length = branches.pop()
                heading = heading / np.linalg.norm(heading)
                end = start + heading * length
                low, high = np.minimum(start, end) - thick, np.maximum(start, end) + thick
                part, points = canvas.near(low, high)
                share = canvas.share(_tube_mm(points, start, end) - thick)
                canvas.mix(VESSEL_HU, share * lungs[part], part)
                if thick > 0.5:
                    branches += [
                        (end, heading + rng.normal(0, 0.45, 3), thick * shrink, length * 0.85)
                        for shrink in rng.uniform(0.62, 0.8, 2)
                    ]


def _calcifications(canvas: _Canvas, lungs: np.ndarray, count: int, rng: np.random.Generator) -> None:
    """Dense grains of 2.5 to 6 mm, in the lungs and beside the airways."""
    places = np.flatnonzero(lungs > 0.9)
    tall, deep, wide = canvas.half_mm
    for number in range(count):
        if number % 3 == 2:
            centre = rng.normal(0, 1, 3) * [0.15 * tall, 0.08 * deep, 0.1 * wide]
        else:
            centre = canvas.place(places[rng.integers(len(places))])
        radius = rng.uniform(1.25, 3.0)
        part, points = canvas.near(centre - radius, centre + radius)
        grain_mm = np.sqrt(sum((p - c) ** 2 for p, c in zip(points, centre, strict=True))) - radius
        canvas.mix(rng.uniform(500, 1100), canvas.share(grain_mm), part)


# ---- nodules -----------------------------------------------------------------------------------------------


def _nodules(canvas: _Canvas, lungs: np.ndarray, sizes_mm, labels: np.ndarray, rng) -> list[tuple]:
    """Paint nodules, the largest first, and number their voxels in ``labels``; [(centre, diameter, density,
    at the pleura)] in the grid's mm."""
    depth_mm = distance_transform_edt(lungs, sampling=canvas.step_mm)
    filled = (lungs & (canvas.image > -600)).astype(np.float32)
    painted: list[tuple] = []
    for size in sizes_mm:
        radius, at_pleura = size / 2, bool(rng.random() < 0.3)
        low, high = (0.8 * radius, 1.05 * radius) if at_pleura else (1.25 * radius + 2, np.inf)
        clear = uniform_filter(filled, np.maximum(size / canvas.step_mm, 1).astype(int)) < MOST_FILLED
        places = np.flatnonzero((depth_mm >= low) & (depth_mm <= high) & clear)
        centre = _free_place(canvas, places, radius, painted, rng)
        if centre is None:
            continue
        density = DENSITIES[rng.choice(3, p=(0.6, 0.2, 0.2))] if size >= 6 else DENSITIES[0]
        part, points = canvas.near(centre - 1.3 * radius, centre + 1.3 * radius)
        bumpy_mm = _bumpy_ball_mm(points, centre, radius, rng)
        _fill(canvas, part, bumpy_mm, radius, density, rng)
        inside = bumpy_mm <= 0
        if not inside.any():
            inside.flat[bumpy_mm.argmin()] = True
        labels[part][inside] = len(painted) + 1
        painted.append((centre, float(size), density, at_pleura))
    return painted


def _free_place(canvas: _Canvas, places: np.ndarray, radius: float, painted: list, rng) -> np.ndarray | None:
    """A point, mm, near one of the voxels ``places`` that keeps 4 mm from what is painted; None without."""
    for _ in range(TRIES if len(places) else 0):
        centre = canvas.place(places[rng.integers(len(places))])
        centre += rng.uniform(-0.5, 0.5, 3) * canvas.step_mm
        if all(np.linalg.norm(centre - other) > 1.3 * (radius + size / 2) + 4 for other, size, *_ in painted):
            return centre
    return None


def _bumpy_ball_mm(points: list[np.ndarray], centre: np.ndarray, radius: float, rng) -> np.ndarray:
    """Distance to a ball with waves of up to a tenth of its radius, of the ball's own volume to first
    order."""
    away = [p - c for p, c in zip(points, centre, strict=True)]
    reach = np.sqrt(sum(part**2 for part in away))
    bumps = np.zeros(reach.shape)
    for frequency in (2, 3, 5):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        cosine = sum(part * d for part, d in zip(away, direction, strict=True)) / np.maximum(reach, 1e-6)
        bumps += rng.normal(0, 0.05) * np.cos(frequency * np.arccos(np.clip(cosine, -1, 1)))
    return reach - radius * (1 + np.clip(bumps, -0.1, 0.1))


def _fill(canvas: _Canvas, part, bumpy_mm: np.ndarray, radius: float, density: str, rng) -> None:
    """Solid, ground glass through which vessels show, or ground glass around a solid core."""
    share = canvas.share(bumpy_mm)
    if density != "solid":
        veil = rng.uniform(-650, -450)
        canvas.image[part] += share * np.maximum(veil - canvas.image[part], 0)
        share = canvas.share(bumpy_mm + radius * rng.uniform(0.4, 0.6)) if density == "part-solid" else 0.0
    canvas.mix(rng.uniform(0, 60), share, part)
