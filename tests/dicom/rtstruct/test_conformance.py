"""Written structure sets as DICOM objects, judged by dciodvfy and by the standard."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pydicom
import pytest
from referees import conformance_errors

from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import MedsegWarning
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series
from medseg.structures.structure import Code, Structure

SHAPE = (30, 48, 56)  # of the images in conftest.py


@pytest.mark.parametrize("holes", ["keyhole", "nested"])
def test_dciodvfy_finds_no_error(holes, masks, series, program, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        everything = {**masks, "Lung_L": masks["L"], "Empty": np.zeros(SHAPE, bool), "PTV_High": masks["GTV"]}
        out = write_rtstruct(everything, series, tmp_path / "rs.dcm", holes=holes, model=("mm_gtv", "1.2"))
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


def test_a_name_that_the_images_character_set_cannot_hold_turns_the_set_to_utf_8(tmp_path):
    phantom = chiral_phantom()
    words = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Äneas^Rüdiger"}
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", **words)
    series = read_series(tmp_path / "ct")
    out = write_rtstruct({"肺": phantom.masks["Marker"]}, series, tmp_path / "rs.dcm")
    dataset = pydicom.dcmread(out)
    assert (dataset.SpecificCharacterSet, str(dataset.PatientName)) == ("ISO_IR 192", "Äneas^Rüdiger")
    assert "Äneas^Rüdiger".encode() in out.read_bytes()
    assert list(read_rtstruct(out, series)) == ["肺"]
    assert str(series.headers[0].PatientName) == "Äneas^Rüdiger"
    assert series.headers[0].SpecificCharacterSet == "ISO_IR 100"
