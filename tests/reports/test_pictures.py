"""Pictures of two masks: outlines that bound them, planes turned to the patient whatever the stack's
orientation."""

from __future__ import annotations

import re

import numpy as np
import pytest

from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm
from medseg.reports.pictures import draw_pair


def masks(shape=(10, 30, 36)):
    reference, other = (np.zeros(shape, dtype=bool) for _ in range(2))
    reference[3:8, 8:20, 6:16] = True
    reference[5, 12:14, 9:12] = False
    other[3:7, 8:20, 8:18] = True
    return reference, other


def area_mm2(path: str) -> float:
    """Area inside all loops of SVG path data by the shoelace formula, holes counted negative."""
    total = 0.0
    for loop in filter(None, path.split("M")):
        points = np.array([[float(v) for v in point.split()] for point in loop.rstrip("Z").split("L")])
        x, y = points.T
        total += (np.roll(x, -1) @ y - x @ np.roll(y, -1)) / 2
    return abs(total)


def test_outlines_bound_the_masks_on_the_slice_with_the_largest_difference():
    geometry = stack_geometry((10, 30, 36), gaps_mm=3.0, pixel_spacing_mm=(1.5, 1.25))
    reference, other = masks()
    worst = draw_pair(reference, other, geometry, None)[0]
    assert (
        worst.caption == "axial, slice with the largest difference: 8 of 10, z 7.5 mm"
    )  # which the judged set lacks altogether
    assert (
        area_mm2(worst.reference_path) == pytest.approx(12 * 10 * 1.5 * 1.25, rel=1e-3)
        and worst.other_path == ""
    )
    assert (
        area_mm2(worst.missed_path) == pytest.approx(12 * 10 * 1.5 * 1.25, rel=1e-3)
        and worst.extra_path == ""
    )


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, 1)]
)
def test_superior_and_anterior_are_up_and_patient_right_is_on_the_left_whatever_the_orientation(orientation):
    geometry = stack_geometry((20, 20, 20), gaps_mm=2.0, pixel_spacing_mm=(2.0, 2.0), orientation=orientation)
    points = np.stack([voxel_points_lps_mm(geometry, index) for index in range(20)])
    left, posterior, superior = np.moveaxis(points - points.reshape(-1, 3).mean(0), -1, 0)
    block = (np.abs(left) < 10) & (np.abs(posterior) < 10) & (np.abs(superior) < 10)
    bars = {
        "axial": (left > 4) & (posterior > 4),
        "coronal": (left > 4) & (superior > 4),
        "sagittal": (posterior > 4) & (superior > 4),
    }
    for plane, bar in bars.items():
        pictures = draw_pair(block, block & ~bar, geometry, None)
        picture = next(picture for picture in pictures if picture.caption.startswith(plane))
        points_mm = np.array(re.findall(r"([\d.]+) ([\d.]+)", picture.missed_path), dtype=float)
        centre = points_mm.mean(0) / (picture.width_mm, picture.height_mm)
        assert centre[0] > 0.5 and (centre[1] > 0.5) == (plane == "axial"), plane


def test_two_empty_masks_have_no_picture_and_tilted_stacks_only_axial_ones():
    empty = np.zeros((10, 30, 36), dtype=bool)
    assert draw_pair(empty, empty, stack_geometry(empty.shape), None) == ()
    equal = draw_pair(masks()[0], masks()[0], stack_geometry(empty.shape), None)
    assert [picture.caption.split(":")[0] for picture in equal][:2] == [
        "axial, middle slice",
        "coronal through the centre",
    ]
    tilted = draw_pair(*masks(), stack_geometry(empty.shape, tilt_degrees=20), None)
    assert {picture.caption.split(",")[0] for picture in tilted} == {"axial"}
    uneven = stack_geometry(empty.shape, gaps_mm=[2.0] * 5 + [4.0] * 4)
    coronal = next(
        picture for picture in draw_pair(*masks(), uneven, None) if picture.caption.startswith("coronal")
    )
    # Slices 3 to 7 of the reference at 6, 8, 10, 14 and 18 mm: from half-way to the neighbour on both sides.
    heights = np.array(re.findall(r"[\d.]+ ([\d.]+)", coronal.reference_path), dtype=float)
    assert np.ptp(heights) == pytest.approx(20 - 5, abs=2.0)
