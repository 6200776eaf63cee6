"""Adding structures to an existing RT Structure Set: what was there stays, byte for byte."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from referees import conformance_errors, raw_contours

from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.phantoms.series import phantom_uid, write_series
from medseg.structures.structure import Structure


@pytest.fixture(scope="module")
def masks(phantom):
    return {"GTV": phantom.masks["Marker"], "L": phantom.masks["L"]}


@pytest.fixture
def existing(masks, series, tmp_path):
    """A set with ROI numbers 3 and 9, its coordinates written in a way of their own, of another type than the
    name says."""
    structures = {Structure("Old_A", 9, (9, 9, 9), "CAVITY"): masks["L"], Structure("Old_B", 3): masks["GTV"]}
    path = write_rtstruct(structures, series, tmp_path / "existing.dcm", label="clinic")
    dataset = pydicom.dcmread(path)
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [f"{float(value):+.5e}" for value in contour.ContourData]
    dataset.ApprovalStatus, dataset.ReviewerName = "APPROVED", "Someone"
    dataset.ReviewDate, dataset.ReviewTime = "20250101", "120000"
    dataset.save_as(path)
    return path


def test_appending_keeps_what_was_there_and_adds_new_numbers(existing, masks, series, program, tmp_path):
    before, old = existing.read_bytes(), pydicom.dcmread(existing)
    out = write_rtstruct(
        {"GTV": masks["GTV"], "Lung_L": masks["L"]}, series, tmp_path / "new.dcm", append_to=existing
    )
    assert existing.read_bytes() == before
    new = pydicom.dcmread(out)
    assert [(row.ROINumber, row.ROIName) for row in new.StructureSetROISequence] == [
        (9, "Old_A"),
        (3, "Old_B"),
        (10, "GTV"),
        (11, "Lung_L"),
    ]
    for sequence in ("StructureSetROISequence", "RTROIObservationsSequence"):
        assert list(new[sequence].value[:2]) == list(old[sequence].value)
    kept, added = raw_contours(out), raw_contours(existing)
    assert {number: kept[number] for number in (9, 3)} == added
    assert kept[9][0].startswith(b"+") or kept[9][0].startswith(b"-")
    assert b"e+" in kept[9][0]
    assert new.SOPInstanceUID != old.SOPInstanceUID
    assert new.PredecessorStructureSetSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert new.ApprovalStatus == "UNAPPROVED" and "ReviewerName" not in new
    assert len(new.ReferencedFrameOfReferenceSequence) == 1
    numbers = [row.ObservationNumber for row in new.RTROIObservationsSequence]
    assert len(set(numbers)) == 4
    assert conformance_errors(program, out) == []


def test_appending_to_an_explicit_vr_file_keeps_the_text_of_its_coordinates(
    existing, masks, series, tmp_path
):
    explicit = tmp_path / "explicit.dcm"
    dataset = pydicom.dcmread(existing)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(explicit)
    assert pydicom.dcmread(explicit).original_encoding == (False, True)
    out = write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "new.dcm", append_to=explicit)
    kept = raw_contours(out)
    assert {number: kept[number] for number in (9, 3)} == raw_contours(existing)


def test_an_approved_set_is_never_overwritten(existing, masks, series):
    before = existing.read_bytes()
    for append_to in (None, existing):
        with pytest.raises(StructureError, match="APPROVED"):
            write_rtstruct({"GTV": masks["GTV"]}, series, existing, append_to=append_to)
    assert existing.read_bytes() == before


def test_appending_refuses_names_and_numbers_that_are_taken(existing, masks, series, tmp_path):
    with pytest.raises(StructureError, match="'Old_A' and 'OLD_A'"):
        write_rtstruct({"OLD_A": masks["GTV"]}, series, tmp_path / "new.dcm", append_to=existing)
    with pytest.raises(StructureError, match="number 9 is used twice"):
        write_rtstruct({Structure("GTV", 9): masks["GTV"]}, series, tmp_path / "new.dcm", append_to=existing)


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("PatientID", "SOMEONE-ELSE", "another patient"),
        ("StudyInstanceUID", "1.2.3", "study 1.2.3"),
        ("FrameOfReferenceUID", phantom_uid("another frame"), "Frame of Reference"),
    ],
)
def test_appending_refuses_another_patient_study_or_frame(
    keyword, value, words, existing, masks, phantom, tmp_path
):
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", **{keyword: value})
    with pytest.raises(GeometryError, match=words):
        write_rtstruct(
            {"GTV": masks["GTV"]}, read_series(tmp_path / "ct"), tmp_path / "new.dcm", append_to=existing
        )
    assert not (tmp_path / "new.dcm").exists()


def test_appending_to_something_else_is_refused(folder, masks, series, tmp_path):
    with pytest.raises(InputError, match="modality CT"):
        write_rtstruct(
            {"GTV": masks["GTV"]}, series, tmp_path / "new.dcm", append_to=sorted(folder.iterdir())[0]
        )
    with pytest.raises(InputError, match="no such file"):
        write_rtstruct(
            {"GTV": masks["GTV"]}, series, tmp_path / "new.dcm", append_to=tmp_path / "missing.dcm"
        )


def test_appending_to_a_clinical_set_keeps_all_its_bytes(shared_data, tmp_path):
    case = shared_data / "rt" / "lung1_001"
    series = read_series(case / "CT")
    mask = np.zeros(series.geometry.shape, dtype=bool)
    mask[60:70, 200:220, 200:220] = True
    out = write_rtstruct({"Test_New": mask}, series, tmp_path / "new.dcm", append_to=case / "RTSTRUCT.dcm")
    before, after = raw_contours(case / "RTSTRUCT.dcm"), raw_contours(out)
    assert {number: after[number] for number in before} == before
    old, new = pydicom.dcmread(case / "RTSTRUCT.dcm"), pydicom.dcmread(out)
    assert [row.ROIName for row in new.StructureSetROISequence] == [
        *(row.ROIName for row in old.StructureSetROISequence),
        "Test_New",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        assert np.array_equal(read_rtstruct(out, series)["Test_New"], mask)


def test_names_that_repeat_among_the_kept_structures_do_not_bar_new_ones(existing, masks, series, tmp_path):
    dataset = pydicom.dcmread(existing)
    dataset.StructureSetROISequence[1].ROIName = "old_a"
    dataset.save_as(existing)
    out = write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "new.dcm", append_to=existing)
    assert [row.ROIName for row in pydicom.dcmread(out).StructureSetROISequence] == ["Old_A", "old_a", "GTV"]


def test_names_stored_in_a_set_that_nobody_stated_keep_their_bytes(existing, masks, series, tmp_path):
    content, name = (
        existing.read_bytes(),
        "Größ".encode(),
    )  # UTF-8 without a SpecificCharacterSet, as some writers leave it
    assert len(name) == 6 and content.count(b"Old_B ") == 1
    existing.write_bytes(content.replace(b"Old_B ", name))
    made = Structure("GTV", generation_description="grown from Größ")
    out = write_rtstruct({made: masks["GTV"]}, series, tmp_path / "new.dcm", append_to=existing)
    assert name in out.read_bytes() and list(read_rtstruct(out, series)) == ["Old_A", "Größ", "GTV"]
    assert pydicom.dcmread(out).StructureSetROISequence[2].ROIGenerationDescription == "grown from Gr??"
    utf8 = write_rtstruct({"Über": masks["GTV"]}, series, tmp_path / "utf8.dcm", append_to=existing)
    assert name in utf8.read_bytes() and pydicom.dcmread(utf8).SpecificCharacterSet == "ISO_IR 192"
    assert list(read_rtstruct(utf8, series)) == ["Old_A", "Größ", "Über"]


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 144", None])
def test_a_name_of_another_alphabet_is_added_and_the_kept_ones_say_the_same(
    charset, existing, masks, series, tmp_path
):
    kept = {"ISO_IR 100": "Größe", "ISO_IR 144": "Лёгкое", None: "Größe"}[charset]
    dataset = pydicom.dcmread(existing)
    dataset.SpecificCharacterSet = charset or "ISO_IR 100"
    dataset.StructureSetROISequence[1].ROIName = kept
    if charset is None:  # Latin-1 that nobody stated
        raw = pydicom.DataElement("ROIName", "UN", kept.encode("latin-1"))
        dataset.StructureSetROISequence[1]["ROIName"] = raw
        del dataset.SpecificCharacterSet
    dataset.save_as(existing)
    out = write_rtstruct({"腫瘍": masks["GTV"]}, series, tmp_path / "new.dcm", append_to=existing)
    assert pydicom.dcmread(out).SpecificCharacterSet == "ISO_IR 192"
    assert list(read_rtstruct(out, series)) == ["Old_A", kept, "腫瘍"]
    before, after = raw_contours(existing), raw_contours(out)
    assert {number: after[number] for number in before} == before
