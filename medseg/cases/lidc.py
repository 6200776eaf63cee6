"""What the readers of LIDC-IDRI drew (Armato et al., Med Phys 38:915-931, 2011): outlines and ratings of lung
nodules, reader by reader, and how they are merged.

Outlines run through the first pixels *outside* a nodule, in columns and rows of the CT counted from 0, at the
z of their slice in mm, which is DICOM's. :mod:`medseg.cases.lidc_files` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from medseg.errors import InputError

RATINGS = (
    "subtlety",
    "internalStructure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)
"""What readers rated, as the XML files call it: 1 to 5, calcification to 6, internal structure to 4."""

READERS = 4
"""So many read every CT."""


@dataclass(frozen=True, eq=False)
class Outline:
    """On one slice: ``z_mm``, ``points`` int (N, 2) of column and row; ``is_hole`` where it bounds what the
    nodule does not hold."""

    z_mm: float
    points: np.ndarray
    is_hole: bool = False


@dataclass(frozen=True, eq=False)
class Reading:
    """What one reader drew of one nodule. ``reader``: "" where the source does not say who. ``ratings``: of
    RATINGS, empty for a nodule below 3 mm, which is one outline of one point, and for what the reader marked
    as no nodule (``is_nodule`` False)."""

    series_uid: str
    reader: str
    name: str
    outlines: tuple[Outline, ...]
    ratings: Mapping[str, int] = field(default_factory=dict)
    is_nodule: bool = True

    @property
    def is_outlined(self) -> bool:
        """Whether it is a nodule of 3 mm or more: those alone were outlined and rated."""
        return self.is_nodule and any(len(outline.points) > 1 for outline in self.outlines)

    @cached_property
    def _extent(self) -> tuple[np.ndarray, float]:
        solid = [outline for outline in self.outlines if not outline.is_hole] or list(self.outlines)
        middles = [(one.points.min(axis=0) + one.points.max(axis=0)) / 2 for one in solid]
        areas = np.array([max(_area(one.points), 1.0) for one in solid])
        flat = (areas[:, None] * np.array(middles)).sum(axis=0) / areas.sum()
        longest = max(_longest(one.points) for one in solid)
        z_mm = float((areas * [one.z_mm for one in solid]).sum() / areas.sum())
        return np.array([*flat, z_mm]), longest

    @property
    def centre(self) -> np.ndarray:
        """float64 (column, row, z mm): the mean over slices, weighted by their areas."""
        return self._extent[0]

    @property
    def longest_pixels(self) -> float:
        """The longest line between two points of one outline, without the pixel outside at each end."""
        return max(self._extent[1] - 1.0, 1.0)


def _area(points: np.ndarray) -> float:
    x, y = points.T.astype(float)
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def _longest(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[:, None] - points[None], axis=2).max())


@dataclass(frozen=True, eq=False)
class Nodule:
    """Readings of one nodule, at most one of each reader where readers are known."""

    readings: tuple[Reading, ...]

    @property
    def centre(self) -> np.ndarray:
        """float64 (column, row, z mm): the mean of the readers' centres."""
        return np.mean([reading.centre for reading in self.readings], axis=0)

    @property
    def longest_pixels(self) -> float:
        """The mean of the readers' longest lines."""
        return float(np.mean([reading.longest_pixels for reading in self.readings]))

    def rating(self, name: str) -> list[int]:
        """What each reader who rated it said."""
        return [reading.ratings[name] for reading in self.readings if name in reading.ratings]

    def vote_malignant(self) -> bool | None:
        """The readers' vote: malignant where more of them say 4 or 5 than say 1 or 2, benign the other way
        round; a 3 abstains; None for a tie. Suspicion, not histology."""
        said = self.rating("malignancy")
        votes = sum(rating > 3 for rating in said) - sum(rating < 3 for rating in said)
        return votes > 0 if votes else None

    def mask(self, shape: tuple[int, int, int], slices_mm: Sequence[float], share: float = 0.5) -> np.ndarray:
        """bool [slice, row, column] on a CT of ``shape`` whose slices lie at ``slices_mm``: voxels that at
        least ``share`` of the readers of this nodule hold for nodule. InputError for an outline between the
        slices or outside them."""
        mask = np.zeros(shape, dtype=bool)
        drawn = [reading_planes(reading, shape[1:], slices_mm) for reading in self.readings]
        for index in {index for planes in drawn for index in planes}:
            counts = np.sum([planes[index] for planes in drawn if index in planes], axis=0)
            mask[index] = counts >= share * len(drawn)
        return mask


