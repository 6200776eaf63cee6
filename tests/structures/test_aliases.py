"""Which ROI is meant by a structure."""

from __future__ import annotations

import json

import pytest

from medseg.errors import InputError, StructureError
from medseg.structures.aliases import check_aliases, load_aliases, match_rois

NAMES = ["GTV-1", "gtv old", "Lung L", "LUNG RIGHT", "Heart", "Heart_PRV05", "Spinal cord", "X1"]


def test_a_pattern_fits_the_whole_name_whatever_its_case():
    assert match_rois({"GTV": ["gtv-.*"], "Cor": ["heart"]}, NAMES, "file") == {
        "GTV": "GTV-1",
        "Cor": "Heart",
    }


def test_the_order_of_patterns_is_a_preference():
    assert match_rois({"GTV": ["gtv", "gtv old", "gtv.*"]}, NAMES, "file") == {"GTV": "gtv old"}


def test_several_rois_for_one_pattern_are_an_error_that_lists_them():
    with pytest.raises(StructureError, match="file: 'GTV-1', 'gtv old' could all be GTV"):
        match_rois({"GTV": ["gtv.*"]}, NAMES, "file")


def test_without_a_pattern_the_own_name_and_then_tg_263_decide():
    found = match_rois({"Lung_L": [], "Lung_R": [], "SpinalCord": [], "x1": [], "Liver": []}, NAMES, "file")
    assert found == {
        "Lung_L": "Lung L",
        "Lung_R": "LUNG RIGHT",
        "SpinalCord": "Spinal cord",
        "x1": "X1",
        "Liver": None,
    }


def test_left_is_never_right_and_a_margin_is_not_the_organ():
    assert match_rois({"Lung_L": []}, ["LUNG RIGHT", "Lung_R"], "file") == {"Lung_L": None}
    assert match_rois({"Heart": []}, ["Heart_PRV05"], "file") == {"Heart": None}


@pytest.mark.parametrize(
    "name", ["Heart外", "Bladderé", "SpinalCord危及", "Lung_L²", "Lung_Lß", "Heart\u200b"]
)
def test_a_letter_that_is_not_understood_is_not_dropped_from_a_name(name):
    wanted = {"Heart": [], "Bladder": [], "SpinalCord": [], "Lung_L": []}
    assert set(match_rois(wanted, [name], "file").values()) == {None}


@pytest.mark.parametrize(
    "name",
    [
        "SpinalCord_PRV05",
        "SpinalCord PRV 5mm",
        "cordprv",
        "SpinalCord05",
        "SpinalCord-5mm",
        "Lungs-GTV",
        "Lungs - GTV",
        "zPTV",
        "optBladder",
        "Bladder_opt",
        "Z_Bladder",
        "rBladder",
        "Lung_L-PTV",
        "Lung_L1",
        "Lung~_L",
        "R Lung L",
    ],
)
def test_margins_differences_and_helpers_are_never_the_structure_they_are_made_of(name):
    wanted = ("SpinalCord", "Lungs", "Lung_L", "Lung_R", "GTV", "PTV", "Bladder")
    assert set(match_rois({structure: [] for structure in wanted}, [name], "file").values()) == {None}


def test_one_roi_for_two_structures_is_an_error():
    with pytest.raises(StructureError, match="'Heart' fits both Heart and Cor"):
        match_rois({"Heart": [], "Cor": ["hea.*t"]}, NAMES, "file")


@pytest.mark.parametrize("wrong", [{}, [], "GTV", {"GTV": "gtv"}, {"GTV": ["("]}, {"GTV": [3]}])
def test_a_map_that_is_none_is_refused(wrong, tmp_path):
    file = tmp_path / "aliases.json"
    file.write_text(json.dumps(wrong))
    with pytest.raises(InputError, match="aliases.json"):
        load_aliases(file)


def test_a_good_map_is_read_from_its_file(tmp_path):
    file = tmp_path / "aliases.json"
    file.write_text('{"GTV": ["gtv.*"], "Heart": []}')
    assert (
        load_aliases(file)
        == check_aliases({"GTV": ["gtv.*"], "Heart": []}, "")
        == {"GTV": ("gtv.*",), "Heart": ()}
    )
    with pytest.raises(InputError, match="readable JSON"):
        load_aliases(tmp_path / "none.json")
