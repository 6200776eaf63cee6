"""The contours of one ROI as a mask on a stack of slices, and what was odd about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from medseg.dicom.rtstruct.encode import Contour
from medseg.dicom.rtstruct.placement import placement
from medseg.geometry import Geometry
from medseg.shapes.repeats import first_copies
from medseg.shapes.scanline import cover

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
    filled = []
    for index, found in by_slice.items():
        said["contours that name an image other than the one they lie on"] += sum(
            _names_another_slice(contour, index, slice_of_image) for contour, _, _ in found
        )
        found = _nearest_plane(found, float(geometry.slice_positions_mm[index]), said)
        loops = [geometry.rows_columns(index, points) for _, points, _ in found]
        in_plane_mm = [loop * geometry.pixel_spacing_mm for loop in loops]
        kept = without_repeats([contour for contour, _, _ in found], in_plane_mm, said)
        if _draw([loops[number] for number in kept], mask[index], said):
            filled.append(index)
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
    return points[:-1] if len(points) > 1 and np.abs(points[0] - points[-1]).max() < 1e-4 else points


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
    """{slice index: [(contour, points, height along the normal in mm), ...]} of the contours that lie on a
    slice.

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
    for number in np.flatnonzero(drawn):
        row = (*solid[number], float(found.heights_mm[number]))
        by_slice.setdefault(int(found.indices[number]), []).append(row)
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


def _draw(loops: list[np.ndarray], plane: np.ndarray, said: Counter[str]) -> bool:
    """Draw the loops (row, column) of one slice into its mask, and say where they were not as one expects.

    Returns whether a voxel was filled.
    """
    found = cover(loops, plane.shape)
    inside = found.inside
    plane[found.window] = inside
    is_filled = bool(inside.any())
    if not is_filled:
        said["slices on which it encloses no voxel centre"] += 1
    said["contours that reach beyond the image, cut at its edge"] += _beyond(loops, plane.shape)
    if found.enclosed.size and (found.enclosed.max() > 1 or found.enclosed.min() < 0):
        if 2 * np.count_nonzero(inside) < np.count_nonzero(found.enclosed):
            said[
                "slices on which holes take more than half of what its contours enclose (an outline stored "
                "twice and not quite alike?)"
            ] += 1
        if len(loops) > MOST_CHECKED:
            said[f"slices of more than {MOST_CHECKED} contours, not checked for overlaps"] += 1
        else:
            _say_overlaps(loops, plane.shape, said)
    return is_filled


def _beyond(loops: list[np.ndarray], shape: tuple[int, int]) -> int:
    """How many loops reach more than half a pixel beyond the outermost voxel centres."""

    def reaches(points: np.ndarray) -> bool:
        rows, columns = points[:, 0], points[:, 1]
        beyond = rows.max() > shape[0] - 0.49 or columns.max() > shape[1] - 0.49
        return bool(beyond or rows.min() < -0.51 or columns.min() < -0.51)

    return sum(map(reaches, loops))


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