def reading_planes(
    reading: Reading, shape: tuple[int, int], slices_mm: Sequence[float]
) -> dict[int, np.ndarray]:
    """{slice: bool [row, column]}: the pixels strictly inside a reader's outlines, without those of the
    outlines themselves. A nodule below 3 mm is its one pixel. InputError as :meth:`Nodule.mask`."""
    from PIL import Image, ImageDraw

    positions, found = np.asarray(slices_mm, dtype=float), {}
    step = float(np.median(np.abs(np.diff(positions)))) if len(positions) > 1 else 1.0
    for outline in sorted(reading.outlines, key=lambda one: one.is_hole):
        index = int(np.abs(positions - outline.z_mm).argmin())
        if abs(positions[index] - outline.z_mm) > step / 2:
            raise InputError(
                f"series {reading.series_uid}: an outline at z {outline.z_mm:g} mm, slices from "
                f"{positions.min():g} to {positions.max():g} mm; are these the images it was drawn on?"
            )
        points = [(int(column), int(row)) for column, row in outline.points]
        image = Image.new("1", shape[::-1])
        if len(points) == 1:
            image.putpixel(points[0], 1)
        else:
            # The line itself is outside: filled with it, then taken away.
            ImageDraw.Draw(image).polygon(points, fill=1, outline=1)
            ImageDraw.Draw(image).line([*points, points[0]], fill=0)
        plane = np.array(image)
        before = found.get(index, np.zeros(shape, dtype=bool))
        found[index] = before & ~plane if outline.is_hole else before | plane
    return found


def merge_readings(readings: Iterable[Reading], pixel_mm: float) -> list[Nodule]:
    """Readings of one series as nodules: two readings are of one nodule where their centres lie closer than
    the sum of their radii (LUNA16's rule, Setio et al., Med Image Anal 2017), those closest to each other
    first; no nodule has more than READERS of them, nor two of one known reader. ``pixel_mm``: of the CT's
    square pixels. InputError for several series."""
    readings = list(readings)
    if len({reading.series_uid for reading in readings}) > 1:
        raise InputError("readings of several series; nodules are merged series by series.")
    groups = [[reading] for reading in readings]
    scale = np.array([pixel_mm, pixel_mm, 1.0])
    centres = [reading.centre * scale for reading in readings]
    radii = [reading.longest_pixels * pixel_mm / 2 for reading in readings]
    pairs = sorted(
        (float(np.linalg.norm(centres[a] - centres[b])), a, b) for a in range(len(readings)) for b in range(a)
    )
    where = list(range(len(readings)))
    for away, a, b in pairs:
        one, other = where[a], where[b]
        if one == other or away >= radii[a] + radii[b]:
            continue
        if len(groups[one]) + len(groups[other]) > READERS:
            continue
        names = [reading.reader for reading in (*groups[one], *groups[other]) if reading.reader]
        if len(names) > len(set(names)):
            continue
        groups[one] += groups[other]
        groups[other] = []
        where = [one if place == other else place for place in where]
    return [Nodule(tuple(group)) for group in groups if group]


def agreement(nodules: Iterable[Nodule]) -> dict[int, int]:
    """{n: nodules that n readers marked}, from 1 to READERS."""
    counts = dict.fromkeys(range(1, READERS + 1), 0)
    for nodule in nodules:
        counts[len(nodule.readings)] += 1
    return counts
