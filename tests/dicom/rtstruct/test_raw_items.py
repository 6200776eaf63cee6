"""Contours read straight from their bytes are those that pydicom reads; what is odd is left to it."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.dicom.rtstruct import structure_set as module
from medseg.dicom.rtstruct.raw_items import raw_items
from medseg.dicom.rtstruct.structure_set import read_structure_set
from medseg.dicom.rtstruct.write import write_rtstruct

SEQUENCES = (0x30060039, 0x30060040, 0x30060016)


@pytest.fixture(scope="module")
def written(phantom, series, tmp_path_factory):
    path = tmp_path_factory.mktemp("rs") / "rs.dcm"
    return write_rtstruct(phantom.masks, series, path)


def saved(written, path, syntax, undefined=()):
    """The set in another transfer syntax, the sequences ``undefined`` without a length."""
    dataset = pydicom.dcmread(written)
    for roi in dataset.ROIContourSequence:
        for item in roi.ContourSequence:
            item["ContourImageSequence"].is_undefined_length = SEQUENCES[2] in undefined
        roi["ContourSequence"].is_undefined_length = SEQUENCES[1] in undefined
    dataset["ROIContourSequence"].is_undefined_length = SEQUENCES[0] in undefined
    implicit = syntax == ImplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=implicit, little_endian=True)
    return path


def contours(path):
    return [
        (roi.structure.name, contour.geometric_type, contour.image_uids, contour.points_lps_mm.tolist())
        for roi in read_structure_set(path).rois
        for contour in roi.contours
    ]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [(), SEQUENCES[:1], SEQUENCES[1:2], SEQUENCES[2:]])
def test_every_encoding_gives_the_contours_that_pydicom_gives(
    written, tmp_path, syntax, undefined, monkeypatch
):
    path = saved(written, tmp_path / "rs.dcm", syntax, undefined)
    taken = []

    def watched(element, nested):
        taken.append(raw_items(element, nested))
        return taken[-1]

    monkeypatch.setattr(module, "raw_items", watched)
    fast = contours(path)
    # Where the lengths of contours are given the bytes are read, else pydicom has the sequence already.
    assert taken and all((found is not None) == (undefined in ((), SEQUENCES[:1])) for found in taken)
    monkeypatch.setattr(module, "raw_items", lambda element, nested: None)
    assert fast == contours(path) and len(fast) > 20
    by_hand = [
        np.array(item.ContourData, float).reshape(-1, 3).tolist()
        for roi in pydicom.dcmread(path).ROIContourSequence
        for item in roi.ContourSequence
    ]
    assert [points for *_, points in fast] == by_hand


def test_items_that_do_not_end_in_their_place_are_left_to_pydicom(written):
    element = pydicom.dcmread(written).ROIContourSequence[0].get_item(SEQUENCES[1])
    assert raw_items(element, SEQUENCES[2])
    for spoilt in (
        element.value[:-2],
        element.value + b"\0\0",
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + element.value,
    ):
        assert raw_items(element._replace(value=spoilt), SEQUENCES[2]) is None
    assert raw_items(None, SEQUENCES[2]) is None
