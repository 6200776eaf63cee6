"""Regions: a box in mm or an ROI of a structure set, told apart whatever characters they hold."""

from __future__ import annotations

import pytest
from scipy.ndimage import distance_transform_edt

from medseg.cases.region import region_file, region_mask
from medseg.cases.volume import open_case
from medseg.dicom import read_series, write_rtstruct
from medseg.errors import GeometryError, InputError, MedsegWarning
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series
from medseg.structures.structure import Structure


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patient #1")
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, folder / "CT")
    rois = {Structure("a: b,c"): phantom.masks["Foot"], Structure("GTV"): phantom.masks["Marker"]}
    write_rtstruct(rois, read_series(folder / "CT"), folder / "R:S,1.dcm")
    return folder, phantom


@pytest.mark.parametrize(("roi", "mask"), [("GTV", "Marker"), ("a: b,c", "Foot"), (" GTV ", "Marker")])
def test_colons_commas_and_spaces_in_file_and_roi_names_are_understood(roi, mask, patient):
    folder, phantom = patient
    found = region_mask(f"R:S,1.dcm:{roi}", open_case(str(folder / "CT")))
    assert found.sum() == phantom.masks[mask].sum()


def test_an_absolute_structure_set_is_found_too(patient):
    folder, _ = patient
    assert region_file(f"{folder}/R:S,1.dcm:GTV", str(folder / "CT")) == (folder / "R:S,1.dcm", "GTV")


def test_an_unknown_roi_and_a_missing_file_are_refused_with_what_there_is(patient):
    folder, _ = patient
    case = open_case(str(folder / "CT"))
    with pytest.raises(InputError, match="no ROI 'gtv'.*'GTV', 'a: b,c'"):
        region_mask("R:S,1.dcm:gtv", case)
    with pytest.raises(InputError, match="no such structure set"):
        region_mask("RS.dcm:GTV", case)


def test_a_box_between_voxel_centres_is_refused_in_words_that_say_so(patient):
    folder, phantom = patient
    x, y, z = phantom.geometry.points_lps_mm(20, [[20, 30]])[0]
    case = open_case(str(folder / "CT"))
    assert region_mask((x - 0.1, x + 0.1, y - 0.1, y + 0.1, z - 0.1, z + 0.1), case).sum() == 1
    with pytest.raises(GeometryError, match="smaller than a voxel"):
        region_mask((x + 0.3, x + 0.5, y - 0.1, y + 0.1, z - 0.1, z + 0.1), case)


def test_a_box_partly_outside_the_image_keeps_the_part_inside(patient):
    folder, phantom = patient
    x, y, z = phantom.geometry.origins_lps_mm[0]
    found = region_mask((x - 900, x + 0.1, y - 900, y + 0.1, z - 900, z + 0.1), open_case(str(folder / "CT")))
    assert found.sum() == 1 and found[0, 0, 0]


def test_what_is_odd_about_other_structures_is_not_said_with_the_region(patient, recwarn):
    folder, phantom = patient
    empty = Structure("Empty")
    masks = {Structure("GTV"): phantom.masks["Marker"], empty: phantom.masks["Marker"] & False}
    write_rtstruct(masks, read_series(folder / "CT"), folder / "two.dcm")
    recwarn.clear()
    region_mask("two.dcm:GTV", open_case(str(folder / "CT")))
    assert not recwarn.list
    with (
        pytest.raises(GeometryError, match="no voxel centre"),
        pytest.warns(MedsegWarning, match="'Empty'.*empty"),
    ):
        region_mask("two.dcm:Empty", open_case(str(folder / "CT")))


@pytest.mark.parametrize("text", ["GTV+10", "GTV + 10.0"])
def test_a_margin_around_the_roi_is_taken_with_it(text, patient):
    folder, phantom = patient
    found = region_mask(f"R:S,1.dcm:{text}", open_case(str(folder / "CT")))
    spacing_mm = phantom.geometry.spacing_mm
    away_mm = distance_transform_edt(~phantom.masks["Marker"], sampling=spacing_mm)
    assert found[away_mm < 10 - max(spacing_mm)].all()
    assert not found[away_mm > 10 + max(spacing_mm)].any()
    assert found.sum() > 5 * phantom.masks["Marker"].sum()


def test_an_roi_that_is_called_like_a_margin_is_itself(patient):
    folder, phantom = patient
    masks = {"GTV": phantom.masks["Marker"], "GTV+10": phantom.masks["Foot"]}
    with pytest.warns(MedsegWarning, match="GTV\\+10"):
        write_rtstruct(masks, read_series(folder / "CT"), folder / "plus.dcm")
    found = region_mask("plus.dcm:GTV+10", open_case(str(folder / "CT")))
    assert (found == phantom.masks["Foot"]).all()


def test_a_margin_that_is_no_number_and_one_around_nothing_are_refused(patient):
    folder, _ = patient
    case = open_case(str(folder / "CT"))
    for text in ("GTV+", "GTV+1cm", "GTV+-3"):
        with pytest.raises(InputError, match="is no margin; expected millimetres, as in GTV\\+10"):
            region_mask(f"R:S,1.dcm:{text}", case)
    with pytest.raises(InputError, match="no ROI 'CTV\\+10'; the structure set has 'GTV'"):
        region_mask("R:S,1.dcm:CTV+10", case)
