"""Radiographs are found and opened as they stand, and masks go out without an invented place or size."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from chest_files import picture, ramp, write_dx
from PIL import Image

from medseg.cases.find import find_radiographs
from medseg.cases.nifti import write_flat_mask
from medseg.cases.radiograph import Radiograph, open_radiograph
from medseg.cases.results import Structures
from medseg.errors import InputError, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series
from medseg.structures.structure import Structure
from medseg.transforms import LoadRadiographd, SaveRadiographd, ToRadiographStructuresd


def test_grey_png_jpeg_and_16_bit_png_are_read_as_they_stand(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    assert open_radiograph(tmp_path / "a.png").pixels == pytest.approx(picture() / 255, abs=1e-6)
    assert open_radiograph(tmp_path / "a.png").spacing_mm is None
    Image.fromarray(ramp(top=65535)).save(tmp_path / "b.png")
    assert open_radiograph(tmp_path / "b.png").pixels == pytest.approx(ramp(top=65535) / 65535, abs=1e-6)
    Image.fromarray(picture()).save(tmp_path / "c.jpeg", quality=95)
    assert open_radiograph(tmp_path / "c.jpeg").pixels == pytest.approx(picture() / 255, abs=0.03)


def test_a_colour_file_that_holds_only_grey_is_read_and_a_coloured_one_is_not(tmp_path):
    Image.fromarray(picture()).convert("RGB").save(tmp_path / "grey.png")
    assert open_radiograph(tmp_path / "grey.png").pixels == pytest.approx(picture() / 255, abs=1e-6)
    coloured = np.stack([picture()] * 3, axis=-1)
    coloured[10:20, 10:20] = (255, 0, 0)
    Image.fromarray(coloured).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match="coloured"):
        open_radiograph(tmp_path / "colour.png")


def test_masks_transparent_turned_and_broken_pictures_are_refused(tmp_path):
    Image.fromarray((picture() > 100).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="2 different grey values"):
        open_radiograph(tmp_path / "mask.png")
    see_through = Image.fromarray(picture()).convert("LA")
    see_through.putalpha(120)
    see_through.save(tmp_path / "alpha.png")
    with pytest.raises(InputError, match="transparent"):
        open_radiograph(tmp_path / "alpha.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "phone.jpg", exif=turned)
    with pytest.raises(InputError, match="upright"):
        open_radiograph(tmp_path / "phone.jpg")
    (tmp_path / "broken.png").write_bytes((tmp_path / "mask.png").read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be read"):
        open_radiograph(tmp_path / "broken.png")


def test_a_folder_gives_every_radiograph_and_says_what_was_passed_over(tmp_path):
    (tmp_path / "A" / ".cache").mkdir(parents=True)
    Image.fromarray(picture()).save(tmp_path / "A" / "one.png")
    Image.fromarray(picture()).save(tmp_path / "A" / ".cache" / "hidden.png")
    write_dx(tmp_path / "A" / "IM1")
    (tmp_path / "notes.txt").write_text("text")
    phantom = chiral_phantom()
    write_series(phantom.volume_hu[:2], chiral_geometry(phantom, 2), tmp_path / "CT")
    cases, notes = find_radiographs(tmp_path)
    assert [name for name, _ in cases] == ["A_IM1", "A_one"]
    assert len(notes) == 1 and notes[0].startswith("2 files") and "CT Image Storage" in notes[0]


def chiral_geometry(phantom, slices):
    from medseg.geometry import Geometry

    g = phantom.geometry
    return Geometry(
        (slices, *g.shape[1:]),
        g.origins_lps_mm[:slices],
        g.row_step_lps_mm,
        g.column_step_lps_mm,
        g.frame_of_reference_uid,
    )


def test_an_empty_folder_and_a_folder_of_ct_slices_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="no radiograph found.*Seen: no file"):
        find_radiographs(tmp_path)
    phantom = chiral_phantom()
    write_series(phantom.volume_hu[:2], chiral_geometry(phantom, 2), tmp_path / "CT")
    with pytest.raises(InputError, match="CT Image Storage, not a projection radiograph"):
        find_radiographs(tmp_path / "CT")


def test_a_stated_view_that_the_bundle_did_not_learn_is_refused(tmp_path):
    load = LoadRadiographd("image", views=["AP", "PA"])
    assert load({"image": str(write_dx(tmp_path / "pa.dcm", ViewPosition="PA"))})["image"].shape == (
        1,
        80,
        100,
    )
    with pytest.raises(InputError, match="view LL; this bundle learned from AP and PA views"):
        load({"image": str(write_dx(tmp_path / "ll.dcm", ViewPosition="LL"))})


def test_nifti_masks_say_that_position_and_perhaps_size_are_unknown(tmp_path):
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 5] = True
    known = nibabel.load(write_flat_mask(mask, (0.2, 0.1), tmp_path / "a.nii.gz"))
    assert known.shape == (6, 4) and known.header.get_zooms() == pytest.approx((0.1, 0.2))
    assert np.argwhere(np.asarray(known.dataobj)).tolist() == [[5, 1]]
    assert known.header.get_xyzt_units()[0] == "mm"
    assert (int(known.header["qform_code"]), int(known.header["sform_code"])) == (0, 0)
    unknown = nibabel.load(write_flat_mask(mask, None, tmp_path / "b.nii.gz"))
    assert unknown.header.get_xyzt_units()[0] == "unknown"
    assert (
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))).tolist()
        == mask.astype(int).tolist()
    )


def test_masks_of_another_shape_and_names_that_do_not_fit_are_refused():
    case = Radiograph("a.png", np.zeros((4, 6), np.float32), "as stored")
    with pytest.raises(StructureError, match=r"array \(6, 4\) for an image of \(4, 6\)"):
        Structures(case, {Structure("Lung_R"): np.zeros((6, 4), bool)})
    with pytest.raises(StructureError, match="one_piece names Heart"):
        ToRadiographStructuresd("pred", structures=[{"name": "Lung_R"}], one_piece=["Heart"])
    with pytest.raises(InputError, match="RT Structure Set needs CT or MR slices"):
        SaveRadiographd(formats=["rtstruct"])


@pytest.mark.parametrize("keyword", ("PixelSpacing", "ImagerPixelSpacing"))
@pytest.mark.parametrize("spacing", ([-0.2, 0.2], [0.0, 0.2]))
def test_a_spacing_that_is_no_length_is_refused_in_one_line(tmp_path, keyword, spacing):
    with pytest.raises(InputError, match=f"{keyword} .*; expected two positive numbers") as caught:
        open_radiograph(write_dx(tmp_path / "a.dcm", **{keyword: spacing}))
    assert "\n" not in str(caught.value)
