"""A cohort's table and contact sheet: every case with what came out, and nobody else's file is replaced."""

from __future__ import annotations

import base64
import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from medseg.reports.cohort import COLUMNS, write_cohort

LUNG = {"name": "Lung_L", "empty": False, "volume_cc": 1234.5}
HEART = {"name": "Heart", "empty": True, "volume_cc": 0.0}


@pytest.fixture
def records(tmp_path):
    """A case with two structures and a preview, a radiograph without one, and one that failed."""
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((600, 1500, 3), (0, 200, 0), np.uint8)).save(tmp_path / "a" / "preview.png")
    done = {
        "case": "a",
        "status": "done",
        "folder": str(tmp_path / "a"),
        "structures": [LUNG, HEART],
        "outputs": [{"file": "RS.dcm"}, {"file": "preview.png"}],
        "summary": "Lung_L 1234.5 cc, Heart empty",
        "warnings": ["structure Heart is empty; it has no contours."],
    }
    film = {"name": "Lung_R", "empty": False, "area_pixels": 77}
    flat = {"case": "b", "status": "skipped", "folder": str(tmp_path / "b"), "structures": [film]}
    failed = {
        "case": "c<b>",
        "status": "failed",
        "folder": str(tmp_path / "c"),
        "error": "one slice is missing",
    }
    return [done, flat, failed]


def test_the_table_has_a_row_per_structure_and_one_for_a_case_without_any(records, tmp_path):
    assert write_cohort(records, "ct_x 1.0", [], tmp_path) == []
    rows = list(csv.DictReader((tmp_path / "volumes.csv").read_text().splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["case"], row["structure"], row["volume_cc"], row["area_pixels"]) for row in rows] == [
        ("a", "Lung_L", "1234.5", ""),
        ("a", "Heart", "0.0", ""),
        ("b", "Lung_R", "", "77"),
        ("c<b>", "", "", ""),
    ]
    assert [row["error"] for row in rows] == ["", "", "", "one slice is missing"]
    assert [row["empty"] for row in rows] == ["False", "True", "False", ""]


def test_the_page_holds_every_case_and_its_picture_and_needs_no_other_file(records, tmp_path):
    write_cohort(records, "ct_x 1.0", ["d: no series of CT"], tmp_path)
    page = (tmp_path / "cohort.html").read_text()
    assert page.count("<figure") == 3 and "1 done, 1 skipped, 1 failed" in page
    assert "c&lt;b&gt;" in page and "one slice is missing" in page and "d: no series of CT" in page
    pictures = re.findall(r'src="([^"]+)"', page)
    assert len(pictures) == 1 and "<script" not in page
    content = base64.b64decode(pictures[0].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (1000, 400)


def test_a_second_run_replaces_its_own_files_and_nobody_elses(records, tmp_path):
    write_cohort(records, "ct_x 1.0", [], tmp_path)
    assert write_cohort(records[:2], "ct_x 1.0", [], tmp_path) == []
    assert (tmp_path / "cohort.html").read_text().count("<figure") == 2
    (tmp_path / "volumes.csv").write_text("case,dose\n")
    (tmp_path / "cohort.html").write_text("<html>my notes</html>")
    assert len(write_cohort(records, "ct_x 1.0", [], tmp_path)) == 2
    assert (tmp_path / "volumes.csv").read_text() == "case,dose\n"
    assert (tmp_path / "cohort.html").read_text() == "<html>my notes</html>"


def test_boxes_have_a_table_of_findings(tmp_path):
    best = {"class": "nodule", "score": 0.9, "low": [1.0, 2, 3], "high": [4.0, 5, 6], "volume_cc": 0.12}
    flat = {"class": "mass", "score": 0.4, "low": [10, 20], "high": [30, 40]}
    case = {"status": "done", "folder": str(tmp_path)}
    records = [
        {**case, "case": "a", "boxes": {"unit": "LPS mm", "found": [best, {**best, "score": 0.5}]}},
        {**case, "case": "b", "boxes": {"unit": "pixels (row, column)", "found": [flat]}},
        {**case, "case": "c", "boxes": {"unit": "LPS mm", "found": []}},
        {**case, "case": "d", "status": "failed", "error": "no lung"},
    ]
    assert write_cohort(records, "ct_x 1.0", [], tmp_path) == []
    rows = list(csv.DictReader((tmp_path / "findings.csv").read_text().splitlines()))
    assert [(r["case"], r["number"], r["score"], r["low_3"], r["high_1"], r["volume_cc"]) for r in rows] == [
        ("a", "1", "0.9", "3", "4.0", "0.12"),
        ("a", "2", "0.5", "3", "4.0", "0.12"),
        ("b", "1", "0.4", "", "30", ""),
        ("c", "", "", "", "", ""),
        ("d", "", "", "", "", ""),
    ]
    assert [row["unit"] for row in rows] == ["LPS mm", "LPS mm", "pixels (row, column)", "", ""]
    assert rows[4]["error"] == "no lung" and rows[4]["status"] == "failed"
    assert not (tmp_path / "volumes.csv").exists()
    page = (tmp_path / "cohort.html").read_text()
    assert "findings.csv, a row per box" in page and "volumes.csv" not in page


def test_labels_have_a_table_with_a_row_for_each_class_and_value(tmp_path):
    said = {
        "probabilities": {"normal": 0.25, "osteoporosis": 0.75},
        "values": {"T-score": {"value": -2.6, "unit": "1"}},
        "intervals": {"osteoporosis": [0.5, 0.875], "T-score": [-3.0, -2.0]},
    }
    case = {"status": "done", "folder": str(tmp_path)}
    failed = {**case, "case": "b", "status": "failed", "error": "a knee"}
    assert write_cohort([{**case, "case": "a", "labels": said}, failed], "hip 1.0", [], tmp_path) == []
    rows = list(csv.reader((tmp_path / "labels.csv").read_text().splitlines()))
    assert rows == [
        ["case", "status", "label", "probability", "value", "unit", "low", "high", "error"],
        ["a", "done", "normal", "0.25", "", "", "", "", ""],
        ["a", "done", "osteoporosis", "0.75", "", "", "0.5", "0.875", ""],
        ["a", "done", "T-score", "", "-2.6", "1", "-3.0", "-2.0", ""],
        ["b", "failed", "", "", "", "", "", "", "a knee"],
    ]
    assert "labels.csv, a row per class and value" in (tmp_path / "cohort.html").read_text()
    assert not (tmp_path / "volumes.csv").exists() and not (tmp_path / "findings.csv").exists()


def test_of_cases_that_all_failed_the_table_says_why(tmp_path):
    failed = {"status": "failed", "folder": str(tmp_path), "error": "no lung"}
    write_cohort([{**failed, "case": "a"}, {**failed, "case": "b"}], "ct_x 1.0", [], tmp_path)
    rows = list(csv.DictReader((tmp_path / "volumes.csv").read_text().splitlines()))
    assert [(row["case"], row["error"]) for row in rows] == [("a", "no lung"), ("b", "no lung")]
