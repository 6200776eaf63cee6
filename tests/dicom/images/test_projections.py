"""Projection radiographs in DICOM come in as a viewer shows them, and nothing about their size is guessed."""

from __future__ import annotations

import numpy as np
import pytest
from chest_files import DX, ramp, write_dx
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medseg.dicom.images.projections import read_projection
from medseg.errors import InputError


def test_without_a_window_the_whole_range_becomes_0_to_1(tmp_path):
    found = read_projection(write_dx(tmp_path / "a.dcm"))
    assert found.shown == "whole range of values"
    assert found.pixels.dtype == np.float32 and found.pixels.shape == (80, 100)
    assert found.pixels == pytest.approx(ramp() / 4095, abs=1e-6)


def test_8_and_16_bits_are_read_like_12(tmp_path):
    eight = (ramp() // 16).astype(np.uint8)
    found = read_projection(write_dx(tmp_path / "8.dcm", eight, bits=8))
    assert found.pixels == pytest.approx(eight / 255.0, abs=1e-6)
    sixteen = ramp(top=65535)
    assert read_projection(write_dx(tmp_path / "16.dcm", sixteen, bits=16)).pixels == pytest.approx(
        sixteen / 65535, abs=1e-6
    )


def test_monochrome1_is_turned_over(tmp_path):
    plain = read_projection(write_dx(tmp_path / "2.dcm"))
    turned = read_projection(write_dx(tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1"))
    assert turned.pixels == pytest.approx(1 - plain.pixels, abs=1e-6)
    assert turned.shown == "whole range of values, MONOCHROME1 turned over"


def test_the_first_window_cuts_the_values_as_dicom_says(tmp_path):
    path = write_dx(tmp_path / "w.dcm", WindowCenter=[1000, 50], WindowWidth=[401, 10])
    found = read_projection(path)
    assert found.shown == "window centre 1000, width 401 (first of 2), LINEAR"
    # PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w-1)/2 = 799.5, white from 1199.5.
    expected = np.clip((ramp() - 999.5) / 400 + 0.5, 0, 1)
    assert found.pixels == pytest.approx(expected, abs=1e-3)


def test_a_voi_lut_goes_before_a_window(tmp_path):
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], (4095 - np.arange(4096)).astype("<u2").tobytes()
    found = read_projection(
        write_dx(tmp_path / "l.dcm", VOILUTSequence=Sequence([item]), WindowCenter=9, WindowWidth=9)
    )
    assert found.shown == "VOI LUT"
    assert found.pixels == pytest.approx(1 - ramp() / 4095, abs=1e-6)


def test_padding_is_black_and_does_not_stretch_the_range(tmp_path):
    pixels = ramp(top=2000)
    pixels[:5] = 4095
    found = read_projection(
        write_dx(tmp_path / "p.dcm", pixels, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1")
    )
    assert (found.pixels[:5] == 0).all()
    assert found.pixels[5:] == pytest.approx(1 - pixels[5:] / 2000, abs=1e-6)


@pytest.mark.parametrize(
    ("attributes", "spacing_mm", "words"),
    [
        ({}, None, ""),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "ImagerPixelSpacing, at the detector"),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]},
            (0.2, 0.2),
            "ImagerPixelSpacing, at the detector",
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.15, 0.15]},
            (0.15, 0.15),
            "calibrated (of unknown kind)",
        ),
        (
            {"PixelSpacing": [0.15, 0.15], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.15, 0.15),
            "calibrated (FIDUCIAL)",
        ),
        ({"PixelSpacing": [0.15, 0.15]}, (0.15, 0.15), "not said whether"),
    ],
)
def test_which_spacing_it_is_is_said_and_none_is_guessed(tmp_path, attributes, spacing_mm, words):
    found = read_projection(write_dx(tmp_path / "s.dcm", **attributes))
    assert found.spacing_mm == spacing_mm and words in found.spacing_from
    assert bool(found.spacing_from) == (spacing_mm is not None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SOPClassUID": f"{DX}.1"}, "FOR PROCESSING"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "raw detector values"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT Image Storage, not a projection radiograph"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}, "secondary capture of modality OT"),
        ({"PatientOrientation": ["R", "F"]}, "sides would be exchanged"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "expected MONOCHROME1 or MONOCHROME2"),
        ({"PixelData": np.full((80, 100), 7, np.uint16).tobytes()}, "same value"),
        ({"PixelSpacing": [0.0, 0.1]}, "two positive numbers"),
        ({"PixelData": b"\0\0"}, "cut off"),
    ],
)
def test_what_is_no_plain_radiograph_is_refused(tmp_path, changes, words):
    with pytest.raises(InputError) as error:
        read_projection(write_dx(tmp_path / "x.dcm", **changes))
    assert words in str(error.value) and "x.dcm" in str(error.value) and "\n" not in str(error.value)


def test_several_frames_are_refused(tmp_path):
    path = write_dx(tmp_path / "m.dcm", np.stack([ramp(), ramp()]), NumberOfFrames=2)
    with pytest.raises(InputError, match="2 frames; expected one picture"):
        read_projection(path)


def test_a_secondary_capture_of_a_radiograph_is_read(tmp_path):
    path = write_dx(
        tmp_path / "sc.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="CR", PatientOrientation=None
    )
    assert read_projection(path).pixels.max() == 1
