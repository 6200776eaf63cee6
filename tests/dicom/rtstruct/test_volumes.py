"""Volumes from contours alone. Referees: boxes by hand, and the planning system's own table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medseg.dicom import read_structure_set
from medseg.dicom.rtstruct.encode import Contour
from medseg.dicom.rtstruct.structure_set import Roi, StructureSet
from medseg.dicom.rtstruct.volumes import structure_set_volumes
from medseg.structures.structure import Structure


def square(height_mm, side_mm=10.0, kind="CLOSED_PLANAR", low_mm=0.0):
    high_mm = low_mm + side_mm
    corners = [(low_mm, low_mm), (high_mm, low_mm), (high_mm, high_mm), (low_mm, high_mm)]
    return Contour(kind, np.array([(x, y, height_mm) for x, y in corners]))


def volumes(*rois):
    rois = tuple(
        Roi(Structure(f"ROI{number}", number), tuple(contours), "", "")
        for number, contours in enumerate(rois, 1)
    )
    return structure_set_volumes(StructureSet(Path("rs.dcm"), "", "", "", "", "", "", (), rois, ()))


def test_a_box_is_its_area_times_its_number_of_slices():
    assert volumes([square(z) for z in (0, 3, 6, 9)]) == (pytest.approx(4 * 0.1 * 3),)


def test_a_missing_slice_adds_nothing_and_a_repeated_point_or_contour_neither():
    closed = Contour("CLOSED_PLANAR", np.concatenate([square(0).points_lps_mm, square(0).points_lps_mm[:1]]))
    stack = [closed, square(0), square(3), square(6), square(12)]
    assert volumes(stack) == (pytest.approx(4 * 0.1 * 3),)


def test_uneven_planes_stand_for_half_the_gap_to_either_neighbour():
    # Gaps 2 and 5 mm: planes of 2, 3.5 and 5 mm.
    assert volumes([square(z) for z in (0, 2, 7)]) == (pytest.approx(0.1 * (2 + 3.5 + 5)),)


def test_holes_count_by_the_even_odd_rule():
    ring = [
        contour
        for z in (0, 2, 4)
        for contour in (square(z), square(z, 4.0, low_mm=3.0), square(z, 2.0, low_mm=4.0))
    ]
    assert volumes(ring) == (pytest.approx(3 * 0.2 * (1 - 0.16 + 0.04)),)


def test_a_single_plane_takes_the_gap_of_the_others_and_alone_none_is_known():
    stack = [square(z) for z in (0, 2.5, 5)]
    assert volumes(stack, [square(0)]) == (pytest.approx(0.75), pytest.approx(0.25))
    assert volumes([square(0)]) == (None,)


def test_points_lines_and_empty_structures_have_no_volume():
    line = square(0, kind="OPEN_PLANAR")
    point = Contour("POINT", np.zeros((1, 3)))
    assert volumes([], [line, point], [Contour("CLOSED_PLANAR", np.zeros((2, 3)))]) == (0.0, 0.0, 0.0)


def test_an_oblique_stack_has_the_same_volume_and_planes_askew_have_none():
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    turned = [Contour(c.geometric_type, c.points_lps_mm @ turn.T) for c in (square(z) for z in (0, 3, 6))]
    assert volumes(turned) == (pytest.approx(0.9),)
    askew = Contour("CLOSED_PLANAR", square(9).points_lps_mm[:, [0, 2, 1]])
    assert volumes([square(0), square(3), askew]) == (None,)


def test_eclipse_volumes_agree_with_the_planning_systems_own_table(shared_data):
    structure_set = read_structure_set(
        shared_data / "rt" / "structure_sets" / "eclipse81_prostate" / "RS.dcm"
    )
    found = dict(
        zip(
            (roi.structure.name for roi in structure_set.rois),
            structure_set_volumes(structure_set),
            strict=True,
        )
    )
    planned_cc = {
        "BODY": 10593.0,
        "Bladder": 116.8,
        "Femoral Head Lt": 49.2,
        "Femoral Head RT": 50.0,
        "PTV": 48.6,
        "Rectum": 30.3,
    }
    for name, volume_cc in planned_cc.items():
        assert found[name] == pytest.approx(volume_cc, rel=0.014), name
    assert found["CTV"] == 0.0
