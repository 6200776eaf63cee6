"""Volumes of a structure set from its contours alone: area times the distance of the planes, no images
needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from medseg.dicom.rtstruct.encode import Contour
from medseg.dicom.rtstruct.masks import SAME_PLANE_MM, open_loop, without_repeats
from medseg.dicom.rtstruct.structure_set import StructureSet
from medseg.shapes.scanline import even_odd_area

LEAST_AREA_MM2 = 1e-6


def structure_set_volumes(structure_set: StructureSet) -> tuple[float | None, ...]:
    """Volume in cc of each ROI, in the order of ``structure_set.rois``: even-odd area of every plane times
    its height.

    Where most neighbouring planes of an ROI are one gap apart and the others whole multiples of it, every
    plane stands for that gap, so a missing slice adds nothing; else each stands for half the gap to either
    neighbour, an end plane for its inner half gap twice. A single plane takes the commonest gap of the other
    ROIs. Points, open lines and empty ROIs have 0.0; None where no gap is known or contours lie in no common
    direction of planes. Contours stored twice count once, as in read_rtstruct.
    """
    planes = [
        _planes([contour for contour in roi.contours if contour.bounds_an_area]) for roi in structure_set.rois
    ]
    gaps_mm = Counter(
        round(_plane_heights_mm(heights)[0], 3) for heights, _ in filter(None, planes) if len(heights) > 1
    )
    usual_mm = gaps_mm.most_common(1)[0][0] if gaps_mm else None
    return tuple(_volume_cc(found, usual_mm) for found in planes)


def _planes(contours: Sequence[Contour]) -> tuple[np.ndarray, np.ndarray] | None:
    """(positions along the normal in mm, ascending; even-odd areas in mm2), or None for contours that are not
    parallel."""
    solid = [(contour, open_loop(contour.points_lps_mm)) for contour in contours]
    solid = [(contour, points) for contour, points in solid if len(points) >= 3]
    normal = _normal([points for _, points in solid])
    if normal is None:
        return np.zeros(0), np.zeros(0)
    heights = [points @ normal for _, points in solid]
    if max(np.ptp(height) for height in heights) > 0.5:
        return None
    across = np.linalg.svd(normal[None])[2][1:]
    order = np.argsort([height.mean() for height in heights])
    means = np.array([heights[number].mean() for number in order])
    starts = np.flatnonzero(np.diff(means, prepend=-np.inf) > SAME_PLANE_MM)
    areas = []
    for plane in np.split(order, starts[1:]):
        loops_mm = [solid[number][1] @ across.T for number in plane]
        kept = without_repeats([solid[number][0] for number in plane], loops_mm, Counter())
        areas.append(even_odd_area([loops_mm[number] for number in kept]))
    return means[starts], np.array(areas)


def _normal(loops: Sequence[np.ndarray]) -> np.ndarray | None:
    """Unit normal (3,) of the loop that bounds the largest area; None where none bounds any."""
    vectors = [
        np.cross(loop - loop[0], np.roll(loop, -1, axis=0) - loop[0]).sum(axis=0) / 2 for loop in loops
    ]
    largest = max(vectors, key=np.linalg.norm, default=np.zeros(3))
    length = float(np.linalg.norm(largest))
    return largest / length if length > LEAST_AREA_MM2 else None


def _plane_heights_mm(positions_mm: np.ndarray) -> np.ndarray:
    """The height that each of two or more planes stands for."""
    gaps_mm = np.diff(positions_mm)
    multiples = gaps_mm / gaps_mm.min()
    if np.abs(multiples - np.rint(multiples)).max() < 0.05 and np.median(multiples) < 1.5:
        single_mm = float(np.median(gaps_mm / np.rint(multiples)))
        return np.full(len(positions_mm), single_mm)
    padded = np.concatenate([gaps_mm[:1], gaps_mm, gaps_mm[-1:]])
    return (padded[:-1] + padded[1:]) / 2


def _volume_cc(found: tuple[np.ndarray, np.ndarray] | None, usual_gap_mm: float | None) -> float | None:
    if found is None:
        return None
    positions_mm, areas_mm2 = found
    if not len(positions_mm):
        return 0.0
    if len(positions_mm) == 1:
        return None if usual_gap_mm is None else float(areas_mm2[0] * usual_gap_mm / 1000)
    return float(areas_mm2 @ _plane_heights_mm(positions_mm) / 1000)
