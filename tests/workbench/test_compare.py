"""Two sets of contours compared. Referees: hand counts, and DeepMind's surface-distance through
medseg.metrics' tests."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import warnings

import numpy as np
import pytest

from medseg.cases.mask_sources import Reference
from medseg.cases.nifti import write_mask
from medseg.dicom import read_series, write_rtstruct, write_seg
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.geometry import Geometry
from medseg.metrics import surface_distances
from medseg.phantoms.series import stack_geometry, write_series
from medseg.workbench.compare import ComparisonRequest, compare, describe_grid, measure
from medseg.workbench.comparison_outputs import (
    check_outputs,
    record,
    table_lines,
    write_csv,
    write_html,
    write_json,
)
from medseg.workbench.name_pairs import pair_names

SHAPE = (12, 32, 40)


def block(*ranges) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(*pair) for pair in ranges)] = True
    return mask


TRUTH = {
    "GTV": block((4, 8), (10, 20), (10, 20)),
    "Lung_L": block((2, 10), (4, 28), (22, 36)),
    "Gone": block((1, 3), (2, 4), (2, 4)),
    "Cord": block((0, 12), (14, 18), (4, 8)),
    "Empty": np.zeros(SHAPE, bool),
}
JUDGED = {
    "GTV": block((4, 8), (10, 20), (12, 22)),
    "LUNG_L": TRUTH["Lung_L"],
    "New": block((1, 2), (2, 4), (2, 4)),
    "Cord": np.zeros(SHAPE, bool),
    "Empty": np.zeros(SHAPE, bool),
}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(CT folder, RS.dcm of the truth, RS.dcm of what is judged) on 3 x 1.5 x 1.25 mm."""
    folder = tmp_path_factory.mktemp("case")
    geometry = stack_geometry(SHAPE, gaps_mm=3.0, pixel_spacing_mm=(1.5, 1.25))
    write_series(np.where(TRUTH["GTV"], 40, -100), geometry, folder / "CT")
    series = read_series(folder / "CT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        for name, masks in (("a", TRUTH), ("b", JUDGED)):
            write_rtstruct(masks, series, folder / f"{name}.dcm")
            write_seg(
                {key: mask for key, mask in masks.items() if mask.any()}, series, folder / f"{name}_seg.dcm"
            )
            (folder / name).mkdir()
            for key, mask in masks.items():
                write_mask(mask, geometry, folder / name / f"{key}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def comparison(case):
    return compare(ComparisonRequest(case / "a.dcm", case / "b.dcm", Reference(case / "CT"), pictures=True))


def row_of(comparison, name):
    return next(row for row in comparison.agreements if row.name == name)


def test_a_box_moved_by_two_columns_has_the_numbers_worked_out_by_hand(comparison):
    row = row_of(comparison, "GTV")
    assert row.dsc == pytest.approx(0.8) and row.hd95_mm == pytest.approx(2.5)
    assert (
        row.reference_cc == row.other_cc == pytest.approx(4 * 10 * 10 * 3 * 1.5 * 1.25 / 1000)
        and row.difference_cc == 0
    )
    slant_mm = math.hypot(1.5, 1.25) / 2
    assert row.reference_path_length_mm == pytest.approx(4 * (18 * 1.5 + 18 * 1.25 + 4 * slant_mm))
    assert row.added_path_length_0_mm == pytest.approx(4 * (18 * 1.5 + 2 * 1.25 + 2 * slant_mm))
    # 2 mm of tolerance: what lies 1.25 mm away is near enough, both sides are 2.5 mm off but for the right
    # one's ends.
    assert row.added_path_length_mm < row.added_path_length_0_mm
    distances = surface_distances(TRUTH["GTV"], JUDGED["GTV"], (3.0, 1.5, 1.25))
    assert (row.surface_dsc, row.mean_surface_distance_mm) == (distances.dice(2.0), distances.mean_mm())
    assert row.surface_dsc < 1 == compare_at(3.0).surface_dsc


def compare_at(tolerance_mm):
    geometry = stack_geometry(SHAPE, gaps_mm=3.0, pixel_spacing_mm=(1.5, 1.25))
    return type("Row", (), measure(TRUTH["GTV"], JUDGED["GTV"], geometry, tolerance_mm))


def test_every_structure_is_told_also_those_of_one_set_alone_and_empty_ones(comparison):
    assert [row.name for row in comparison.agreements] == ["GTV", "Lung_L", "Cord", "Empty"]
    assert list(comparison.only_reference_cc) == ["Gone"] and list(comparison.only_other_cc) == ["New"]
    assert comparison.only_other_cc["New"] == pytest.approx(4 * 3 * 1.5 * 1.25 / 1000)
    cord, empty = row_of(comparison, "Cord"), row_of(comparison, "Empty")
    assert (cord.state, cord.dsc, cord.surface_dsc, cord.hd95_mm) == ("other empty", 0.0, 0.0, math.inf)
    assert cord.added_path_length_mm == cord.reference_path_length_mm > 0
    assert empty.state == "both empty" and math.isnan(empty.dsc) and math.isnan(empty.hd95_mm)
    assert empty.added_path_length_mm == 0.0 == empty.reference_cc
    assert [row.name for row in comparison.worst_first()] == ["Cord", "GTV", "Lung_L", "Empty"]
    reverse = measure(JUDGED["Cord"], TRUTH["Cord"], stack_geometry(SHAPE), 2.0)
    assert (reverse["state"], reverse["added_path_length_mm"]) == ("reference empty", 0.0)


@pytest.mark.parametrize("kind", [".dcm", "_seg.dcm", ""], ids=["RTSTRUCT", "SEG", "NIfTI"])
def test_every_kind_of_file_gives_the_same_numbers(kind, case, comparison):
    other = compare(ComparisonRequest(case / f"a{kind}", case / "b.dcm", Reference(case / "CT")))
    assert other.agreements[0].name in ("GTV", "Cord")
    row, expected = row_of(other, "GTV"), row_of(comparison, "GTV")
    for name in (
        "dsc",
        "surface_dsc",
        "hd95_mm",
        "mean_surface_distance_mm",
        "added_path_length_mm",
        "other_cc",
    ):
        assert getattr(row, name) == getattr(expected, name), name


def test_nifti_masks_compare_on_their_own_grid_without_images(case, comparison):
    alone = compare(ComparisonRequest(case / "a", case / "b"))
    assert row_of(alone, "GTV").dsc == row_of(comparison, "GTV").dsc
    assert alone.grid == comparison.grid == "40 x 32 x 12 voxels of 1.25 x 1.5 mm, 3 mm between slices"
    with pytest.raises(InputError, match="`reference`"):
        compare(ComparisonRequest(case / "a.dcm", case / "b"))


def test_masks_of_another_grid_are_refused(case, tmp_path):
    write_mask(TRUTH["GTV"], stack_geometry(SHAPE, gaps_mm=2.0), tmp_path / "GTV.nii.gz")
    with pytest.raises(GeometryError, match="does not lie on the image's grid"):
        compare(ComparisonRequest(case / "a", tmp_path))


@pytest.mark.parametrize(
    "geometry", [{"gaps_mm": [2.0] * 5 + [5.0] * 6}, {"tilt_degrees": 20}], ids=["uneven", "tilted"]
)
def test_uneven_and_tilted_stacks_have_all_numbers_too(geometry, tmp_path):
    geometry = stack_geometry(SHAPE, **geometry)
    write_series(np.where(TRUTH["GTV"], 40, -100), geometry, tmp_path / "CT")
    series = read_series(tmp_path / "CT")
    for name, masks in (("a", TRUTH), ("b", JUDGED)):
        write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / f"{name}.dcm")
    comparison = compare(
        ComparisonRequest(tmp_path / "a.dcm", tmp_path / "b.dcm", Reference(tmp_path / "CT"), pictures=True)
    )
    row = comparison.agreements[0]
    assert row.dsc == pytest.approx(0.8) and row.hd95_mm == pytest.approx(2.0, abs=0.2)
    assert row.reference_cc == pytest.approx(100 * geometry.slice_thickness_mm[4:8].sum() / 1000)
    assert ("uneven" in comparison.grid) or ("tilted" in comparison.grid)


def test_one_slice_has_overlap_and_added_path_but_no_distance():
    geometry = Geometry((1, 32, 40), [[0, 0, 0]], [0, 1.5, 0], [1.25, 0, 0])
    row = measure(TRUTH["GTV"][4:5], JUDGED["GTV"][4:5], geometry, 2.0)
    assert row["dsc"] == pytest.approx(0.8) and row["added_path_length_mm"] > 0
    assert all(math.isnan(row[name]) for name in ("surface_dsc", "hd95_mm", "reference_cc"))
    assert "one slice" in describe_grid(geometry)


# ---- pairs -------------------------------------------------------------------------------------------------


def test_names_pair_exactly_first_then_by_case_where_that_is_certain():
    assert pair_names(["GTV", "gtv", "Cord"], ["cord", "GTV"])[0] == [("GTV", "GTV"), ("Cord", "cord")]
    assert pair_names(["gtv", "Gtv", "Heart"], ["GTV", "Heart"])[0] == [("Heart", "Heart")]
    assert pair_names(["Lung_L", "Lung_R"], ["Lung_R", "Lung_L"])[0] == [
        ("Lung_L", "Lung_L"),
        ("Lung_R", "Lung_R"),
    ]


def test_pairs_can_be_given_even_for_names_with_an_equals_sign():
    assert pair_names(["GTV-1", "a=b"], ["GTV", "c=d"], ["GTV-1=GTV", "a=b=c=d"])[0] == [
        ("GTV-1", "GTV"),
        ("a=b", "c=d"),
    ]
    for wanted in (["GTV-1"], ["GTV=GTV"], ["GTV-1=GTV", "GTV-1=PTV"]):
        with pytest.raises(InputError, match="pair"):
            pair_names(["GTV-1"], ["GTV", "PTV"], wanted)


@pytest.mark.parametrize(
    "names", [("Lung_L", "Lung_R"), ("Lung L", "RT LUNG"), ("Left Thing", "thing_r"), ("PTV_L", "PTV_R")]
)
def test_left_is_never_compared_with_right(names):
    with pytest.raises(StructureError, match="left and the other a right"):
        pair_names([names[0]], [names[1]], [f"{names[0]}={names[1]}"])
    with pytest.raises(InputError, match="`pairs="):
        pair_names([names[0]], [names[1]])


def test_names_that_only_look_alike_are_told_and_not_paired():
    pairs, hints = pair_names(["GTV", "Lung L"], ["GTV", "Lung_L"])
    assert pairs == [("GTV", "GTV")] and '`pairs="Lung L=Lung_L"`' in hints[0]


def test_a_tolerance_of_its_own_for_a_structure_and_none_for_a_name_that_is_not_there(case):
    request = ComparisonRequest(case / "a", case / "b", tolerances_mm={"GTV": 3.0})
    assert [row.tolerance_mm for row in compare(request).agreements if row.name == "GTV"] == [3.0]
    with pytest.raises(InputError, match="tolerance of 'Hart'"):
        compare(ComparisonRequest(case / "a", case / "b", tolerances_mm={"Hart": 3.0}))
    with pytest.raises(InputError, match="expected 0 or more"):
        compare(ComparisonRequest(case / "a", case / "b", tolerance_mm=-1))


# ---- outputs -----------------------------------------------------------------------------------------------


def test_json_and_csv_hold_every_structure_with_tolerance_grid_and_implementation(comparison, tmp_path):
    write_json(comparison, tmp_path / "c.json")
    read = json.loads((tmp_path / "c.json").read_text())
    assert (
        read == record(comparison)
        and "1.25 x 1.5" in read["grid"]
        and "DeepMind" in read["definitions"]["surface_dsc"]
    )
    rows = {row["name"]: row for row in read["structures"]}
    assert rows["GTV"]["dsc"] == 0.8 and rows["GTV"]["tolerance_mm"] == 2.0
    assert rows["Cord"]["hd95_mm"] is None and rows["Cord"]["state"] == "other empty"
    assert read["only_in_reference_cc"].keys() == {"Gone"} and read["not_compared"] == []
    write_csv(comparison, tmp_path / "c.csv")
    table = list(csv.DictReader((tmp_path / "c.csv").open(encoding="utf-8", newline="")))
    assert [(row["name"], row["other_name"], row["state"]) for row in table] == [
        ("GTV", "GTV", "both"),
        ("Lung_L", "LUNG_L", "both"),
        ("Cord", "Cord", "other empty"),
        ("Empty", "Empty", "both empty"),
        ("Gone", "", "only in reference"),
        ("", "New", "only in other"),
    ]
    assert table[0]["dsc"] == "0.8" and table[2]["hd95_mm"] == "inf" and all(row["grid"] for row in table)


def test_structures_that_were_paired_otherwise_are_not_compared_in_every_output(tmp_path):
    """``CTV_5=PTV_8`` leaves a PTV_8 in one set and a CTV_5 in the other, which both sets have."""
    geometry = stack_geometry(SHAPE, gaps_mm=3.0, pixel_spacing_mm=(1.5, 1.25))
    for folder, names in (("a", ("CTV_5", "PTV_8", "Gone")), ("b", ("CTV_5", "PTV_8", "New"))):
        (tmp_path / folder).mkdir()
        for name in names:
            write_mask(TRUTH["GTV"], geometry, tmp_path / folder / f"{name}.nii.gz")
    found = compare(ComparisonRequest(tmp_path / "a", tmp_path / "b", pairs=("CTV_5=PTV_8",)))
    assert [(row.name, row.other_name) for row in found.agreements] == [("CTV_5", "PTV_8")]
    states = {(one.name, one.where): one.state for one in found.unpaired()}
    assert states == {
        ("Gone", "reference"): "only in reference",
        ("PTV_8", "reference"): "not compared",
        ("CTV_5", "other"): "not compared",
        ("New", "other"): "only in other",
    }
    assert repr(found).startswith("1 structures in both sets, 2 in one alone, 2 not compared\n")
    # 4 slices of 10 x 10 voxels of 3 x 1.5 x 1.25 mm
    assert record(found)["not_compared"] == [
        {"name": "PTV_8", "set": "reference", "cc": 2.25},
        {"name": "CTV_5", "set": "other", "cc": 2.25},
    ]
    assert record(found)["only_in_reference_cc"] == {"Gone": 2.25}
    assert record(found)["only_in_other_cc"] == {"New": 2.25}
    write_csv(found, tmp_path / "c.csv")
    table = list(csv.DictReader((tmp_path / "c.csv").open(encoding="utf-8", newline="")))
    assert [(row["name"], row["other_name"], row["state"]) for row in table[1:]] == [
        ("Gone", "", "only in reference"),
        ("PTV_8", "", "not compared"),
        ("", "CTV_5", "not compared"),
        ("", "New", "only in other"),
    ]
    lines = table_lines(found)
    assert sum("not compared: of the" in line for line in lines) == 2
    write_html(found, tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "PTV_8<small>not compared: of the reference</small>" in page
    assert "CTV_5<small>not compared: of the judged set</small>" in page
    assert "Gone<small>only in the reference</small>" in page
    assert "New<small>only in the judged set</small>" in page


def test_a_name_cannot_become_a_formula_of_a_spreadsheet(comparison, tmp_path):
    row = dataclasses.replace(comparison.agreements[0], name="=cmd|' /C calc'!A0", other_name="-z")
    named = dataclasses.replace(comparison, agreements=(row,), only_other_cc={"@SUM(A1)": 1.0})
    write_csv(named, tmp_path / "c.csv")
    table = list(csv.DictReader((tmp_path / "c.csv").open(encoding="utf-8", newline="")))
    assert [(line["name"], line["other_name"]) for line in table] == [
        ("'=cmd|' /C calc'!A0", "'-z"),
        ("Gone", ""),
        ("", "'@SUM(A1)"),
    ]
    assert record(named)["structures"][0]["name"] == "=cmd|' /C calc'!A0"


def test_no_output_replaces_a_structure_set_or_a_mask_or_another_output(case, tmp_path):
    for outs, words in (
        ([case / "b.dcm"], "never replaces"),
        ([case / "a" / "GTV.nii.gz"], "never replaces"),
        ([tmp_path], "never replaces"),
        ([tmp_path / "x", tmp_path / "x"], "two outputs"),
        ([tmp_path / "none" / "x"], "does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            check_outputs(outs)
    (tmp_path / "old.json").write_text("{}")
    check_outputs([tmp_path / "old.json", tmp_path / "new.csv"])
    os.mkfifo(tmp_path / "fifo")  # is not opened: that waits for whoever writes into it
    check_outputs([tmp_path / "fifo"])


def test_the_table_says_what_it_shows(comparison):
    lines = table_lines(comparison)
    assert lines[1].startswith("Cord") and "other empty" in lines[2]
    assert any(line.startswith("Lung_L / LUNG_L  ") for line in lines)  # which structures were paired
    assert any(line.startswith("Gone") and "only in the reference" in line for line in lines)
    text = "\n".join(lines)
    assert "tol mm" in text and "40 x 32 x 12 voxels" in text and "marching-cube" in text
