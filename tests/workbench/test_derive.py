"""Structures made of others. Referees: distances computed voxel by voxel, and pydicom for what the file
keeps."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
import shapely
from referees import conformance_errors, raw_contours

from medseg.cases.mask_sources import Reference
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.metrics import dice
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm, write_series
from medseg.shapes.margins import expand
from medseg.workbench.derive import Derivation, Recipe, derive, derive_structure_set, touches_border

UNEVEN = (3, 3, 3, 2, 2, 2, 2, 4, 4, 4, 3, 3, 3, 3, 2, 2)


def drawn(geometry):
    """A body (an elliptic cylinder), a ball near its skin, and a cord of 4 mm radius beside the ball."""
    points = np.stack([voxel_points_lps_mm(geometry, index) for index in range(geometry.shape[0])])
    from_middle = points - points.reshape(-1, 3).mean(0)
    x, y, z = np.moveaxis(from_middle, -1, 0)
    return {
        "BODY": (x / 26) ** 2 + (y / 22) ** 2 <= 1,
        "GTV": (x - 14) ** 2 + y**2 + z**2 <= 7**2,
        "Cord": x**2 + y**2 <= 4**2,
    }


@pytest.fixture(scope="module", params=[3.0, UNEVEN], ids=["even", "uneven"])
def case(request, tmp_path_factory):
    """(CT folder, series, masks, RS.dcm) on slices of 1.5 x 1.25 mm pixels."""
    folder = tmp_path_factory.mktemp("case")
    geometry = stack_geometry((17, 40, 48), gaps_mm=request.param, pixel_spacing_mm=(1.5, 1.25))
    masks = drawn(geometry)
    write_series(np.where(masks["BODY"], 0, -1000), geometry, folder / "CT")
    series = read_series(folder / "CT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        return folder / "CT", series, masks, write_rtstruct(masks, series, folder / "RS.dcm")


def written_cc(path, number, geometry):
    """Areas of the written contours times the height of their slices."""
    areas = np.zeros(geometry.shape[0])
    for contour in raw_contours(path)[number]:
        points = np.array(contour.split(b"\\"), dtype=float).reshape(-1, 3)
        index, _ = geometry.nearest_slice(points)
        areas[index] += shapely.Polygon(points[:, :2]).area
    return float(areas @ geometry.slice_thickness_mm) / 1000


def made(case, recipe):
    _, series, masks, _ = case
    return derive(recipe, masks.__getitem__, series.geometry) >= 0.5


def test_nothing_leaks_out_of_the_body_or_nearer_to_the_skin_than_asked(case):
    _, series, masks, _ = case
    plain = made(case, Recipe("GTV", 9))
    assert (plain & ~masks["BODY"]).any()
    for crop_mm in (0, 3, 5):
        ptv = made(case, Recipe("GTV", 9, crop_to="BODY", crop_mm=crop_mm))
        assert np.count_nonzero(ptv & ~masks["BODY"]) == 0
        assert (ptv == plain & (expand(masks["BODY"], series.geometry, -crop_mm) >= 0.5)).all()
        assert ptv.any()


def test_what_is_taken_away_keeps_its_gap(case):
    _, series, masks, _ = case
    ptv = made(case, Recipe("GTV", 9, minus=(("Cord", 3),)))
    cord_points, ptv_points = (
        np.concatenate([voxel_points_lps_mm(series.geometry, i)[mask[i]] for i in range(17)])
        for mask in (masks["Cord"], ptv)
    )
    nearest_mm = np.linalg.norm(ptv_points[:, None, :] - cord_points[None], axis=-1).min()
    # From voxel centre to voxel centre: the gap and about half a voxel to the cord's surface.
    assert nearest_mm > 3 + 1.25 / 2 - 0.3
    assert made(case, Recipe("GTV", 9, minus=(("Cord", 0),))).sum() > ptv.sum()


def test_union_and_intersection_come_before_the_margin_and_the_margin_before_the_crop(case):
    _, series, masks, _ = case
    both = masks["GTV"] | masks["Cord"]
    assert (made(case, Recipe("GTV", union=("Cord",))) == both).all()
    assert (made(case, Recipe("GTV", 4, union=("Cord",))) == (expand(both, series.geometry, 4) >= 0.5)).all()
    assert (made(case, Recipe("BODY", intersect=("Cord",))) == masks["Cord"]).all()
    shrunk = made(case, Recipe("BODY", -5))
    assert (shrunk == (expand(masks["BODY"], series.geometry, -5) >= 0.5)).all() and not (
        shrunk & ~masks["BODY"]
    ).any()
    six = {"left": 6, "superior": 4}
    assert (made(case, Recipe("GTV", six)) == (expand(masks["GTV"], series.geometry, six) >= 0.5)).all()


def test_recipes_that_mean_nothing_are_refused(case):
    for recipe in (
        Recipe("GTV", crop_mm=5),
        Recipe("GTV", crop_to="BODY", crop_mm=-1),
        Recipe("GTV", minus=(("Cord", -2),)),
        Recipe("GTV", {"upwards": 5}),
    ):
        with pytest.raises(InputError):
            made(case, recipe)


def test_the_copy_keeps_what_was_there_and_adds_an_unapproved_structure_typed_by_its_name(
    case, program, tmp_path
):
    ct, series, masks, path = case
    before = path.read_bytes()
    recipe = Recipe("GTV", 5, crop_to="BODY", crop_mm=3, minus=(("Cord", 1),))
    record = derive_structure_set(Derivation(path, tmp_path / "out.dcm", Reference(ct), "CTV", recipe))
    assert path.read_bytes() == before
    assert record["recipe"] == "GTV + 5 mm, without Cord and 1 mm around it, inside BODY by 3 mm"
    old, new = (pydicom.dcmread(file) for file in (path, tmp_path / "out.dcm"))
    assert [(r.ROINumber, r.ROIName) for r in new.StructureSetROISequence] == [
        *((r.ROINumber, r.ROIName) for r in old.StructureSetROISequence),
        (4, "CTV"),
    ]
    kept = raw_contours(tmp_path / "out.dcm")
    assert all(kept[number] == contours for number, contours in raw_contours(path).items())
    assert (
        new.RTROIObservationsSequence[-1].RTROIInterpretedType == "CTV" and new.ApprovalStatus == "UNAPPROVED"
    )
    row = new.StructureSetROISequence[-1]
    assert row.ROIGenerationAlgorithm == "SEMIAUTOMATIC" and record["recipe"] in row.ROIDescription
    assert row.ROIGenerationDescription == row.ROIDescription[:64]
    again = read_rtstruct(tmp_path / "out.dcm", series)["CTV"]
    assert dice(again, made(case, recipe)) > 0.97  # the set's outlines, not the masks, were moved
    assert record["volumes_cc"]["CTV"] == pytest.approx(
        written_cc(tmp_path / "out.dcm", 4, series.geometry), rel=1e-4
    )
    assert conformance_errors(program, tmp_path / "out.dcm") == []


def test_neither_the_set_itself_nor_a_file_nor_a_name_is_overwritten(case, tmp_path):
    ct, _, _, path = case
    recipe, ct = Recipe("GTV", 5), Reference(ct)
    for out, name, error, words in (
        (path, "CTV", InputError, "the structure set itself"),
        (tmp_path / "there.dcm", "CTV", InputError, "`overwrite`"),
        (tmp_path / "new.dcm", "gtv", StructureError, "already has a structure 'gtv'"),
        (tmp_path / "new.nii.gz", "CTV", InputError, "the name of a mask"),
    ):
        (tmp_path / "there.dcm").write_text("mine")
        with pytest.raises(error, match=words):
            derive_structure_set(Derivation(path, out, ct, name, recipe))
    with pytest.raises(StructureError, match="no structure 'GTVp'; there are 'BODY', 'Cord', 'GTV'"):
        derive_structure_set(Derivation(path, tmp_path / "new.dcm", ct, "CTV", Recipe("GTVp", 5)))
    assert {file.name for file in tmp_path.iterdir()} == {"there.dcm"}
    derive_structure_set(Derivation(path, tmp_path / "there.dcm", ct, "CTV", recipe, overwrite=True))


def test_a_margin_that_meets_the_end_of_the_images_says_so(case, tmp_path):
    ct, _, _, path = case
    record = derive_structure_set(
        Derivation(path, tmp_path / "out.dcm", Reference(ct), "PTV", Recipe("GTV", 25))
    )
    assert any("reaches the border of the images" in warning for warning in record["warnings"])
    assert touches_border(np.ones((3, 3, 3), bool)) and not touches_border(
        np.pad(np.ones((1, 1, 1), bool), 1)
    )


def test_a_body_that_ends_with_the_scan_takes_nothing_from_there_and_says_so(case, tmp_path):
    """Field case: the last slices of a PTV far from the skin were cropped away without a word."""
    ct, series, masks, _ = case
    high = masks["Cord"].copy()
    high[:12] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        write_rtstruct({"PTV0": high, "BODY": masks["BODY"]}, series, tmp_path / "RS.dcm")
    for recipe, expected in (
        (Recipe("PTV0", crop_to="BODY", crop_mm=5), high),
        (Recipe("BODY", -5), None),
    ):
        out = tmp_path / f"{recipe.start}.dcm"
        record = derive_structure_set(Derivation(tmp_path / "RS.dcm", out, Reference(ct), "New", recipe))
        found = read_rtstruct(out, series)["New"]
        assert found[-1].any() and (expected is None or (found == expected).all())
        notice = "BODY reaches the first and last slices, where the scan ends and not BODY"
        assert any(notice in warning for warning in record["warnings"])
    plain = derive_structure_set(
        Derivation(
            tmp_path / "RS.dcm", tmp_path / "in.dcm", Reference(ct), "In", Recipe("PTV0", 2, crop_to="BODY")
        )
    )
    assert not any("where the scan ends" in warning for warning in plain["warnings"])


def test_images_of_another_frame_are_refused(case, tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT", seed=9)
    with pytest.raises(GeometryError):
        derive_structure_set(
            Derivation(case[3], tmp_path / "out.dcm", Reference(tmp_path / "CT"), "CTV", Recipe("GTV", 5))
        )
    allowing = Reference(tmp_path / "CT", allow=("frame_of_reference",))
    with pytest.raises(InputError, match="does not go with margin"):
        derive_structure_set(Derivation(case[3], tmp_path / "out.dcm", allowing, "CTV", Recipe("GTV", 5)))
    assert not (tmp_path / "out.dcm").exists()
