"""medseg audit from end to end: PNG, NIfTI and CT + RTSTRUCT with planted errors, K folds of a bundle, and
refusals."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.audit.evidence import file_stem, load_evidence
from medseg.audit.patients import patient_folds
from medseg.audit.run import AuditRequest, audit
from medseg.audit.worklist import read_worklist
from medseg.cli.main import main
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import BundleError, GeometryError, InputError
from medseg.phantoms.series import stack_geometry, write_series

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "ct_gtv"
TINY = {
    "network_def": {
        "_target_": "medseg.networks.ResUNetSE",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 1,
        "channels": [2, 4],
        "strides": [2],
    },
    "grid_size": [8, 8, 8],
    "spacing_mm": [4.0, 4.0, 4.0],
    "val_margin_mm": 100.0,
    "epochs": 1,
    "device": "cpu",
}


def silent(line: str) -> None:
    """Takes the place of print."""


def ellipse(shape, centre, radii) -> np.ndarray:
    grid = np.indices(shape)
    return sum(((grid[axis] - centre[axis]) / radii[axis]) ** 2 for axis in range(len(shape))) < 1


def picture(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(array, float) * 255).astype(np.uint8)).save(path)


def rows_of(out: Path) -> dict[tuple[str, str], dict]:
    with (out / "audit.csv").open(encoding="utf-8", newline="") as file:
        return {(row["case"], row["structure"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> Path:
    """Ten pictures of two lungs and a heart, as labels/ and pred/; errors in cases 3 (shift), 5 (swap), 7
    (crop) and 9."""
    root, rng = tmp_path_factory.mktemp("png"), np.random.default_rng(0)
    for number in range(10):
        dy, dx = rng.integers(-3, 4, 2)
        right, left = (
            ellipse((64, 80), (30 + dy, 22 + dx), (18, 10)),
            ellipse((64, 80), (30 + dy, 56 + dx), (18, 10)),
        )
        heart = ellipse((64, 80), (44 + dy, 40 + dx), (10, 9))
        own = {"Lung_R": right, "Lung_L": left, "Heart": heart}
        for name, mask in own.items():
            picture(
                np.roll(mask, rng.integers(-1, 2, 2), (0, 1)), root / "pred" / f"c{number}" / f"{name}.png"
            )
        if number == 3:
            own["Heart"] = np.roll(heart, -9, 0)
        if number == 5:
            own["Lung_R"], own["Lung_L"] = left, right
        if number == 7:
            own["Lung_L"] = left & (np.indices(left.shape)[0] < 36 + dy)
        if number == 9:
            own["Heart"] = heart & False
        for name, mask in own.items():
            picture(mask, root / "labels" / f"c{number}" / f"{name}.png")
        picture(0.5 - 0.3 * (right | left), root / "labels" / f"c{number}" / "image.png")
    return root


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
    assert rows["c7", "Lung_L"]["words"].startswith("cropped at its lower side: ends 1")
    assert rows["c9", "Heart"]["reason"] == "empty label" and rows["c9", "Heart"]["unit"] == "px"
    assert all(float(row["score"]) < 0.5 for row in rows.values() if int(row["rank"]) > 5)


def test_the_page_needs_nothing_else_and_draws_every_listed_label(audited):
    text = (audited / "audit.html").read_text(encoding="utf-8")
    assert text.count('class="finding"') == 5 and "Research use only" in text
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


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_worklist_is_read_as_spreadsheets_write_it(tmp_path, separator):
    rows = ["case,structure,status,reviewer", "c3,Heart, Accepted ,Dr A", ",,,", "'-1,Lung_L,open,"]
    (tmp_path / "list.csv").write_text("\r\n".join(rows).replace(",", separator), encoding="utf-8-sig")
    found = read_worklist(tmp_path / "list.csv")
    assert {key: row["status"] for key, row in found.items()} == {
        ("c3", "Heart"): "accepted",
        ("-1", "Lung_L"): "open",
    }
    assert found["c3", "Heart"]["reviewer"] == "Dr A"


def test_a_worklist_with_a_row_twice_or_other_columns_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("case,structure,status\nc1,Heart,accepted\nc1,Heart,rejected\n")
    with pytest.raises(InputError, match="line 3: c1 Heart is there twice"):
        read_worklist(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("case,organ\nc1,Heart\n")
    with pytest.raises(InputError, match=r"expected the columns case, .*; it has case, organ"):
        read_worklist(tmp_path / "list.csv")


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


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    """Seven CTs, each with its structure set in labels/<case>/, and probabilities as NIfTI in pred/<case>/;
    p4 shifted."""
    root = tmp_path_factory.mktemp("clinic")
    geometry = stack_geometry((12, 32, 30), gaps_mm=3.0, pixel_spacing_mm=(2.0, 2.0))
    for number in range(7):
        folder = root / "labels" / f"p{number}"
        prediction = ellipse(geometry.shape, (6, 15 + number % 2, 14), (4, 8, 7))
        label = np.roll(prediction, (2 if number == 4 else 0, number % 3 - 1), (0, 2))
        write_series(np.where(prediction, 60, -80), geometry, folder, seed=number)
        series = read_series(folder)
        write_rtstruct({"Larynx": label}, series, folder / "RS.dcm")
        out = root / "pred" / f"p{number}" / "Larynx.nii.gz"
        out.parent.mkdir(parents=True)
        affine = series.geometry.affine_ras
        smooth = np.where(prediction, 0.8, 0.1).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(smooth.transpose(2, 1, 0), affine), out)
    return root


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


def test_cases_go_to_folds_by_patient():
    cases = [{"case_id": f"c{n}", "patient_id": f"p{n // 3}"} for n in range(15)]
    folds = patient_folds(cases, 3, seed=1)
    assert sorted(set(folds)) == [0, 1, 2] and max(map(folds.count, folds)) == 6
    assert all(len({folds[n] for n in range(15) if n // 3 == patient}) == 1 for patient in range(5))
    assert folds == patient_folds(cases, 3, seed=1) != patient_folds(cases, 3, seed=2)
    for wrong in (1, 6):
        with pytest.raises(InputError, match="folds of 5 patients"):
            patient_folds(cases, wrong)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    """Six volumes of noise with a brighter box that is the label."""
    folder, rng, entries = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0), []
    for number in range(6):
        label = np.zeros((18, 20, 16), np.uint8)
        label[6 : 10 + number % 3, 7:12, 5:11] = 1
        image = (rng.normal(0, 60, label.shape) + 150 * label).astype(np.int16)
        for name, array in (("ct", image), ("gtv", label)):
            nibabel.save(
                nibabel.Nifti1Image(array, np.diag([-4.0, -4.0, 4.0, 1.0])),
                folder / f"{number}_{name}.nii.gz",
            )
        entries.append(
            {"image": f"{number}_ct.nii.gz", "label": f"{number}_gtv.nii.gz", "case_id": f"study/{number}"}
        )
    (folder / "datalist.json").write_text(json.dumps({"training": entries}))
    return folder


def test_folds_are_trained_once_and_every_label_is_predicted_by_a_network_that_never_saw_it(volumes):
    said, out = [], volumes / "out"
    request = AuditRequest(
        volumes, out, bundle=str(BUNDLE), datalist=volumes / "datalist.json", folds=2, settings=TINY
    )
    content = audit(request, said.append)
    assert content["labels"] == 6 and said == [
        "fold_1: epoch 1 of 1",
        "fold_1: 3 cases predicted",
        "fold_2: epoch 1 of 1",
        "fold_2: 3 cases predicted",
        *said[4:],
    ]
    for number in (1, 2):
        listed = json.loads((out / "folds" / f"fold_{number}" / "datalist.json").read_text())
        held_out = {case["case_id"] for case in listed["validation"]}
        assert len(held_out) == 3 and not held_out & {case["case_id"] for case in listed["training"]}
        assert {load_evidence(out / "cases" / f"{file_stem(case)}.npz").fold for case in held_out} == {
            number - 1
        }
    kept = (out / "folds" / "fold_1" / "last.pt").stat().st_mtime_ns
    said.clear()
    assert audit(request, said.append)["findings"] == content["findings"]
    assert said[:2] == ["fold_1: done before", "fold_2: done before"]
    assert (out / "folds" / "fold_1" / "last.pt").stat().st_mtime_ns == kept
    other = AuditRequest(
        volumes, out, bundle=str(BUNDLE), datalist=volumes / "datalist.json", folds=3, settings=TINY
    )
    with pytest.raises(BundleError, match="trained with other data, labels or settings"):
        audit(other, silent)


def test_the_bundles_own_weights_predict_new_cases_and_no_case_they_learned_from(volumes, bright_bundle):
    settings = {"device": "cpu", "val_margin_mm": 100.0}
    request = AuditRequest(
        volumes,
        volumes / "weights",
        str(bright_bundle),
        None,
        volumes / "datalist.json",
        0,
        settings=settings,
    )
    assert audit(request, silent)["labels"] == 6
    own = json.loads((volumes / "datalist.json").read_text())
    seen = json.loads((bright_bundle / "configs" / "datalist.json").read_text())["training"][0]["case_id"]
    own["training"][0] |= {"case_id": "new name", "patient_id": seen}
    (volumes / "patient.json").write_text(json.dumps(own))
    with pytest.raises(BundleError, match="learned from 1 of these cases, the first new name"):
        audit(
            AuditRequest(volumes, volumes / "seen", str(bright_bundle), None, volumes / "patient.json", 0),
            silent,
        )
    own["training"][0]["case_id"] = seen
    (volumes / "seen.json").write_text(json.dumps(own))
    with pytest.raises(BundleError, match=f"learned from 1 of these cases, the first {seen}"):
        audit(
            AuditRequest(volumes, volumes / "seen", str(bright_bundle), None, volumes / "seen.json", 0),
            silent,
        )


# ---- what is refused, in one line --------------------------------------------------------------------------


def refused(radiographs, tmp_path, expected: str, **changes) -> None:
    request = {
        "data_dir": radiographs / "labels",
        "predictions": radiographs / "pred",
        "output_dir": tmp_path / "out",
    }
    with pytest.raises((InputError, GeometryError, BundleError), match=expected):
        audit(AuditRequest(**{**request, **changes}), silent)
    assert not (tmp_path / "out" / "audit.csv").exists() and not (tmp_path / "out" / "audit.html").exists()


def test_requests_that_make_no_sense(radiographs, tmp_path):
    refused(radiographs, tmp_path, "and not both", bundle="ct_gtv")
    refused(radiographs, tmp_path, "and not both", predictions=None)
    refused(radiographs, tmp_path, "no such file or folder", data_dir=tmp_path / "nowhere")
    refused(radiographs, tmp_path, "nothing is trained", settings={"epochs": 3})
    refused(radiographs, tmp_path, "expected 0 or more, and 0 to 1", least_score=float("nan"))
    refused(radiographs, tmp_path, "expected 0 or more, and 0 to 1", worst=-1)
    refused(radiographs, tmp_path, "holds what is audited", output_dir=radiographs / "labels")
    refused(radiographs, tmp_path, "no case; expected a folder of label masks", data_dir=tmp_path)
    refused(
        radiographs,
        tmp_path,
        "no setting 'epoch'",
        predictions=None,
        bundle="ct_gtv",
        settings={"epoch": 3},
        folds=2,
        datalist=listed(tmp_path),
    )
    refused(
        radiographs,
        tmp_path,
        "set by the audit itself",
        predictions=None,
        bundle="ct_gtv",
        settings={"resume": True},
        folds=2,
        datalist=listed(tmp_path),
    )


def listed(tmp_path: Path) -> Path:
    """A datalist of four cases whose files exist and hold nothing."""
    cases = [{"image": f"{n}.nii.gz", "label": f"{n}.nii.gz", "case_id": f"c{n}"} for n in range(4)]
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"training": cases}))
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("empty folder", "none of Heart, Lung_L, Lung_R is there"),
        ("size", r"has \(64, 81\) pixels .* a label \(64, 80\)"),
        ("no predictions", "no folder of predictions for 1 cases, the first c1"),
        ("all empty", "every label of Heart, Lung_L, Lung_R is empty in all 10 cases"),
        ("not a picture", "cannot be read as a picture"),
        ("grey label", r"c1.Heart.png: 3 grey levels; a label has two, and 0 is outside"),
    ],
)
def test_labels_and_predictions_that_do_not_fit(radiographs, tmp_path, change, expected):
    import shutil

    for part in ("labels", "pred"):
        shutil.copytree(radiographs / part, tmp_path / part)
    if change == "empty folder":
        shutil.rmtree(tmp_path / "labels" / "c1")
        (tmp_path / "labels" / "c1").mkdir()
    if change == "size":
        picture(np.zeros((64, 81)), tmp_path / "pred" / "c1" / "Heart.png")
    if change == "no predictions":
        shutil.rmtree(tmp_path / "pred" / "c1")
    if change == "all empty":
        for path in (tmp_path / "labels").rglob("*.png"):
            picture(np.zeros((64, 80)), path)
    if change == "grey label":
        grey = np.zeros((64, 80))
        grey[10:20], grey[20:30] = 0.5, 1
        picture(grey, tmp_path / "labels" / "c1" / "Heart.png")
    if change == "not a picture":
        (tmp_path / "pred" / "c1" / "Heart.png").write_bytes(b"nothing")
    refused(radiographs, tmp_path, expected, data_dir=tmp_path / "labels", predictions=tmp_path / "pred")


def test_a_label_without_a_prediction_file_is_noted_and_not_accused(radiographs, tmp_path):
    import shutil

    shutil.copytree(radiographs / "pred", tmp_path / "pred")
    (tmp_path / "pred" / "c1" / "Heart.png").unlink()
    said: list[str] = []
    content = audit(
        AuditRequest(radiographs / "labels", tmp_path / "out", predictions=tmp_path / "pred"), said.append
    )
    assert said[0] == "note: c1: no prediction of Heart; these labels are not judged."
    assert not [row for row in content["findings"] if (row["case"], row["structure"]) == ("c1", "Heart")]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(100, "values from 10 to 80; expected a mask or probabilities"), (-1, "values from -0.8")],
)
def test_predictions_that_are_no_probabilities_are_refused(clinic, tmp_path, scale, expected):
    import shutil

    shutil.copytree(clinic / "pred", tmp_path / "pred")
    path = tmp_path / "pred" / "p2" / "Larynx.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj, np.float32) * scale, image.affine), path)
    refused(clinic, tmp_path, expected, data_dir=clinic / "labels", predictions=tmp_path / "pred")


def test_a_prediction_on_another_grid_is_refused(clinic, tmp_path):
    import shutil

    shutil.copytree(clinic / "pred", tmp_path / "pred")
    path = tmp_path / "pred" / "p2" / "Larynx.nii.gz"
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[2, 3] += 3
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), moved), path)
    refused(
        clinic,
        tmp_path,
        r"p2/Larynx.nii.gz does not lie on the image's grid",
        data_dir=clinic / "labels",
        predictions=tmp_path / "pred",
    )


def test_the_command_says_one_line_for_an_unknown_option_value(capsys, radiographs, tmp_path):
    arguments = [
        "audit",
        "ct_gtv",
        "--data",
        f"{radiographs}",
        "-o",
        f"{tmp_path / 'out'}",
        "--set",
        "epochs",
    ]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "error: 'epochs': expected ID=VALUE, as in min_volume_cc=2.\n"
