"""`medseg records`: an archive's headers, and a datalist of pairs, from the command line."""

from __future__ import annotations

import json

import pytest
from chest_files import write_dx

from medseg.cli.main import main

pytest.importorskip("pandas")


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """A folder of three patients' films and their table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    for patient in ("007", "008", "009"):
        write_dx(
            tmp_path / "films" / f"{patient}.dcm",
            PatientID=patient,
            StudyDate="20210301",
            ImageLaterality="L",
        )
    (tmp_path / "dexa.csv").write_text(
        "pid,day,t\n007,2021-03-04,-2.7\n008,2021-03-04,0.1\n009,2019-01-01,0\n"
    )
    return tmp_path


PAIR = ["records", "pair", "headers.csv", "dexa.csv", "-o", "cases.json", "--validation", "0.5"]
COLUMNS = ["--record-columns", "patient=pid,date=day,t_score=t"]


def test_headers_and_then_pairs(clinic, capsys):
    assert main(["records", "headers", "films", "headers.csv"]) == 0
    assert main([*PAIR, *COLUMNS]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "headers.csv: 3 files"
    assert said[1].startswith(
        "cases.json: 2 of 3 images paired; training 1 (1 patients), validation 1 (1 patients)"
    )
    assert said[2] == "left out: 1 images: nearest record too far away in time"
    content = json.loads((clinic / "cases.json").read_text())
    found = {item["image"]: item["label"] for name in ("training", "validation") for item in content[name]}
    assert found == {"007.dcm": 1, "008.dcm": 0}


def test_the_report_as_json_is_nothing_but_json(clinic, capsys):
    assert main(["records", "pair", "films", *PAIR[3:], *COLUMNS, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["paired"]) == (3, 2)


@pytest.mark.parametrize(
    "options, said",
    [
        ([*COLUMNS, "--days", "-1"], "--days -1: expected 0 or more"),
        ([*COLUMNS, "--shift-dates"], "--shift-dates needs --hash-key"),
        ([*COLUMNS, "--hash-key", "dexa.csv", "--reference", "1,0"], "an SD above 0"),
        ([*COLUMNS, "--reference", "0.8;0.1"], "--reference '0.8;0.1'"),
        ([*COLUMNS, "--test-from", "soon"], "--test-from soon: expected a day"),
        (["--record-columns", "patient"], "expected NAME=COLUMN"),
        (["--record-columns", "patient=pid,date=day"], "--record-columns"),
    ],
)
def test_a_wrong_call_ends_in_one_line_and_nothing_written(clinic, capsys, options, said):
    main(["records", "headers", "films", "headers.csv"])
    capsys.readouterr()
    assert main([*PAIR, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert said in error
    assert not (clinic / "cases.json").exists()


def test_a_short_key_is_refused(clinic, capsys):
    (clinic / "key").write_text("secret")
    assert main(["records", "pair", "films", *PAIR[3:], *COLUMNS, "--hash-key", "key"]) == 2
    assert "key holds 6 bytes; expected a secret of 16 or more" in capsys.readouterr().err
