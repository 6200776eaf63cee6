"""Patients told apart, though anonymisers give them one PatientID or none; names never stand in a message."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from ct_files import SHAPE, change, ramp_hu, refusal, stack

from medseg.dicom import ALLOWABLE, read_rtstruct, read_series, write_rtstruct, write_seg
from medseg.dicom.patient import differing_field, name_words
from medseg.dicom.seg.read import read_seg
from medseg.errors import GeometryError, MedsegWarning
from medseg.phantoms.series import write_series
from medseg.workbench.inspect import inspect

JANE = {"PatientID": "7", "PatientName": "Doe^Jane", "PatientBirthDate": "19500102", "PatientSex": "F"}


@pytest.mark.parametrize(
    "name", ["Doe^Jane", "DOE^JANE^^^", "Doe, Jane M", "Jane Doe", "Doé^Jane", "", "Doe^Jane=王^小"]
)
def test_one_person_may_be_spelled_in_several_ways(name):
    assert differing_field(JANE, {**JANE, "PatientName": name}) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("PatientID", "8"),
        ("PatientName", "Doe^John"),
        ("PatientName", "王^小东"),
        ("PatientBirthDate", "19500103"),
        ("PatientSex", "M"),
    ],
)
def test_any_field_that_both_know_tells_people_apart(field, value):
    assert differing_field(JANE, {**JANE, field: value}) == field
    assert differing_field({**JANE, "PatientID": ""}, {**JANE, field: value}) in (None, field)


def test_a_name_read_in_the_wrong_character_set_is_still_the_same():
    assert name_words("Müller^Ärne") == name_words("Müller^Ärne".encode().decode("latin-1"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("PatientName", "SOMEONE^ELSE"),
        ("PatientName", None),
        ("PatientBirthDate", "19010203"),
        ("PatientSex", "M"),
        ("PatientID", ""),
    ],
)
def test_slices_of_several_patients_under_one_series_are_refused_with_the_field_alone(tmp_path, field, value):
    files = write_series(ramp_hu(), stack(), tmp_path, **JANE)
    change(files[3], **{field: value})
    message = refusal(tmp_path, allow=ALLOWABLE)
    assert f"2 different values of {field}" in message and "several patients" in message
    assert not any(word in message for word in ("Doe", "SOMEONE", "1950", "1901"))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(series of Jane, mask, her structure set, her segmentation)"""
    folder = tmp_path_factory.mktemp("jane")
    write_series(ramp_hu(), stack(), folder / "CT", **JANE)
    series = read_series(folder / "CT")
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:4, 2:7, 3:9] = True
    rs = write_rtstruct({"GTV": mask}, series, folder / "RS.dcm")
    return series, mask, rs, write_seg({"GTV": mask}, series, folder / "SEG.dcm")


@pytest.mark.parametrize(("field", "value"), [("PatientName", "X^Y"), ("PatientBirthDate", "19010203")])
def test_contours_of_the_same_id_and_another_person_are_refused(case, field, value, tmp_path):
    series, mask, rs, seg = case
    for file, read in ((rs, read_rtstruct), (seg, read_seg)):
        dataset = pydicom.dcmread(file)
        setattr(dataset, field, value)
        dataset.save_as(tmp_path / file.name)
        with pytest.raises(GeometryError, match=f"its {field} is not that of the images") as error:
            read(tmp_path / file.name, series)
        assert value not in str(error.value)
    with pytest.raises(GeometryError, match=field):
        write_rtstruct({"PTV": mask}, series, tmp_path / "new.dcm", append_to=tmp_path / rs.name)
    with pytest.warns(MedsegWarning, match=f"accepted patient_details: its {field}"):
        masks = read_rtstruct(tmp_path / rs.name, series, allow=["patient_details"])
    assert np.array_equal(masks["GTV"], mask)


def test_another_id_or_another_name_without_ids_cannot_be_accepted(case, tmp_path):
    series, _, rs, _ = case
    dataset = pydicom.dcmread(rs)
    for field, value in (("PatientID", "8"), ("PatientID", "")):
        setattr(dataset, field, value)
        dataset.PatientName = "X^Y"
        dataset.save_as(tmp_path / "other.dcm")
        with pytest.raises(GeometryError, match="another patient"):
            read_rtstruct(tmp_path / "other.dcm", series, allow=["patient_details"])


@pytest.mark.parametrize("patient_id", ["ANON", ""])
def test_inspect_keeps_people_apart_who_share_an_id_or_have_none(tmp_path, patient_id):
    for number, name in enumerate(("A^A", "B^B")):
        person = {"PatientID": patient_id, "PatientName": name}
        write_series(ramp_hu(), stack(), tmp_path / name, seed=number, **person)
    patients = inspect(tmp_path)["patients"]
    assert [patient["patient_name"] for patient in patients] == ["A^A", "B^B"]
    assert [len(patient["studies"]) for patient in patients] == [1, 1]
