"""Whether the patient's outline on PET or MR lies where it lies on the CT.

A registration that is off by some millimetres moves contours without a word: the network follows the uptake
to where it lies. The skin is the one border that CT, PET and MR share, so its outlines are laid over each
other, slice by slice. Along the body a limb hardly changes, so only shifts within the slices are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft, ndimage

from medseg.cases.multimodal import Companion, sampled_on
from medseg.cases.volume import Case
from medseg.geometry import Geometry
from medseg.shapes.body import TISSUE_HU

PIXEL_MM = 3.0
MOST_SLICES = 48
REACH = 8
"""Pixels by which an outline may lie away along either axis: 24 mm."""

NEAR_MM = 15.0
"""Round a point over which its usual level is taken."""

MOST_LEVELS = 2.0
"""What is brighter than so many medians of the patient counts as this bright, so that a hot tumour near the
skin is no outline."""

LEAST_LIKENESS = 0.4
"""Outlines less alike than this in their best place (1: the same) tell no shift."""

MOST_MM = 6.0
"""Outlines further apart than this are worth a warning: see docs/reference/benchmark_multimodal_gtv.md."""


@dataclass(frozen=True)
class OutlineShift:
    """How far, in LPS mm, the outline on another image lies from that on the CT, and how alike the two are in
    that place: 1 is the same, 0 unlike."""

    lps_mm: tuple[float, float, float]
    likeness: float

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(self.lps_mm))

    @property
    def words(self) -> str:
        """Its parts above 1 mm: "9 mm to left and 3 mm to posterior", of the patient."""
        ways = (("left", "right"), ("posterior", "anterior"), ("the head", "the feet"))
        parts = [
            f"{abs(mm):.0f} mm to {ways[axis][mm < 0]}" for axis, mm in enumerate(self.lps_mm) if abs(mm) >= 1
        ]
        return " and ".join(parts) or "0 mm"


@lru_cache(maxsize=2)
def outline_shift(ct: Case, other: Companion) -> OutlineShift | None:
    """How far within the CT's slices the outline on ``other`` lies from that on ``ct``; None where the two
    show too little of one outline to tell.

    Outlines are gradients of the patient's mask (CT above TISSUE_HU, without what is thinner than 9 mm, such
    as a couch) and of the other image divided by its own level nearby: half of that level is where the
    patient ends, however blurred the image. Their correlation over all slices, of both parts of the gradient,
    is highest at the shift, which a parabola refines to less than a pixel.
    """
    grid = _coarse(ct.geometry)
    own = Geometry(ct.geometry.shape, ct.geometry.origins_lps_mm, *_steps(ct.geometry))
    body = sampled_on(ct.volume, own, _without_frame(grid))[0] > TISSUE_HU
    padded = np.pad(body, ((0, 0), (2, 2), (2, 2)), mode="edge")
    body = ndimage.binary_opening(padded, np.ones((1, 3, 3), bool))[:, 2:-2, 2:-2]
    values, covered = other.sampled_on(grid)
    seen = ndimage.binary_erosion(covered, np.ones((1, 3, 3), bool), border_value=1)
    one = _outline(body.astype(np.float32), seen)
    two = _outline(_share_of_level(values, body & covered), seen)
    strength = float(np.sqrt((one**2).sum() * (two**2).sum()))
    if strength == 0:
        return None
    likeness = _correlation(one, two) / strength
    pixels, best = _peak(likeness)
    if best < LEAST_LIKENESS:
        return None
    row_step, column_step = (step / np.linalg.norm(step) * PIXEL_MM for step in _steps(ct.geometry))
    return OutlineShift(tuple((pixels[0] * row_step + pixels[1] * column_step).tolist()), best)


def _steps(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    return geometry.row_step_lps_mm, geometry.column_step_lps_mm


def _without_frame(grid: Geometry) -> Geometry:
    return Geometry(grid.shape, grid.origins_lps_mm, *_steps(grid))


def _coarse(geometry: Geometry) -> Geometry:
    """At most MOST_SLICES of the slices, evenly chosen, in pixels of PIXEL_MM."""
    count = min(geometry.shape[0], MOST_SLICES)
    chosen = np.unique(np.linspace(0, geometry.shape[0] - 1, count).round().astype(int))
    factors = PIXEL_MM / np.array(geometry.pixel_spacing_mm)
    rows, columns = np.maximum((np.array(geometry.shape[1:]) / factors).astype(int), 2)
    row_step, column_step = (step * factor for step, factor in zip(_steps(geometry), factors, strict=True))
    origins = geometry.origins_lps_mm[chosen]
    return Geometry(
        (len(chosen), rows, columns), origins, row_step, column_step, geometry.frame_of_reference_uid
    )


def _share_of_level(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """``values`` as a share, 0 to 1, of their mean inside the patient within about NEAR_MM."""
    if not inside.any():
        return np.zeros_like(values)
    highest = MOST_LEVELS * float(np.median(values[inside]))
    sigma = (0, NEAR_MM / PIXEL_MM, NEAR_MM / PIXEL_MM)
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma, mode="nearest")
    total = ndimage.gaussian_filter(np.where(inside, np.minimum(values, highest), 0), sigma, mode="nearest")
    level = total / np.maximum(weight, 1e-3)
    return np.clip(values / np.maximum(level, 1e-3), 0, 1).astype(np.float32)


def _outline(soft: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """float32 (2, slices, rows, columns): the gradient within the slices, 0 where not ``seen``."""
    smooth = ndimage.gaussian_filter(soft, (0, 1, 1), mode="nearest")
    return np.stack([np.where(seen, np.gradient(smooth, axis=axis), 0) for axis in (1, 2)])


def _correlation(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """float (2 REACH + 1, 2 REACH + 1): the sum of products with ``two`` moved back by -REACH to REACH
    pixels."""
    shape = [n + 2 * REACH for n in one.shape[2:]]
    spectra = [fft.rfft2(image, shape) for image in (one, two)]
    whole = fft.irfft2((spectra[0].conj() * spectra[1]).sum((0, 1)), shape)
    return np.roll(whole, (REACH, REACH), (0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]


def _peak(likeness: np.ndarray) -> tuple[np.ndarray, float]:
    """(shift in pixels along rows and columns, likeness there)"""
    best = np.array(np.unravel_index(likeness.argmax(), likeness.shape))
    shift = best - float(REACH)
    for axis in range(2):
        if 0 < best[axis] < 2 * REACH:
            step = np.eye(2, dtype=int)[axis]
            before, here, after = (float(likeness[tuple(best + n * step)]) for n in (-1, 0, 1))
            shift[axis] += (before - after) / 2 / (before - 2 * here + after)
    return shift, float(likeness.max())
