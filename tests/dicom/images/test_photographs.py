"""Photographs in DICOM: colours and greys come out as stored, whatever the syntax, and other things are
refused."""

from __future__ import annotations

import numpy as np
import pytest
from photo_files import colours, write_op
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from medseg.dicom.images.photographs import read_photograph, why_no_photograph
from medseg.errors import InputError


def test_eight_bit_colours_come_out_as_stored(tmp_path):
    found = read_photograph(write_op(tmp_path / "a.dcm", colours()))
    assert found.pixels.dtype == np.float32 and found.pixels.shape == (40, 60, 3)
    assert np.array_equal(np.rint(found.pixels * 255), colours())
    assert not found.is_grey and found.shown == "8-bit colours" and found.spacing_mm is None


def test_planes_of_colour_are_put_together(tmp_path):
    planes = np.ascontiguousarray(colours().transpose(2, 0, 1))
    path = write_op(
        tmp_path / "a.dcm",
        colours(),
        PlanarConfiguration=1,
        PixelData=planes.tobytes(),
        PixelSpacing=[0.01, 0.02],
    )
    found = read_photograph(path)
    assert np.array_equal(np.rint(found.pixels * 255), colours())
    assert found.spacing_mm == (0.01, 0.02)


def test_jpeg_with_shared_colours_is_decoded_to_rgb(tmp_path):
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[40:200:40j, 20:220:60j], 90.0), axis=-1).astype(np.uint8)
    path = write_op(
        tmp_path / "a.dcm", smooth, syntax=JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422"
    )
    found = read_photograph(path)
    assert np.abs(found.pixels * 255 - smooth).mean() < 3


def test_lossless_jpeg_2000_colours_are_exact(tmp_path):
    path = write_op(
        tmp_path / "a.dcm", colours(), syntax=JPEG2000Lossless, PhotometricInterpretation="YBR_RCT"
    )
    assert np.array_equal(np.rint(read_photograph(path).pixels * 255), colours())


def test_sixteen_bit_angiography_is_stretched_and_turned_over_where_it_is_stored_so(tmp_path):
    grey = np.linspace(500, 3500, 40 * 60).reshape(40, 60).astype(np.uint16)
    found = read_photograph(write_op(tmp_path / "a.dcm", grey, bits=12))
    assert found.is_grey and found.shown == "12-bit grey values from 500 to 3500"
    assert np.array_equal(found.pixels[..., 0], found.pixels[..., 2])
    assert found.pixels[0, 0, 0] == 0 and found.pixels[-1, -1, 0] == 1
    turned = read_photograph(
        write_op(tmp_path / "b.dcm", grey, bits=12, PhotometricInterpretation="MONOCHROME1")
    )
    assert turned.pixels == pytest.approx(1 - found.pixels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"NumberOfFrames": 3}, "pixel data cut off"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR of 3 samples; expected one of RGB"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT Image Storage, not a photograph"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}, "secondary capture of modality OT"),
        ({"PixelData": b"\0" * 300}, "pixel data cut off"),
        ({"PixelData": b"\1" * 7200}, "every pixel has the same value"),
        ({"PixelSpacing": [0.01, -1.0]}, "expected two positive numbers"),
    ],
)
def test_what_is_no_single_photograph_is_refused_in_one_line(tmp_path, changes, words):
    path = write_op(tmp_path / "a.dcm", colours(), **changes)
    with pytest.raises(InputError, match=words) as caught:
        read_photograph(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_jpeg_is_named(tmp_path):
    path = write_op(
        tmp_path / "a.dcm", colours(), syntax=JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL"
    )
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xda")
    content[start + 20 : start + 60] = b"\xff\xd8" * 20
    path.write_bytes(content)
    try:
        read_photograph(path)  # a decoder may make something of it
    except InputError as error:
        assert "cannot be decoded" in str(error)


def test_the_header_alone_says_what_is_a_photograph(tmp_path):
    assert why_no_photograph(write_op(tmp_path / "a.dcm", colours())) is None
    (tmp_path / "note.txt").write_text("hello")
    assert why_no_photograph(tmp_path / "note.txt") == ""
