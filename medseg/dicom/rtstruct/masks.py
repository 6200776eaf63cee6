"""The contours of one ROI as a mask on a stack of slices, and what was odd about them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from medseg.dicom.rtstruct.encode import Contour
from medseg.dicom.rtstruct.placement import placement
from medseg.geometry import Geometry
from medseg.shapes.repeats import first_copies
from medseg.shapes.scanline import covers

SAME_PLANE_MM = 0.05
"""Contours closer together than this, along the normal, lie in one plane."""

OFF_PLANE_SHARE = 0.1
"""Contours further off their slice's plane than this share of the slices' distance are worth a word."""

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
    plane are combined by exclusive or, at voxel centres; an outline stored more than once counts once.
    Nothing is interpolated between slices.
    """
    mask = np.zeros(geometry.shape, dtype=bool)
    areas = [contour for contour in contours if contour.bounds_an_area]
    if not areas:
        return mask, ["it is empty."]
    said: Counter[str] = Counter()
    said["points or open lines, left out"] = len(contours) - len(areas)
    solid = solid_loops(areas)
    said["contours of fewer than 3 points, left out"] = len(areas) - len(solid)
    by_slice = _by_slice(solid, geometry, said)
    loops_by_slice: dict[int, list[np.ndarray]] = {}
    for index, found in by_slice.items():
        said["contours that name an image other than the one they lie on"] += sum(
            _names_another_slice(contour, index, slice_of_image) for contour, _, _ in found
        )
        found = _nearest_plane(found, float(geometry.slice_positions_mm[index]), said)
        in_plane_mm = [loop * geometry.pixel_spacing_mm for _, loop, _ in found]
        kept = without_repeats([contour for contour, _, _ in found], in_plane_mm, said)
        loops_by_slice[index] = [found[number][1] for number in kept]
    filled = _draw(loops_by_slice, mask, said)
    said[_gaps_said(by_slice, geometry)] = _gaps(by_slice)
    empty_between = (
        sum(min(filled) < index < max(filled) for index in by_slice.keys() - filled) if filled else 0
    )
    said["slices between filled ones stay empty although contours lie on them"] = empty_between
    sentences = [f"{count} {what}." for what, count in said.items() if count]
    if not by_slice:
        sentences.append("none of its contours lies on the images, so its mask is empty.")
    elif not filled:
        sentences.append(
            "no voxel centre lies inside it; it is smaller than a voxel, or its contours cancel."
        )
    return mask, sentences


def solid_loops(contours: Sequence[Contour]) -> list[tuple[Contour, np.ndarray]]:
    """Contours with their open loops (n, 3), without those that have fewer than 3 different points."""
    loops = [(contour, open_loop(contour.points_lps_mm)) for contour in contours]
    return [(contour, points) for contour, points in loops if not _is_degenerate(points)]


def open_loop(points: np.ndarray) -> np.ndarray:
    """Points (n, 3) without a last one that repeats the first, as XiO writes them."""
    if len(points) < 2:
        return points
    apart_mm = (abs(one - other) for one, other in zip(points[0].tolist(), points[-1].tolist(), strict=True))
    return points[:-1] if all(mm < 1e-4 for mm in apart_mm) else points


def without_repeats(
    contours: Sequence[Contour], loops_mm: Sequence[np.ndarray], said: Counter[str]
) -> list[int]:
    """Numbers of the contours of one plane, each outline once; of type CLOSEDPLANAR_XOR a repeat is kept,
    because it means to cancel.

    ``loops_mm``: their points (n, 2) in the plane, see :func:`first_copies` for what is the same outline.
    """
    kept = []
    for number, owner in enumerate(first_copies(loops_mm)):
        if owner != number and contours[number].geometric_type != "CLOSEDPLANAR_XOR":
            said["contours stored twice, used once"] += 1
            continue
        if owner != number:
            said["contours that cancel an equal one, as CLOSEDPLANAR_XOR means"] += 1
        kept.append(number)
    return kept


def _is_degenerate(points: np.ndarray) -> bool:
    return len(points) < 8 and len({tuple(point) for point in points.tolist()}) < 3


def _by_slice(solid: list, geometry: Geometry, said: Counter[str]) -> dict[int, list]:
    """{slice index: [(contour, loop of (row, column), height along the normal in mm), ...]} of the contours
    that lie on a slice.

    That is nearer than half the way to its neighbour on that side, and not beside the image.
    """
    by_slice: dict[int, list] = {}
    if not solid:
        return by_slice
    found = placement([points for _, points in solid], geometry)
    flat, near, beside = found.is_flat, found.is_near, found.beside_mm > 0
    said["contours that lie in no plane of the slices, left out"] = int((~flat).sum())
    said["contours on no slice of the images, left out"] = int((flat & ~near).sum())
    beside &= flat & near
    if beside.any():
        nearest_mm, farthest_mm = found.beside_mm[beside].min(), found.beside_mm[beside].max()
        said[f"contours {nearest_mm:.1f} to {farthest_mm:.1f} mm beside the image, left out"] = int(
            beside.sum()
        )
    drawn = flat & near & ~beside
    moved = drawn & (found.off_plane_mm > OFF_PLANE_SHARE * 2 * found.tolerances_mm)
    if moved.any():
        most_mm = found.off_plane_mm[moved].max()
        said[f"contours up to {most_mm:.2f} mm off the plane of their slice, drawn on it"] = int(moved.sum())
    if not drawn.any():
        return by_slice
    kept = [solid[number] for number in np.flatnonzero(drawn)]
    indices, counts = found.indices[drawn], [len(points) for _, points in kept]
    loops = geometry.rows_columns(np.repeat(indices, counts), np.concatenate([points for _, points in kept]))
    ends = np.cumsum(counts)
    for (contour, _), index, height_mm, start, end in zip(
        kept,
        indices.tolist(),
        found.heights_mm[drawn].tolist(),
        (ends - counts).tolist(),
        ends.tolist(),
        strict=True,
    ):
        by_slice.setdefault(index, []).append((contour, loops[start:end], height_mm))
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


