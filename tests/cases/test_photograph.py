"""Photographs come out upright, in colours from 0 to 1, whatever the file; what is none is refused in a
line."""

from __future__ import annotations

import io

import numpy as np
import pytest
from photo_files import colours, fundus_bytes, write_op
from PIL import Image

from medseg.bundles.record import is_result
from medseg.cases.find import find_photographs
from medseg.cases.photograph import field_of_view, open_photograph
from medseg.cases.pictures import write_probability_png
from medseg.errors import InputError


def opened(tmp_path, pixels, name="a.png", **options):
    Image.fromarray(pixels).save(tmp_path / name, **options)
    return open_photograph(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF"])
def test_eight_bit_colours_come_out_as_stored(tmp_path, name):
    found = opened(tmp_path, colours(), name)
    assert found.pixels.dtype == np.float32 and not found.is_grey
    assert np.array_equal(np.rint(found.pixels * 255), colours())
    assert found.shape == (40, 60) and found.shown == "8-bit colours as stored"
    assert found.record()["geometry"] == {"shape_rows_columns": [40, 60], "pixel_spacing_mm": None}


def test_a_photograph_that_asks_for_turning_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    found = opened(tmp_path, colours(), exif=exif)
    assert found.shape == (60, 40)
    assert np.array_equal(np.rint(found.pixels * 255), np.rot90(colours(), -1))
    assert found.shown == "8-bit colours as stored, turned upright (EXIF orientation 6)"


def test_grey_of_eight_and_of_sixteen_bits_is_known_to_be_grey(tmp_path):
    grey = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    found = opened(tmp_path, grey)
    assert found.is_grey and found.shown == "16-bit grey values as stored"
    assert found.pixels[..., 1] == pytest.approx(grey / 65535)
    eight = opened(tmp_path, (grey // 256).astype(np.uint8), "b.png")
    assert eight.is_grey and eight.pixels.shape == (40, 60, 3)
    as_colour = np.repeat((grey // 256).astype(np.uint8)[..., None], 3, axis=2)
    assert opened(tmp_path, as_colour, "c.png").is_grey


def test_an_opaque_alpha_channel_is_left_out_and_a_palette_is_looked_up(tmp_path):
    opaque = np.dstack([colours(), np.full((40, 60), 255, np.uint8)])
    assert np.array_equal(np.rint(opened(tmp_path, opaque).pixels * 255), colours())
    Image.fromarray(colours()).quantize(64).save(tmp_path / "p.png")
    assert np.abs(open_photograph(tmp_path / "p.png").pixels * 255 - colours()).mean() < 30


def test_of_a_deep_colour_png_the_upper_eight_bits_count(tmp_path):
    import SimpleITK as sitk

    deep = colours().astype(np.uint16) * 257
    sitk.WriteImage(sitk.GetImageFromArray(deep, isVector=True), str(tmp_path / "deep.png"))
    found = open_photograph(tmp_path / "deep.png")
    assert np.array_equal(np.rint(found.pixels * 255), colours())
    assert found.shown == "upper 8 of 16 bits per colour as stored"


def refused(tmp_path, content: bytes, name="a.png") -> str:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_photograph(tmp_path / name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def encoded(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_what_is_no_photograph_is_refused_in_one_line_that_says_why(tmp_path):
    photo = Image.fromarray(colours())
    glass = Image.fromarray(np.dstack([colours(), np.full((40, 60), 99, np.uint8)]))
    mask = Image.fromarray(np.eye(40, dtype=np.uint8) * 255)
    assert "(0 bytes)" in refused(tmp_path, b"")
    assert "printing inks (CMYK)" in refused(tmp_path, encoded(photo.convert("CMYK"), "JPEG"), "a.jpg")
    assert "partly transparent" in refused(tmp_path, encoded(glass, "PNG"))
    assert "2 different colours; a photograph has more (is this a mask?)" in refused(
        tmp_path, encoded(mask, "PNG")
    )
    assert "pixels of kind 1" in refused(tmp_path, encoded(mask.convert("1"), "PNG"))
    assert "pixels of kind LAB" in refused(tmp_path, encoded(Image.new("LAB", (40, 40)), "TIFF"), "a.tif")
    assert "pixels of kind F" in refused(tmp_path, encoded(Image.new("F", (40, 40)), "TIFF"), "b.tif")
    two = encoded(photo, "TIFF", save_all=True, append_images=[photo])
    assert "2 frames; expected one picture" in refused(tmp_path, two, "two.tif")
    assert "cannot be read" in refused(tmp_path, encoded(photo, "PNG")[:200])
    assert "cannot be read" in refused(tmp_path, b"no picture at all", "x.tif")
    with pytest.raises(InputError, match="no such file"):
        open_photograph(tmp_path / "missing.png")


def test_a_folder_of_photographs_is_found_and_results_and_others_are_passed_over(tmp_path):
    (tmp_path / "b").mkdir()
    opened(tmp_path, colours(), "one.tif")
    opened(tmp_path, colours(), "b/two.jpg")
    write_op(tmp_path / "three.dcm", colours())
    (tmp_path / "note.txt").write_text("hello")
    cases, notes = find_photographs(tmp_path, is_result)
    assert [name for name, _ in cases] == ["b_two", "one", "three"] and notes == []
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "note.txt").write_text("hello")
    with pytest.raises(
        InputError, match="no photograph found .PNG, JPEG, TIFF, or DICOM of VL or Ophth.*1 file"
    ):
        find_photographs(tmp_path / "c")


def test_the_field_of_view_leaves_the_frame_and_text_in_its_corner_out():
    rows, columns = np.mgrid[0:200, 0:260]
    disc = np.hypot(rows - 100, columns - 130) < 90
    pixels = np.where(disc[..., None], [0.6, 0.3, 0.1], [0.01, 0.01, 0.01]).astype(np.float32)
    pixels[5:15, 5:60] = 0.9  # a name in the corner
    pixels[95:105, 125:135] = 0.0  # a haemorrhage inside
    found = field_of_view(pixels)
    assert (found != disc).mean() < 0.01 and found[100, 130] and not found[10, 30]


def test_a_picture_without_a_frame_is_all_field_of_view():
    assert field_of_view(colours(64, 64) / 255 * 0.5 + 0.5).all()
    assert field_of_view(np.zeros((64, 64, 3))).all()


def test_probabilities_are_written_with_sixteen_bits(tmp_path):
    chances = np.array([[0.0, 0.25, 1.0]])
    found = np.asarray(Image.open(write_probability_png(chances, tmp_path / "p.png")))
    assert found.tolist() == [[0, 16384, 65535]]


def test_areas_are_in_pixels_and_in_mm2_where_the_camera_gives_a_spacing(tmp_path):
    mask = np.zeros((40, 60), dtype=bool)
    mask[:10, :10] = True
    assert opened(tmp_path, colours()).size_of(mask) == {"area_pixels": 100, "area_mm2": None}
    case = open_photograph(write_op(tmp_path / "a.dcm", colours(), PixelSpacing=[0.01, 0.02]))
    assert case.size_of(mask.astype(np.float32)) == {"area_pixels": 100, "area_mm2": 0.02}
    record = case.record()
    assert record["input"]["modality"] == "OP" and "Doe" not in str(record)


def test_a_fundus_photograph_opens(tmp_path):
    assert not opened(tmp_path, fundus_bytes(), "f.jpg", quality=95).is_grey
