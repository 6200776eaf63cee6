"""Structured reports: judged by dciodvfy, read back by dcmtk's dsrdump and by pydicom alone."""

from __future__ import annotations

import subprocess

import pydicom
import pytest
from chest_files import write_dx

from medseg.dicom.sr import own_code, whole_image, write_sr
from medseg.errors import InputError

MODEL = ("hip_osteoporosis", "0.1.0")


@pytest.fixture
def image(tmp_path):
    return pydicom.dcmread(write_dx(tmp_path / "film.dcm"), stop_before_pixels=True)


def report(image, out, probabilities=None, values=None, intervals=None, **options):
    probabilities = {"osteoporosis": 0.8125} if probabilities is None else probabilities
    group = whole_image([image], probabilities, values or {}, intervals or {}, MODEL)
    return write_sr([group], [image], out, model=MODEL, **options)


def numbers(path):
    """{name: (number, unit)} of every NUM item, with pydicom alone."""
    found = {}

    def walk(item):
        if item.get("ValueType") == "NUM":
            value = item.MeasuredValueSequence[0]
            unit = value.MeasurementUnitsCodeSequence[0].CodeValue
            found[item.ConceptNameCodeSequence[0].CodeMeaning] = (float(value.NumericValue), unit)
        for child in item.get("ContentSequence", ()):
            walk(child)

    walk(pydicom.dcmread(path))
    return found


def test_every_number_is_in_the_report_with_its_name_and_unit(image, tmp_path):
    path = report(
        image,
        tmp_path / "SR.dcm",
        {"no osteoporosis": 0.1875, "osteoporosis": 0.8125},
        {"T-score": (-2.6, "1"), "BMD of the neck": (0.546, "g/cm2")},
        {"osteoporosis": (0.7, 0.9)},
    )
    assert numbers(path) == {
        "Probability of no osteoporosis": (0.1875, "1"),
        "Probability of osteoporosis": (0.8125, "1"),
        "Probability of osteoporosis, lower end": (0.7, "1"),
        "Probability of osteoporosis, upper end": (0.9, "1"),
        "T-score": (-2.6, "1"),
        "BMD of the neck": (0.546, "g/cm2"),
    }


def test_an_independent_reader_and_an_independent_judge_take_it(image, tmp_path, program):
    path = report(image, tmp_path / "SR.dcm", remark="Learned from phantoms.")
    said = subprocess.run(
        [program("dsrdump"), "+Pl", str(path)], capture_output=True, text=True, check=True
    ).stdout
    for words in (
        'Probability of osteoporosis")="0.8125"',
        'Algorithm Name")="hip_osteoporosis"',
        'Algorithm Version")="0.1.0"',
        "Verification Flag   : UNVERIFIED",
        "Completion Flag     : PARTIAL",
        "Not for diagnosis. Research use only, not for clinical use. Learned from phantoms.",
        "(DX image,)",
    ):
        assert words in said
    judged = subprocess.run(
        [program("dciodvfy"), "-new", str(path)], capture_output=True, text=True, check=False
    )
    lines = (judged.stdout + judged.stderr).splitlines()
    assert "ComprehensiveSR" in lines and not [line for line in lines if line.startswith("Error")]


def test_the_report_belongs_to_the_images_patient_and_study_and_names_the_image(image, tmp_path):
    stored = pydicom.dcmread(report(image, tmp_path / "SR.dcm"))
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "StudyDate"):
        assert stored[keyword].value == image[keyword].value
    assert stored.SeriesInstanceUID != image.SeriesInstanceUID
    evidence = stored.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID


def test_a_class_in_another_alphabet_is_kept(image, tmp_path):
    path = report(image, tmp_path / "SR.dcm", {"骨質疏鬆": 0.5})
    assert numbers(path) == {"Probability of 骨質疏鬆": (0.5, "1")}


def test_words_give_one_code_and_other_words_another():
    assert own_code("T-score").value == "T_SCORE"
    long = [own_code(f"Probability of osteoporosis, {end} end").value for end in ("lower", "upper")]
    assert len({*long}) == 2 and all(len(value) == 16 for value in long)
    assert own_code("骨").value != own_code("肺").value
    for words in ("", " ", "x" * 65):
        with pytest.raises(InputError, match="expected 1 to 64 letters"):
            own_code(words)


def test_nothing_is_replaced_unasked_and_a_report_about_nothing_is_refused(image, tmp_path):
    out = report(image, tmp_path / "SR.dcm")
    with pytest.raises(InputError, match="exists and is left as it is"):
        report(image, out)
    assert numbers(report(image, out, {"osteoporosis": 0.25}, overwrite=True)) == {
        "Probability of osteoporosis": (0.25, "1")
    }
    with pytest.raises(InputError, match="0 groups about 1 images"):
        write_sr([], [image], tmp_path / "none.dcm")
