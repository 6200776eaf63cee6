"""medseg audit from end to end: PNG, NIfTI and CT + RTSTRUCT with planted errors."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audit.drawing import ellipse, picture, silent

from medseg.audit.run import LEAST_DRAWN, AuditRequest, audit
from medseg.cli.main import main
from medseg.dicom import read_rtstruct, read_series
from medseg.errors import InputError


def rows_of(out: Path) -> dict[tuple[str, str], dict]:
    with (out / "audit.csv").open(encoding="utf-8", newline="") as file:
        return {(row["case"], row["structure"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def audited(radiographs) -> Path:
    out = radiographs / "out"
    assert (
        main(
            [
                "audit",
                "--data",
                f"{radiographs / 'labels'}",
                "--predictions",
                f"{radiographs / 'pred'}",
                "-o",
                f"{out}",
            ]
        )
        == 0
    )
    return out


def test_planted_errors_in_pictures_come_first_with_their_reason_in_pixels(audited):
    rows = rows_of(audited)
    assert len(rows) == 30
    worst = {key for key, row in rows.items() if int(row["rank"]) <= 5}
    assert worst == {("c3", "Heart"), ("c5", "Lung_R"), ("c5", "Lung_L"), ("c7", "Lung_L"), ("c9", "Heart")}
    assert re.fullmatch(r"shifted (8|9|10) px .*up.*", rows["c3", "Heart"]["words"])
    assert rows["c5", "Lung_R"]["words"] == "left and right are swapped: this and Lung_L"
    assert rows["c7", "Lung_L"]["words"].startswith("cropped at its lower side: ")
    assert float(rows["c7", "Lung_L"]["unusual"]) > 2 > float(rows["c0", "Lung_L"]["unusual"])
    assert rows["c9", "Heart"]["reason"] == "empty label" and rows["c9", "Heart"]["unit"] == "px"
    assert all(float(row["score"]) < 0.5 for row in rows.values() if int(row["rank"]) > 5)


def test_the_page_needs_nothing_else_and_draws_every_listed_label(audited):
    text = (audited / "audit.html").read_text(encoding="utf-8")
    assert text.count('class="finding"') == LEAST_DRAWN == 6 and "Research use only" in text
    assert not re.search(r"(?:src|href)=\"(?!#|data:image/png;base64,)", text) and "<script" not in text


def test_json_holds_definitions_reasons_and_every_label(audited):
    content = json.loads((audited / "audit.json").read_text(encoding="utf-8"))
    assert content["labels"] == len(content["findings"]) == 30 and "score" in content["definitions"]
    shift = next(row for row in content["findings"] if (row["case"], row["structure"]) == ("c3", "Heart"))
    assert len(shift["vector"]) == 2 and shift["vector"][0] < 0 and shift["dice_after"] > shift["dice"]


def test_what_people_entered_in_the_worklist_stays(radiographs, audited):
    path = audited / "worklist.csv"
    text = path.read_text(encoding="utf-8")
    assert (
        text.splitlines()[0] == "case,structure,score,reason,status,reviewer,date,comment"
        and text.count(",open,") == 5
    )
    lines = [
        line.replace(",open,,", ",edited,Dr A,2026-11-02") if line.startswith("c3,") else line
        for line in text.splitlines()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    request = AuditRequest(radiographs / "labels", audited, predictions=radiographs / "pred", worst=1)
    audit(request, silent)
    kept = path.read_text(encoding="utf-8")
    assert "edited,Dr A,2026-11-02" in kept and kept.count("\n") <= 3
    before = (audited / "audit.csv").read_bytes()
    path.write_text("case,structure,status\nc3,Heart,perhaps\n", encoding="utf-8")
    with pytest.raises(InputError, match="'perhaps'; expected one of open"):
        audit(replace(request, worst=3), silent)
    assert (audited / "audit.csv").read_bytes() == before
    path.unlink()


def test_the_habit_of_a_group_is_told_apart_from_errors(tmp_path):
    cases, rng = [], np.random.default_rng(1)
    for number in range(16):
        group, grow = ("B", 3) if number < 6 else ("A", 0)
        centre = (30 + rng.integers(-3, 4), 30 + rng.integers(-3, 4))
        picture(ellipse((64, 64), centre, (14 + grow, 14 + grow)), tmp_path / f"c{number}" / "Organ.png")
        picture(
            ellipse((64, 64), centre, (14, 14 + number % 2)), tmp_path / "pred" / f"c{number}" / "Organ.png"
        )
        cases.append({"case_id": f"c{number}", "label": f"c{number}", "annotator": group})
    picture(
        ellipse((64, 64), (30, 40), (17, 17)), tmp_path / "c2" / "Organ.png"
    )  # an error of the one with the habit
    (tmp_path / "list.json").write_text(json.dumps({"training": cases}))
    request = AuditRequest(
        tmp_path,
        tmp_path / "out",
        predictions=tmp_path / "pred",
        datalist=tmp_path / "list.json",
        group="annotator",
    )
    content = audit(request, silent)
    habits = {style["group"]: style for style in content["styles"]}
    assert (
        habits["B"]["consistent"]
        and habits["B"]["bias"] == pytest.approx(3, abs=0.8)
        and not habits["A"]["consistent"]
    )
    assert (content["findings"][0]["case"], content["findings"][0]["reason"]) == ("c2", "shifted")
    others = {row["case"]: row["score"] for row in content["findings"][1:]}
    assert max(others.values()) < 0.5, "cases of the annotator with the habit are no suspects for it"


def test_ct_and_rtstruct_give_millimetres_and_a_set_with_both_contours(clinic):
    out = clinic / "out"
    content = audit(AuditRequest(clinic / "labels", out, predictions=clinic / "pred"), silent)
    first = content["findings"][0]
    assert (first["case"], first["words"], first["unit"]) == ("p4", "shifted 6 mm cranially", "mm")
    assert content["contour_sets"] == {"p4": "rtstruct/p4.dcm"}
    series = read_series(clinic / "labels" / "p4")
    both = read_rtstruct(out / "rtstruct" / "p4.dcm", series)
    own = read_rtstruct(clinic / "labels" / "p4" / "RS.dcm", series)
    assert list(both) == ["Larynx", "Larynx_model"] and (both["Larynx"] == own["Larynx"]).all()
    assert (both["Larynx_model"] == (series.volume() > 0)).mean() > 0.99, (
        "the prediction is back on the CT's own slices"
    )
    import pydicom

    assert pydicom.dcmread(out / "rtstruct" / "p4.dcm").ApprovalStatus == "UNAPPROVED"


def test_a_label_without_a_prediction_file_is_noted_and_not_accused(radiographs, tmp_path):

    shutil.copytree(radiographs / "pred", tmp_path / "pred")
    (tmp_path / "pred" / "c1" / "Heart.png").unlink()
    said: list[str] = []
    content = audit(
        AuditRequest(radiographs / "labels", tmp_path / "out", predictions=tmp_path / "pred"), said.append
    )
    assert said[0] == "note: c1: no prediction of Heart; these labels are not judged."
    assert not [row for row in content["findings"] if (row["case"], row["structure"]) == ("c1", "Heart")]


def test_the_worst_few_are_drawn_though_nothing_is_suspected(radiographs, tmp_path):
    right, out = tmp_path / "right", tmp_path / "out"
    shutil.copytree(radiographs, right, ignore=shutil.ignore_patterns("c3", "c5", "c7", "c9"))
    request = AuditRequest(right / "labels", out, predictions=right / "pred", least_score=1.0, worst=30)
    content = audit(request, report=lambda line: None)
    assert max(row["score"] for row in content["findings"]) < 1.0
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert page.count('class="finding"') == LEAST_DRAWN == 6
    assert "0 labels score 1 or more; the worst few of the others are drawn too" in page
    assert (out / "worklist.csv").read_text().count("\n") == 1
