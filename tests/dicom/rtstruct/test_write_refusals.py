"""What writing a structure set refuses, or says."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest

from medseg.dicom import read_rtstruct, read_series, write_rtstruct, write_seg
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series
from medseg.structures.structure import Structure

SHAPE = (30, 48, 56)  # of the images in conftest.py


def test_an_empty_mask_becomes_a_structure_without_contours_and_a_warning(masks, series, tmp_path):
    with pytest.warns(MedsegWarning, match="Nothing is empty"):
        out = write_rtstruct(
            {"Nothing": np.zeros(SHAPE, bool), "GTV": masks["GTV"]}, series, tmp_path / "rs.dcm"
        )
    dataset = pydicom.dcmread(out)
    assert "ContourSequence" not in dataset.ROIContourSequence[0]
    with pytest.warns(MedsegWarning, match="'Nothing': it is empty"):
        assert not read_rtstruct(out, series)["Nothing"].any()


def test_a_name_against_tg263_is_warned_of_and_written_as_given(masks, series, tmp_path):
    with pytest.warns(MedsegWarning, match="TG-263 calls it Lung_L"):
        out = write_rtstruct({"Lt Lung": masks["L"]}, series, tmp_path / "rs.dcm")
    assert pydicom.dcmread(out).StructureSetROISequence[0].ROIName == "Lt Lung"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, StructureError, "at least one"),
        ({"GTV": np.zeros((3, 4, 5), bool)}, GeometryError, r"\(3, 4, 5\) on images of \(30, 48, 56\)"),
        ({"GTV": np.zeros((56, 48, 30), bool)}, GeometryError, "Nothing is flipped"),
        ({"GTV": np.full(SHAPE, 2, np.uint8)}, StructureError, "one mask per structure"),
        ({"GTV": np.full(SHAPE, 7.5)}, StructureError, "sigmoid"),
        ({"GTV": np.full(SHAPE, np.nan)}, StructureError, "expected 0 to 1"),
        ({"GTV": np.full(SHAPE, "x")}, StructureError, "expected bool"),
        ({"GTV": np.ones(SHAPE, bool), "gtv": np.ones(SHAPE, bool)}, StructureError, "two structures"),
        (
            {Structure("A", 1): np.ones(SHAPE, bool), Structure("B", 1): np.ones(SHAPE, bool)},
            StructureError,
            "number 1",
        ),
    ],
)
def test_masks_that_cannot_be_right_are_refused_and_nothing_is_written(given, error, words, series, tmp_path):
    with pytest.raises(error, match=words):
        write_rtstruct(given, series, tmp_path / "rs.dcm")
    assert list(tmp_path.iterdir()) == []


def test_wrong_options_are_refused(masks, series, tmp_path):
    with pytest.raises(StructureError, match="pinhole"):
        write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "rs.dcm", holes="pinhole")
    for simplify_mm in (-0.1, float("nan"), float("inf")):
        with pytest.raises(StructureError, match="expected 0 or more"):
            write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "rs.dcm", simplify_mm=simplify_mm)
    with pytest.raises(StructureError, match="17 characters"):
        write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "rs.dcm", label="x" * 17)
    with pytest.raises(InputError, match="does not exist"):
        write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "nowhere" / "rs.dcm")


def test_images_without_a_frame_of_reference_are_refused(tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", FrameOfReferenceUID=None)
    with pytest.raises(GeometryError, match="no Frame of Reference"):
        write_rtstruct({"GTV": phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "rs.dcm")


def test_an_image_of_the_series_is_never_overwritten(tmp_path):
    phantom = chiral_phantom(stack_geometry((4, 12, 14)))
    file = write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct")[0]
    before = file.read_bytes()
    series = read_series(tmp_path / "ct")
    for write in (write_rtstruct, write_seg):
        with pytest.raises(InputError, match="never overwritten"):
            write({"GTV": np.ones((4, 12, 14), dtype=bool)}, series, file)
        with pytest.raises(InputError, match="is a folder"):
            write({"GTV": np.ones((4, 12, 14), dtype=bool)}, series, tmp_path / "ct")
    assert file.read_bytes() == before
