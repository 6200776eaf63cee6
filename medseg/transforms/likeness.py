"""A few numbers that say what an image looks like, for a bundle's gate to compare with the images that its
network learned from.

Each look in :data:`LOOKS` answers with rows of numbers (K, F): one row for each place of the image that it
could be about, K = 0 where the image has none. The names of the numbers stand beside it, so that a refusal
can say which of them is unlike. Numbers that have a scale (areas, shares) are logarithms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from medseg.cases.photograph import field_of_view
from medseg.shapes.body import body_mask

COARSE_MM = 4.0
"""Grid on which a CT is looked at: that of the coarsest training images, so that bone counts alike on all."""

TISSUE_HU, BONE_HU = -300.0, 200.0
FAT_HU, SOFT_HU, LUNG_HU = (-150.0, -30.0), (-30.0, 150.0), (-950.0, -500.0)
LEVELS_MM = (-60, -30, 0, 30, 60)
"""Heights at which the cross-section of the body is measured, from the narrowest place of the neck."""

LEVEL_MM = 12.0
SMALLEST_SHARE = 0.003
FILM_PIXELS = 32
FUNDUS_PIXELS = 128
CORNER_PIXELS, BORDER_PIXELS = 4, 4


@dataclass(frozen=True)
class Look:
    """``names``: F names. ``numbers``: rows (K, F) of a coarse CT and its voxel size (:func:`coarse_ct`),
    of a radiograph (row, column) and the mean of the training films (:func:`small_film`)."""

    names: tuple[str, ...]
    numbers: Callable[..., np.ndarray]


def coarse_ct(image_hu: torch.Tensor, affine_ras: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """A CT, axes as its affine says, as means of blocks of about 4 mm with axes to right, anterior and
    superior, and the size of a block in mm. A rest at the far ends is left out."""
    voxel_mm = np.linalg.norm(affine_ras[:3, :3], axis=0)
    steps = [min(max(round(COARSE_MM / mm), 1), n) for mm, n in zip(voxel_mm, image_hu.shape, strict=True)]
    means = torch.nn.functional.avg_pool3d(image_hu[None].float(), steps)[0].numpy()
    order, signs = axes_to_ras(affine_ras)
    means = np.flip(means.transpose(order), [axis for axis, sign in enumerate(signs) if sign < 0])
    return np.ascontiguousarray(means), tuple(float(voxel_mm[axis] * steps[axis]) for axis in order)


def axes_to_ras(affine_ras: np.ndarray) -> tuple[list[int], list[int]]:
    """Which axis of an array runs closest to right, anterior and superior, and 1 or -1: forwards or
    backwards."""
    from nibabel.orientations import io_orientation

    axes = io_orientation(affine_ras)
    order = [int(np.flatnonzero(axes[:, 0] == direction)[0]) for direction in range(3)]
    return order, [int(axes[axis, 1]) for axis in order]


def _neck(coarse: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    """One row for each height of a CT that has 66 mm of image below and above, as if it were the neck."""
    body = body_mask(coarse, mm)
    kinds = (body, body & (coarse > BONE_HU), body & _between(coarse, FAT_HU), body & (coarse < TISSUE_HU))
    voxels, bone, fat, air = (kind.sum((0, 1)).astype(float) for kind in kinds)
    area_cm2 = voxels * mm[0] * mm[1] / 100
    width, depth = body.any(1).sum(0) * mm[0], body.any(0).sum(0) * mm[1]
    reach = round(LEVEL_MM / 2 / mm[2])
    offsets = [round(level / mm[2]) for level in LEVELS_MM]
    rows = []
    for middle in range(reach - offsets[0], body.shape[2] - offsets[-1] - reach):
        levels = [slice(middle + offset - reach, middle + offset + reach + 1) for offset in offsets]
        areas = np.array([area_cm2[level].mean() for level in levels])
        if areas.min() <= 0:
            continue
        ratios = [width[level].mean() / depth[level].mean() for level in levels[::2]]
        low, high = slice(levels[0].start, levels[2].start), slice(levels[2].start, levels[4].stop)
        whole = slice(low.start, high.stop)
        shares = [
            part[where].sum() / voxels[where].sum()
            for part, where in ((bone, low), (bone, high), (fat, whole), (air, whole))
        ]
        rows.append(np.log([*areas, *ratios, *np.maximum(shares, SMALLEST_SHARE)]))
    return np.array(rows).reshape(-1, len(NECK.names))


def _tissue(coarse: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    """One row of a CT of any part of the body, however it lies; none of an image without soft tissue."""
    tissue = coarse[coarse > TISSUE_HU]
    soft = tissue[_between(tissue, SOFT_HU)]
    if not soft.size:
        return np.empty((0, len(TISSUE.names)))
    # Skin that is blurred by the grid is as dark as lung but one voxel thin: cubes of three voxels count.
    lung = ndimage.binary_opening(_between(coarse, LUNG_HU), np.ones((3, 3, 3))).sum()
    shares = [
        lung / (lung + tissue.size),
        np.count_nonzero(_between(tissue, FAT_HU)) / tissue.size,
        np.count_nonzero(tissue > BONE_HU) / tissue.size,
    ]
    spread = np.clip(tissue, -300, 300).std()
    return np.array([[*np.log(np.maximum(shares, SMALLEST_SHARE)), soft.mean(), soft.std(), spread]])


def _between(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (values > limits[0]) & (values < limits[1])


def small_film(pixels: torch.Tensor) -> np.ndarray:
    """A radiograph (row, column) as 32 x 32 means of its grey values, 0.5 and 99.5 percent of them at 0 and
    1."""
    values = pixels.float()
    low, high = np.percentile(values.numpy(), [0.5, 99.5])
    grey = ((values - low) / max(high - low, 1e-6)).clip(0, 1)
    return torch.nn.functional.adaptive_avg_pool2d(grey[None], FILM_PIXELS)[0].numpy().astype(float)


def _film(pixels: torch.Tensor, template: np.ndarray) -> np.ndarray:
    """One row of a radiograph."""
    film = small_film(pixels)
    rows, columns = pixels.shape
    c = CORNER_PIXELS
    corners = [film[:c, :c], film[:c, -c:], film[-c:, :c], film[-c:, -c:]]
    middle = film[8:24, 12:20].mean()
    sides = (film[8:24, 4:10].mean() + film[8:24, 22:28].mean()) / 2
    fine = film - ndimage.gaussian_filter(film, 1)
    numbers = [
        np.arctanh(best_likeness(film, template)),
        np.arctanh(best_likeness(details(film), details(template))),
        np.arctanh(min(_correlation(film, film[:, ::-1]), 0.999)),
        np.log(fine.std() / (film.std() + 1e-6) + 1e-3),
        np.log(columns / rows),
        film.mean(),
        film.std(),
        np.mean(corners),
        middle - sides,
    ]
    return np.array([numbers])


def details(film: np.ndarray) -> np.ndarray:
    """A small film without its slow changes of grey."""
    return film - ndimage.gaussian_filter(film, 5)


def best_likeness(film: np.ndarray, template: np.ndarray) -> float:
    """The best correlation with the template, moved by up to four pixels each way."""
    b = BORDER_PIXELS
    inner = template[b:-b, b:-b]
    moved = (
        film[b + down : FILM_PIXELS - b + down, b + right : FILM_PIXELS - b + right]
        for down in range(-b, b + 1)
        for right in range(-b, b + 1, 2)
    )
    return min(max(_correlation(part, inner) for part in moved), 0.999)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-9))


def _fundus(pixels: torch.Tensor, _beside: None) -> np.ndarray:
    """One row of a photograph, made of its field of view: its shape does not count, since cameras differ."""
    small = torch.nn.functional.adaptive_avg_pool2d(pixels.float()[None], FUNDUS_PIXELS)[0].numpy()
    seen = ndimage.binary_erosion(field_of_view(small.transpose(1, 2, 0)), iterations=3, border_value=1)
    seen = seen if seen.any() else np.ones(seen.shape, dtype=bool)
    red, green, blue = (plane[seen].astype(float) + 0.01 for plane in small)
    fine = (small[1] - ndimage.gaussian_filter(small[1], 2))[seen].astype(float)
    bright = np.mean(green > 1.6 * np.median(green))
    skew = np.mean((fine - fine.mean()) ** 3) / (fine.std() ** 3 + 1e-9)
    numbers = [
        np.log(red.mean() / green.mean()),
        np.log(green.mean() / blue.mean()),
        np.log(green.mean()),
        np.log(green.std() / green.mean() + 1e-3),
        np.log(fine.std() / (green.std() + 1e-3) + 1e-3),
        np.arctanh(np.clip(_correlation(red, green), -0.999, 0.999)),
        np.log(max(bright, SMALLEST_SHARE)),
        np.arcsinh(skew),
    ]
    return np.array([numbers])


NECK = Look(
    (
        *(f"area of the body {-mm} mm below the neck" for mm in LEVELS_MM[:2]),
        "area of the neck",
        *(f"area of the body {mm} mm above the neck" for mm in LEVELS_MM[3:]),
        "width over depth 60 mm below the neck",
        "width over depth of the neck",
        "width over depth 60 mm above the neck",
        "share of bone below the neck",
        "share of bone above the neck",
        "share of fat",
        "share of air in the body",
    ),
    _neck,
)
TISSUE = Look(
    (
        "share of lung or foam",
        "share of fat",
        "share of bone",
        "mean HU of soft tissue",
        "spread of HU in soft tissue",
        "spread of HU in all tissue",
    ),
    _tissue,
)
FILM = Look(
    (
        "likeness to the mean film",
        "likeness of details to the mean film",
        "likeness of left and right",
        "share of fine detail",
        "width over height",
        "mean grey",
        "spread of grey",
        "grey of the corners",
        "grey of the middle less that of the sides",
    ),
    _film,
)

FUNDUS = Look(
    (
        "red over green",
        "green over blue",
        "brightness",
        "contrast",
        "share of fine detail",
        "likeness of red and green",
        "share of bright spots",
        "fine detail brighter than its surroundings",
    ),
    _fundus,
)

LOOKS: dict[str, Look] = {"neck": NECK, "tissue": TISSUE, "film": FILM, "fundus": FUNDUS}
"""What a gate.json may ask for under ``look``. ``film`` needs its ``template``."""


def distances(rows: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Mahalanobis distance (K,) of every row (K, F) from a distribution. No rows, no distances."""
    off = rows - mean
    return np.sqrt(np.einsum("kf,fk->k", off, np.linalg.solve(covariance, off.T)))
