"""The contours of one ROI as a mask on a stack of slices, and what was odd about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from medseg.dicom.rtstruct.encode import Contour
from medseg.geometry import Geometry
from medseg.shapes.scanline import cover

SINGLE_SLICE_TOLERANCE_MM = 0.5
"""How far a contour may lie from the only slice of a series, whose height nobody knows."""

SAME_PLANE_MM = 0.05
"""Contours closer together than this, along the normal, lie in one plane."""

MOST_CHECKED = 500
"""Contours of one slice that are compared with each other; a plane of a thousand specks would take
seconds."""


def roi_mask(
    contours: Sequence[Contour], geometry: Geometry, slice_of_image: Mapping[str, int]
) -> tuple[np.ndarray, list[str]]:
    """(bool mask [slice, row, column], a sentence for everything odd) of one ROI; no contours give an empty
    mask.

    Contours lie where their coordinates say, on the slice nearer than half the way to its neighbour;
    ``slice_of_image`` ({SOP Instance UID: slice index}, empty where unknown) is only compared. All areas of a
    plane are combined by exclusive or, at voxel centres. Nothing is interpolated between slices.
    """
    mask = np.zeros(geometry.shape, dtype=bool)
    areas = [contour for contour in contours if contour.bounds_an_area]
    if not areas:
        return mask, ["it is empty."]
    said: Counter[str] = Counter()
    said["points or open lines, left out"] = len(contours) - len(areas)
    loops = [(contour, open_loop(contour.points_lps_mm)) for contour in areas]
    solid = [(contour, points) for contour, points in loops if not _is_degenerate(points)]
    said["contours of fewer than 3 points, left out"] = len(loops) - len(solid)
    by_slice = _by_slice(solid, geometry, said)
    for index, found in by_slice.items():
        said["contours that name an image other than the one they lie on"] += sum(
            _names_another_slice(contour, index, slice_of_image) for contour, _, _ in found
        )
        found = _nearest_plane(found, float(geometry.slice_positions_mm[index]), said)
        kept = without_repeats([(contour, points) for contour, points, _ in found], said)
        _draw([geometry.rows_columns(index, points) for points in kept], mask[index], said)
    said["slices inside it without a contour"] = _gaps(by_slice)
    sentences = [f"{count} {what}." for what, count in said.items() if count]
    if not by_slice:
        sentences.append("none of its contours lies on the images, so its mask is empty.")
    elif not mask.any():
        sentences.append(
            "no voxel centre lies inside it; it is smaller than a voxel, or its contours cancel."
        )
    return mask, sentences


def open_loop(points: np.ndarray) -> np.ndarray:
    """Points (n, 3) without a last one that repeats the first, as XiO writes them."""
    return points[:-1] if len(points) > 1 and np.abs(points[0] - points[-1]).max() < 1e-4 else points


def without_repeats(found: Sequence[tuple[Contour, np.ndarray]], said: Counter[str]) -> list[np.ndarray]:
    """Loops of one plane, each stored once; of type CLOSEDPLANAR_XOR a repeat is kept, because it means to
    cancel."""
    if len(found) == 1:
        return [found[0][1]]
    kept, seen = [], set()
    for contour, points in found:
        rounded = np.rint(points * 1000).astype(np.int64)
        key = rounded[np.lexsort(rounded.T)].tobytes()
        if key in seen and contour.geometric_type == "CLOSEDPLANAR_XOR":
            said["contours that cancel an equal one, as CLOSEDPLANAR_XOR means"] += 1
        elif key in seen:
            said["contours stored twice, used once"] += 1
            continue
        seen.add(key)
        kept.append(points)
    return kept


def _is_degenerate(points: np.ndarray) -> bool:
    return len(points) < 8 and len({tuple(point) for point in points.tolist()}) < 3


def _by_slice(solid: list, geometry: Geometry, said: Counter[str]) -> dict[int, list]:
    """{slice index: [(contour, points, height along the normal in mm), ...]} of the contours that lie on a
    slice.

    That is nearer than half the way to its neighbour on that side; beyond an end slice the half way to its
    only neighbour counts.
    """
    by_slice: dict[int, list] = {}
    if not solid:
        return by_slice
    counts = np.array([len(points) for _, points in solid])
    starts = np.cumsum(counts) - counts
    heights_mm = np.concatenate([points for _, points in solid]) @ geometry.normal_lps
    lowest_mm, highest_mm = np.minimum.reduceat(heights_mm, starts), np.maximum.reduceat(heights_mm, starts)
    mean_mm = np.add.reduceat(heights_mm, starts) / counts
    positions_mm = geometry.slice_positions_mm
    indices = np.abs(positions_mm - mean_mm[:, None]).argmin(axis=1)
    offset_mm = mean_mm - positions_mm[indices]
    tolerance_mm = np.full(len(solid), SINGLE_SLICE_TOLERANCE_MM)
    if len(positions_mm) > 1:
        gaps_mm = np.diff(positions_mm)
        towards_next = offset_mm * gaps_mm[0] > 0
        gap_number = np.clip(np.where(towards_next, indices, indices - 1), 0, len(gaps_mm) - 1)
        tolerance_mm = 0.499 * np.abs(gaps_mm[gap_number])
    flat = highest_mm - lowest_mm < tolerance_mm
    near = np.abs(offset_mm) < tolerance_mm
    said["contours that lie in no plane of the slices, left out"] = int((~flat).sum())
    said["contours on no slice of the images, left out"] = int((flat & ~near).sum())
    for number in np.flatnonzero(flat & near):
        row = (*solid[number], float(mean_mm[number]))
        by_slice.setdefault(int(indices[number]), []).append(row)
    return by_slice


def _names_another_slice(contour: Contour, index: int, slice_of_image: Mapping[str, int]) -> bool:
    return any(slice_of_image.get(uid, index) != index for uid in contour.image_uids)


def _nearest_plane(found: list, position_mm: float, said: Counter[str]) -> list:
    """Contours of one slice that lie in one plane; planes closer together than the slices must not cancel
    each other."""
    nearest_mm = min((height for _, _, height in found), key=lambda height: abs(height - position_mm))
    kept = [row for row in found if abs(row[2] - nearest_mm) < SAME_PLANE_MM]
    said["contours between the slices, beside a nearer plane, left out"] += len(found) - len(kept)
    return kept


def _draw(loops: list[np.ndarray], plane: np.ndarray, said: Counter[str]) -> None:
    """Draw the loops (row, column) of one slice into its mask, and say where they were not as one expects."""
    found = cover(loops, plane.shape)
    inside = found.inside
    plane[found.window] = inside
    if not inside.any():
        said["slices on which it encloses no voxel centre"] += 1
    edge = np.array(plane.shape) - 0.49
    said["contours that reach beyond the image, cut at its edge"] += sum(
        bool((loop.min(axis=0) < -0.51).any() or (loop.max(axis=0) > edge).any()) for loop in loops
    )
    if found.enclosed.size and (found.enclosed.max() > 1 or found.enclosed.min() < 0):
        if len(loops) > MOST_CHECKED:
            said[f"slices of more than {MOST_CHECKED} contours, not checked for overlaps"] += 1
        else:
            _say_overlaps(loops, plane.shape, said)


def _say_overlaps(loops: list[np.ndarray], shape: tuple[int, int], said: Counter[str]) -> None:
    """Count loops that lap over themselves, and slices on which one lies partly inside another, as voxels see
    them.

    From the largest to the smallest, every loop marks its voxels as its own: one that lies wholly inside or
    wholly outside all larger ones finds a single owner there.
    """
    covers = [cover([loop], shape) for loop in loops]
    crossing = sum(
        bool(one.enclosed.size) and (one.enclosed.max() > 1 or one.enclosed.min() < 0) for one in covers
    )
    said["contours that cross themselves, read by the even-odd rule"] += int(crossing)
    owner = np.zeros(shape, dtype=np.int32)
    overlapping = False
    for number, one in enumerate(sorted(covers, key=lambda one: -np.count_nonzero(one.inside)), start=1):
        inside, window = one.inside, owner[one.window]
        owners = window[inside]
        overlapping = overlapping or bool(owners.size and owners.min() != owners.max())
        window[inside] = number
    said[
        "slices on which contours overlap without one lying in the other; the overlap counts as outside"
    ] += overlapping


def _gaps(by_slice: Mapping[int, list]) -> int:
    return max(by_slice) - min(by_slice) + 1 - len(by_slice) if by_slice else 0