def _draw(loops_by_slice: Mapping[int, list[np.ndarray]], mask: np.ndarray, said: Counter[str]) -> list[int]:
    """Draw the loops (row, column) of each slice into the mask, and say where they were not as one expects.

    Returns the indices of the slices on which a voxel was filled.
    """
    filled, twice = [], []
    planes, shape = list(loops_by_slice.values()), (mask.shape[1], mask.shape[2])
    said["slices on which it encloses no voxel centre"] = 0
    said["contours that reach beyond the image, cut at its edge"] = _beyond(planes, shape)
    for index, loops, found in zip(loops_by_slice, planes, covers(planes, shape), strict=True):
        mask[index][found.window] = found.inside
        if found.most == 1 or found.inside.any():
            filled.append(index)
        else:
            said["slices on which it encloses no voxel centre"] += 1
        if found.most > 1 or found.least < 0:
            twice.append((loops, found.window))
            if 2 * np.count_nonzero(found.inside) < np.count_nonzero(found.enclosed):
                said[
                    "slices on which holes take more than half of what its contours enclose (an outline "
                    "stored twice and not quite alike?)"
                ] += 1
    _say_overlaps([plane for plane in twice if len(plane[0]) <= MOST_CHECKED], shape, said)
    said[f"slices of more than {MOST_CHECKED} contours, not checked for overlaps"] = sum(
        len(loops) > MOST_CHECKED for loops, _ in twice
    )
    return filled


def _beyond(planes: list[list[np.ndarray]], shape: tuple[int, int]) -> int:
    """How many loops reach more than half a pixel beyond the outermost voxel centres."""
    loops = [loop for own in planes for loop in own]
    if not loops:
        return 0
    counts = np.array([len(loop) for loop in loops])
    points, starts = np.concatenate(loops), np.cumsum(counts) - counts
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    return int(((low < -0.51) | (high > np.array(shape) - 0.49)).any(axis=1).sum())


def _say_overlaps(
    planes: list[tuple[list[np.ndarray], tuple[slice, slice]]], shape: tuple[int, int], said: Counter[str]
) -> None:
    """Count loops that lap over themselves, and slices on which one lies partly inside another, as voxels see
    them.

    ``planes``: (loops, window around them) of each slice. From the largest to the smallest, every loop marks
    its voxels as its own: one that lies wholly inside or wholly outside all larger ones finds a single owner
    there.
    """
    singles = covers([[loop] for loops, _ in planes for loop in loops], shape)
    owner = np.zeros(shape, dtype=np.int32)
    for loops, window in planes:
        own = list(itertools.islice(singles, len(loops)))
        said["contours that cross themselves, read by the even-odd rule"] += sum(
            one.most > 1 or one.least < 0 for one in own
        )
        owner[window] = 0
        overlapping = False
        own.sort(key=lambda one: -np.count_nonzero(one.inside))
        for number, one in enumerate(own, start=1):
            part = owner[one.window]
            owners = part[one.inside]
            overlapping = overlapping or bool(owners.size and owners.min() != owners.max())
            part[one.inside] = number
        said[
            "slices on which contours overlap without one lying in the other; the overlap counts as outside"
        ] += overlapping


def _gaps(by_slice: Mapping[int, list]) -> int:
    return max(by_slice) - min(by_slice) + 1 - len(by_slice) if by_slice else 0


def _gaps_said(by_slice: Mapping[int, list], geometry: Geometry) -> str:
    """What is said of slices inside an ROI without a contour, and how far apart its contours are where most
    have none."""
    indices = sorted(by_slice)
    steps = np.diff(indices)
    if len(steps) < 2 or np.median(steps) < 2 or np.mean(steps == np.median(steps)) < 0.6:
        return "slices inside it without a contour"
    contours_mm = float(np.median(np.abs(np.diff(geometry.slice_positions_mm[indices]))))
    slices_mm = float(np.median(np.abs(np.diff(geometry.slice_positions_mm))))
    return (
        f"slices inside it without a contour: its contours are {contours_mm:.2f} mm apart on slices of "
        f"{slices_mm:.2f} mm, and nothing is drawn between them, so its volume is too small"
    )
