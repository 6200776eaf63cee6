"""Header fields of an archive as a table."""

from __future__ import annotations

import csv

import pytest
from chest_files import write_dx

from medseg.errors import InputError
from medseg.workbench.headers import FIELDS, write_headers


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    (folder / "deep").mkdir(parents=True)
    write_dx(folder / "deep" / "b.dcm", PatientID="007", ImageLaterality="L", StudyDate="20210304")
    write_dx(folder / "a.dcm", PatientID="8", StudyDate="20200101", PatientName="Doe^Jane")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.dcm").write_bytes((folder / "a.dcm").read_bytes())
    return folder


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_dicom_file_is_one_row_with_its_path(archive, tmp_path):
    report = write_headers(archive, tmp_path / "out.csv")
    assert report == {"files": 2, "passed_over": {"no DICOM file, or a damaged one": 1}}
    rows = rows_of(tmp_path / "out.csv")
    assert [row["path"] for row in rows] == ["a.dcm", "deep/b.dcm"]
    assert [row["PatientID"] for row in rows] == ["8", "007"]
    assert rows[1]["ImageLaterality"] == "L" and rows[1]["StudyDate"] == "20210304"
    assert (rows[1]["Rows"], rows[1]["Columns"]) == ("80", "100")


def test_names_are_read_only_when_they_are_asked_for(archive, tmp_path):
    write_headers(archive, tmp_path / "out.csv")
    assert "Doe" not in (tmp_path / "out.csv").read_text()
    assert not {"PatientName", "PatientBirthDate"} & set(FIELDS)
    write_headers(archive, tmp_path / "named.csv", ("PatientName", "PixelSpacing"))
    rows = rows_of(tmp_path / "named.csv")
    assert list(rows[0]) == ["path", "PatientName", "PixelSpacing"]
    assert rows[0]["PatientName"] == "Doe^Jane"


def test_several_values_stand_as_dicom_writes_them(archive, tmp_path):
    write_dx(archive / "a.dcm", PixelSpacing=[0.2, 0.3])
    write_headers(archive, tmp_path / "out.csv", ("PixelSpacing",))
    assert rows_of(tmp_path / "out.csv")[0]["PixelSpacing"] == "0.2\\0.3"


def test_a_patient_number_keeps_its_zeros_in_parquet(archive, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_headers(archive, tmp_path / "out.parquet", ("PatientID",))
    assert parquet.read_table(tmp_path / "out.parquet").to_pydict() == {
        "path": ["a.dcm", "deep/b.dcm"],
        "PatientID": ["8", "007"],
    }


@pytest.mark.parametrize(
    "fields, out, said",
    [
        (("PatientId",), "out.csv", "'PatientId': expected DICOM keywords"),
        (("PatientID", "PatientID"), "out.csv", "name each once"),
        ((), "out.csv", "at least one"),
        (FIELDS, "out.txt", "ends in .csv or .parquet"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_written(archive, tmp_path, fields, out, said):
    with pytest.raises(InputError, match=said):
        write_headers(archive, tmp_path / out, fields)
    assert not (tmp_path / out).exists()


def test_a_folder_without_dicom_says_what_it_holds(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no DICOM file in it .it is empty"):
        write_headers(tmp_path / "in", tmp_path / "out.csv")
    (tmp_path / "in" / "a.txt").write_text("x")
    with pytest.raises(InputError, match="1 no DICOM file, or a damaged one"):
        write_headers(tmp_path / "in", tmp_path / "out.csv")
    with pytest.raises(InputError, match="expected a folder"):
        write_headers(tmp_path / "in" / "a.txt", tmp_path / "out.csv")
