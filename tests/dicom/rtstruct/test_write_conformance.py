"""What else a structure set says beside its contours, judged by dciodvfy and pydicom; and what is refused."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pydicom
import pytest
from referees import conformance_errors

from medseg.dicom import read_rtstruct, read_series, write_rtstruct, write_seg
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series
from medseg.structures.structure import Code, Structure

SHAPE = (30, 48, 56)
"""Of the phantom that conftest.py makes."""


@pytest.mark.parametrize("holes", ["keyhole", "nested"])
def test_dciodvfy_finds_no_error(holes, masks, series, program, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        everything = {**masks, "Lung_L": masks["L"], "Empty": np.zeros(SHAPE, bool), "PTV_High": masks["GTV"]}
        out = write_rtstruct(everything, series, tmp_path / "rs.dcm", holes=holes, model=("ct_gtv", "1.2"))
    assert conformance_errors(program, out) == []


def test_dciodvfy_objects_in_xor_mode_only_to_the_term_that_its_edition_does_not_know(
    masks, series, program, tmp_path
):
    errors = conformance_errors(program, write_rtstruct(masks, series, tmp_path / "rs.dcm", holes="xor"))
    assert errors
    assert all("CLOSEDPLANAR_XOR" in error for error in errors)


def test_a_ct_without_optional_attributes_still_gives_every_type_2_attribute(program, tmp_path):
    phantom = chiral_phantom()
    missing = (
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyID",
        "PatientBirthDate",
        "PatientSex",
        "PositionReferenceIndicator",
        "StudyTime",
    )
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", **dict.fromkeys(missing))
    out = write_rtstruct({"GTV": phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "rs.dcm")
    dataset = pydicom.dcmread(out)
    for keyword in (*missing, "OperatorsName"):
        assert keyword in dataset and not dataset[keyword].value
    assert conformance_errors(program, out) == []


def test_the_file_is_implicit_little_endian_with_short_decimals_and_honest_counts(written):
    dataset = pydicom.dcmread(written)
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    contours = 0
    for row in dataset.ROIContourSequence:
        for contour in row.ContourSequence:
            contours += 1
            texts = contour.get_item("ContourData").value.rstrip(b" ").split(b"\\")
            assert max(map(len, texts)) <= 16
            assert all(re.fullmatch(rb"-?\d+(\.\d{1,3})?", text) for text in texts)
            assert len(texts) == 3 * int(contour.NumberOfContourPoints)
            assert contour.NumberOfContourPoints >= 3
            assert texts[:3] != texts[-3:]
    assert contours > 100


def test_the_set_names_patient_study_frame_maker_and_that_it_is_for_research_only(written, series):
    dataset, image = pydicom.dcmread(written), series.headers[0]
    for keyword in (
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "StudyDate",
        "StudyID",
        "FrameOfReferenceUID",
    ):
        assert dataset[keyword].value == image[keyword].value
    assert dataset.SeriesInstanceUID != image.SeriesInstanceUID
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert (
        "Research use only" in dataset.StructureSetDescription
        and "Research use only" in dataset.SeriesDescription
    )
    assert "thigh 0.1" in dataset.StructureSetDescription and "thigh 0.1" in dataset.SoftwareVersions
    assert "thigh 0.1" in dataset.StructureSetROISequence[0].ROIGenerationDescription
    assert {row.ROIGenerationAlgorithm for row in dataset.StructureSetROISequence} == {"AUTOMATIC"}
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (referred,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert [row.ReferencedSOPInstanceUID for row in referred.ContourImageSequence] == list(
        series.sop_instance_uids
    )


def test_two_files_never_share_a_sop_instance_uid(masks, series, tmp_path):
    one = write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "a.dcm")
    other = write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "b.dcm")
    assert pydicom.dcmread(one).SOPInstanceUID != pydicom.dcmread(other).SOPInstanceUID


def test_numbers_types_colours_and_codes_of_the_structures(masks, series, tmp_path):
    own = Structure("Mass", 7, (1, 2, 3), "AVOIDANCE", Code("4147007", "SCT", "Mass"))
    out = write_rtstruct(
        {"Lung_L": masks["L"], own: masks["GTV"], "CTV_6000": masks["GTV"], "BODY": masks["External"]},
        series,
        tmp_path / "rs.dcm",
    )
    dataset = pydicom.dcmread(out)
    assert [(row.ROINumber, row.ROIName) for row in dataset.StructureSetROISequence] == [
        (8, "Lung_L"),
        (7, "Mass"),
        (9, "CTV_6000"),
        (10, "BODY"),
    ]
    observations = {row.ReferencedROINumber: row for row in dataset.RTROIObservationsSequence}
    types = {number: row.RTROIInterpretedType for number, row in observations.items()}
    assert types == {8: "ORGAN", 7: "AVOIDANCE", 9: "CTV", 10: "EXTERNAL"}
    assert len({row.ObservationNumber for row in observations.values()}) == 4
    assert list(dataset.ROIContourSequence[1].ROIDisplayColor) == [1, 2, 3]
    lung = observations[8].RTROIIdentificationCodeSequence[0]
    assert (lung.CodeValue, lung.CodingSchemeDesignator, lung.CodeMeaning) == ("39607008", "SCT", "Lung")
    assert lung.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert observations[9].RTROIIdentificationCodeSequence[0].CodeValue == "228792002"
    assert "RTROIIdentificationCodeSequence" not in observations[10]


def test_a_regular_stack_says_on_which_grid_the_contours_were_made(written):
    (grid,) = pydicom.dcmread(written).ROIContourSequence[0].SourcePixelPlanesCharacteristicsSequence
    assert [float(mm) for mm in grid.PixelSpacing] == [1.5, 1.25]
    assert float(grid.SpacingBetweenSlices) == 3.0
    assert [float(mm) for mm in grid.ImagePositionPatient] == [-27.375, -55.25, 66.5]


def test_contours_on_frames_of_a_multi_frame_image_name_the_frame(shared_data, tmp_path):
    series = read_series(shared_data / "odd_dicom" / "enhanced_multiframe")
    masks = np.zeros(series.geometry.shape, dtype=bool)
    masks[:, 10:20, 10:20] = True
    dataset = pydicom.dcmread(write_rtstruct({"GTV": masks}, series, tmp_path / "rs.dcm"))
    contours = dataset.ROIContourSequence[0].ContourSequence
    frames = [int(contour.ContourImageSequence[0].ReferencedFrameNumber) for contour in contours]
    assert frames == list(series.frame_numbers) and sorted(frames) == [1, 2]
    referred = (
        dataset.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence[0]
    )
    assert len(referred.ContourImageSequence) == 1


@pytest.mark.parametrize(
    ("charset", "patient", "structure"),
    [
        ("ISO_IR 192", "王^小东", "Tumör"),
        ("ISO_IR 100", "Äneas^Rüdiger", "Größe"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "Lung_L"),
        (None, "PLAIN^NAME", "Größe"),
    ],
)
def test_names_that_are_not_ascii_survive(charset, patient, structure, tmp_path):
    phantom = chiral_phantom()
    write_series(
        phantom.volume_hu,
        phantom.geometry,
        tmp_path / "ct",
        SpecificCharacterSet=charset,
        PatientName=patient,
    )
    out = write_rtstruct(
        {structure: phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "rs.dcm"
    )
    dataset = pydicom.dcmread(out)
    assert str(dataset.PatientName) == patient
    assert dataset.StructureSetROISequence[0].ROIName == structure
    assert list(read_rtstruct(out, read_series(tmp_path / "ct"))) == [structure]


def test_a_name_that_the_images_character_set_cannot_hold_is_refused(tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", SpecificCharacterSet="ISO_IR 100")
    with pytest.raises(StructureError, match="ISO_IR 100"):
        write_rtstruct({"肺": phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "rs.dcm")


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
