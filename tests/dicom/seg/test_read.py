"""DICOM Segmentations read on the slices of a series. Referee: highdicom, which wrote or reads the same
files."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest

from medseg.cases.mask_sources import open_masks
from medseg.dicom import read_series, write_seg
from medseg.dicom.seg.read import read_seg
from medseg.errors import GeometryError, InputError, MedsegWarning, noted_in
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series
from medseg.structures.structure import Structure

OBLIQUE = (0.966, 0.259, 0, -0.259, 0.966, 0)


@pytest.fixture(
    scope="module",
    params=[{}, {"gaps_mm": (2, 2, 5, 5, 5, 2, 2)}, {"orientation": OBLIQUE}],
    ids=["even", "uneven", "oblique"],
)
def case(request, tmp_path_factory):
    """(phantom, series, SEG.dcm with the overlapping structures Body and Corner)."""
    folder = tmp_path_factory.mktemp("case")
    phantom = chiral_phantom(stack_geometry((8, 48, 56), **request.param))
    write_series(phantom.volume_hu, phantom.geometry, folder / "CT")
    series = read_series(folder / "CT")
    masks = {"Body": phantom.volume_hu > -500, "Corner": phantom.volume_hu > -500}
    masks["Corner"][:, 20:], masks["Corner"][3:] = False, False
    return masks, series, write_seg(masks, series, folder / "SEG.dcm")


def test_every_segment_comes_back_on_its_own_slices_though_they_overlap(case):
    masks, series, path = case
    again = read_seg(path, series)
    assert [structure.name for structure in again] == ["Body", "Corner"]
    for structure, mask in again.items():
        assert (mask == masks[structure.name]).all()


def test_highdicom_sees_the_same_voxels(case):
    highdicom = pytest.importorskip("highdicom")
    masks, series, path = case
    if not series.geometry.is_regular:
        pytest.skip("highdicom builds volumes of even slices alone")
    volume = highdicom.seg.segread(path).get_volume(combine_segments=False, segment_numbers=[2]).array[..., 0]
    filled = masks["Corner"].any(axis=(1, 2))
    assert volume.sum() == read_seg(path, series)[Structure("Corner", 2)][filled].sum()


def test_a_label_map_by_highdicom_is_split_into_its_segments_without_background(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    phantom = chiral_phantom(stack_geometry((6, 40, 44)))
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT")
    series = read_series(tmp_path / "CT")
    labels = np.zeros(series.geometry.shape, dtype=np.uint8)
    labels[1:5, 5:15, 5:15], labels[2:4, 20:30, 5:15] = 1, 2
    code = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=code,
            segmented_property_type=code,
            algorithm_type="MANUAL",
        )
        for number, name in ((1, "GTV"), (2, "Node"))
    ]
    highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in series.files],
        pixel_array=labels,
        segmentation_type="LABELMAP",
        segment_descriptions=segments,
        series_instance_uid="1.2.3",
        series_number=1,
        sop_instance_uid="1.2.3.4",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
    ).save_as(tmp_path / "SEG.dcm")
    again = read_seg(tmp_path / "SEG.dcm", series)
    assert [(structure.name, structure.number) for structure in again] == [("GTV", 1), ("Node", 2)]
    for number, mask in enumerate(again.values(), start=1):
        assert (mask == (labels == number)).all()
    shutil.copy(tmp_path / "SEG.dcm", tmp_path / "CT")
    assert read_series(tmp_path / "CT").files == series.files
    assert open_masks(tmp_path / "SEG.dcm", series).names == ("GTV", "Node")


def test_a_segmentation_of_other_images_or_a_moved_frame_is_refused(case, tmp_path):
    _, series, path = case
    dataset = pydicom.dcmread(path)
    dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[0] += 1.25
    dataset.save_as(tmp_path / "moved.dcm")
    with pytest.raises(GeometryError, match="1.25 mm from the nearest slice's grid"):
        read_seg(tmp_path / "moved.dcm", series)
    dataset.PatientID = "SOMEONE ELSE"
    dataset.save_as(tmp_path / "other.dcm")
    with pytest.raises(GeometryError, match="another patient"):
        read_seg(tmp_path / "other.dcm", series)


def test_other_files_are_refused(case, tmp_path):
    _, series, path = case
    with pytest.raises(InputError, match="is no DICOM Segmentation of a known kind"):
        read_seg(series.files[0], series)
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[: path.stat().st_size - 2000])
    with pytest.raises(InputError, match="cut.dcm"):
        read_seg(tmp_path / "cut.dcm", series)


@pytest.mark.parametrize("position", [[np.nan, 0, 0], [0, np.inf, 0]])
def test_a_frame_at_a_position_that_is_no_number_is_refused(case, tmp_path, position):
    _, series, path = case
    dataset = pydicom.dcmread(path)
    dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient = position
    dataset.save_as(tmp_path / "bad.dcm")
    with pytest.raises(GeometryError, match="the place of a frame is not given in numbers"):
        read_seg(tmp_path / "bad.dcm", series)


def test_a_frame_that_names_another_segment_than_its_dimension_index_is_said(case, tmp_path):
    masks, series, path = case
    dataset = pydicom.dcmread(path)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        named = frame.SegmentIdentificationSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        if named.ReferencedSegmentNumber == 2 and np.allclose(position, series.geometry.origins_lps_mm[1]):
            named.ReferencedSegmentNumber = 1
    dataset.save_as(tmp_path / "bad.dcm")
    with pytest.warns(MedsegWarning) as said:
        again = read_seg(tmp_path / "bad.dcm", series)
    words = [str(warning.message).removeprefix(f"{tmp_path / 'bad.dcm'}: ") for warning in said]
    assert words == [
        "2 frames draw slice 2 of segment 'Body'; taken together, but one may belong elsewhere.",
        "frames of one dimension index name several segments [1, 2]; one may belong elsewhere.",
    ]
    assert masks["Corner"][1].any() and not again[Structure("Corner", 2)][1].any()


def test_a_segment_without_what_follows_its_name_is_said(case, tmp_path):
    _, series, path = case
    dataset = pydicom.dcmread(path)
    del dataset.SegmentSequence[1].SegmentAlgorithmType
    dataset.save_as(tmp_path / "bad.dcm")
    with pytest.warns(MedsegWarning, match="segment 2 has no SegmentAlgorithmType; its name may be cut"):
        read_seg(tmp_path / "bad.dcm", series)


def test_nothing_is_said_of_a_sound_segmentation(case):
    _, series, path = case
    notes: list[str] = []
    with noted_in(notes):
        read_seg(path, series)
    assert notes == []
