"""Structures from files of several kinds, one mask at a time."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from medseg.cases.mask_sources import INDEX, file_names, open_masks, read_index
from medseg.cases.nifti import write_mask
from medseg.errors import GeometryError, InputError, StructureError
from medseg.geometry import Geometry
from medseg.phantoms.chiral import chiral_phantom

PHANTOM = chiral_phantom()


@pytest.fixture
def folder(tmp_path):
    for name in ("Marker", "L"):
        write_mask(PHANTOM.masks[name], PHANTOM.geometry, tmp_path / f"{name}.nii.gz")
    return tmp_path


def test_nifti_masks_need_no_images_and_share_the_grid_of_the_first(folder):
    source = open_masks(folder)
    assert source.names == ("L", "Marker") and source.kind == "NIfTI masks"
    assert (source.read("Marker")[0] == PHANTOM.masks["Marker"]).all()
    assert open_masks(folder / "L.nii.gz").names == ("L",)
    elsewhere = Geometry(
        PHANTOM.geometry.shape, PHANTOM.geometry.origins_lps_mm + 5, [0, 1.5, 0], [1.25, 0, 0]
    )
    write_mask(PHANTOM.masks["L"], elsewhere, folder / "Moved.nii.gz")
    with pytest.raises(GeometryError, match="Moved.nii.gz does not lie on the image's grid"):
        open_masks(folder).read("Moved")


def test_label_maps_and_values_beyond_one_are_no_masks(folder):
    labels = PHANTOM.masks["L"].astype(np.int16) * 3
    labels[0, 0, 0] = 2
    nibabel.save(
        nibabel.Nifti1Image(labels.transpose(2, 1, 0), PHANTOM.geometry.affine_ras), folder / "Labels.nii.gz"
    )
    with pytest.raises(StructureError, match="values from 0 to 3; .*split a label map"):
        open_masks(folder).read("Labels")
    half = PHANTOM.masks["L"].astype(np.float32) / 2
    nibabel.save(
        nibabel.Nifti1Image(half.transpose(2, 1, 0), PHANTOM.geometry.affine_ras), folder / "Half.nii.gz"
    )
    assert open_masks(folder).read("Half")[0].max() == 0.5


def write_values(folder, name, array):
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), PHANTOM.geometry.affine_ras), folder / name)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_a_mask_of_0_and_255_is_one_structure(kind, folder):
    write_values(folder, "Byte.nii.gz", PHANTOM.masks["L"].astype(kind) * kind(255))
    array, notices = open_masks(folder).read("Byte")
    assert array.dtype == bool and (array == PHANTOM.masks["L"]).all() and notices == []


@pytest.mark.parametrize("value", [2, 300, -1])
def test_a_mask_of_another_single_value_is_refused_with_that_value(value, folder):
    write_values(folder, "Odd.nii.gz", PHANTOM.masks["L"].astype(np.int16) * value)
    said = "values from -1 to 0" if value < 0 else f"holds 0 and {value}; expected a mask of 0 and 1"
    with pytest.raises(StructureError, match=said):
        open_masks(folder).read("Odd")


def test_a_folder_without_masks_says_what_it_holds(tmp_path):
    for name in ("a.dcm", "b.dcm", "notes"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    with pytest.raises(InputError, match="2 files of .dcm, 1 files of no suffix, 1 folders"):
        open_masks(tmp_path)


def test_a_map_with_values_that_are_no_numbers_is_refused(folder):
    holed = np.where(PHANTOM.masks["L"], np.nan, 0).astype(np.float32)
    nibabel.save(
        nibabel.Nifti1Image(holed.transpose(2, 1, 0), PHANTOM.geometry.affine_ras), folder / "Holed.nii.gz"
    )
    with pytest.raises(StructureError, match="values from nan to nan"):
        open_masks(folder).read("Holed")


def test_what_is_no_set_of_structures_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "empty", "holds no NIfTI"), (tmp_path / "none.dcm", "no such file")):
        with pytest.raises(InputError, match=words):
            open_masks(path)
    (tmp_path / "RS.dcm").write_bytes(b"nothing")
    with pytest.raises(InputError, match="`reference`"):
        open_masks(tmp_path / "RS.dcm")
    with pytest.raises(StructureError, match="no structure 'Heart'; there are 'L', 'Marker'"):
        open_masks(folder).require(["Heart"])


def test_a_name_that_two_files_have_is_refused(folder):
    write_mask(PHANTOM.masks["L"], PHANTOM.geometry, folder / "L.nii")
    with pytest.raises(InputError, match="would both be called 'L'"):
        open_masks(folder)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", InputError),
        ("[]", InputError),
        ('{"structures": [{"file": "L.nii.gz"}]}', InputError),
        ('{"structures": [{"file": "L.nii.gz", "name": "L", "number": -1}]}', StructureError),
    ],
)
def test_a_damaged_index_is_an_error_and_not_passed_over(text, error, folder):
    (folder / INDEX).write_text(text)
    with pytest.raises(error):
        open_masks(folder)


def test_the_index_gives_files_their_names_back(folder):
    row = {
        "file": "L.nii.gz",
        "name": "a/b",
        "number": 4,
        "interpreted_type": "CAVITY",
        "colour_rgb": [1, 2, 3],
    }
    (folder / INDEX).write_text(json.dumps({"structures": [row]}))
    structure = read_index(folder)["L.nii.gz"]
    assert (structure.name, structure.number, structure.interpreted_type) == ("a/b", 4, "CAVITY")
    assert open_masks(folder).names == ("a/b", "Marker")
    assert (open_masks(folder).read("a/b")[0] == PHANTOM.masks["L"]).all()
    (folder / INDEX).write_text(json.dumps({"structures": [row, {**row, "file": "Marker.nii.gz"}]}))
    with pytest.raises(StructureError, match="the same name"):
        open_masks(folder)


def test_file_names_are_as_like_the_structures_as_every_system_allows():
    names = [
        "GTV-1",
        "1,SUV_primair",
        "a/b",
        "../x",
        "CON",
        "con.x",
        "Lung ",
        "tail.",
        'q"<>|?*',
        "ä ß",
        "\x07",
    ]
    assert list(file_names(names).values()) == [
        "GTV-1",
        "1,SUV_primair",
        "a_b",
        "_._x",
        "_CON",
        "_con.x",
        "Lung",
        "tail",
        "q______",
        "ä ß",
        "_",
    ]
    with pytest.raises(StructureError, match="'gtv' and 'GTV'|'GTV' and 'gtv'"):
        file_names(["GTV", "gtv"])
