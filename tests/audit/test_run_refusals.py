"""What an audit refuses, in one line, before anything of the ranking is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from audit.drawing import picture, silent

from medseg.audit.run import AuditRequest, audit
from medseg.cli.main import main
from medseg.errors import BundleError, GeometryError, InputError
from medseg.files import LOCK_PREFIX, held


def refused(radiographs, tmp_path, expected: str, **changes) -> None:
    request = {
        "data_dir": radiographs / "labels",
        "predictions": radiographs / "pred",
        "output_dir": tmp_path / "out",
    }
    with pytest.raises((InputError, GeometryError, BundleError), match=expected):
        audit(AuditRequest(**{**request, **changes}), silent)
    assert not (tmp_path / "out" / "audit.csv").exists() and not (tmp_path / "out" / "audit.html").exists()


def test_two_audits_of_predictions_do_not_write_into_one_folder(radiographs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with held(out / f"{LOCK_PREFIX}run", str(out)):
        refused(radiographs, tmp_path, "being written by another run")
    assert list(out.iterdir()) == []


def test_an_audit_that_is_interrupted_leaves_no_empty_folder(radiographs, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("medseg.audit.run.save_evidence", interrupted)
    request = AuditRequest(radiographs / "labels", tmp_path / "out", predictions=radiographs / "pred")
    with pytest.raises(KeyboardInterrupt):
        audit(request, silent)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_among_the_cases_is_no_case(radiographs, tmp_path):
    shutil.copytree(radiographs / "labels", tmp_path / "labels")
    out = tmp_path / "labels" / "results" / "audit"
    request = AuditRequest(tmp_path / "labels", out, predictions=radiographs / "pred")
    assert audit(request, silent)["cases"] == audit(request, silent)["cases"] == 10


def test_requests_that_make_no_sense(radiographs, tmp_path):
    refused(radiographs, tmp_path, "and not both", bundle="mm_gtv")
    refused(radiographs, tmp_path, "and not both", predictions=None)
    refused(radiographs, tmp_path, "no such file or folder", data_dir=tmp_path / "nowhere")
    refused(radiographs, tmp_path, "nothing is trained", settings={"epochs": 3})
    refused(radiographs, tmp_path, "expected 0 or more, and 0 to 1", least_score=float("nan"))
    refused(radiographs, tmp_path, "expected 0 or more, and 0 to 1", worst=-1)
    refused(radiographs, tmp_path, "seed -1: expected 0 or more", seed=-1)
    refused(radiographs, tmp_path, "holds what is audited", output_dir=radiographs / "labels")
    refused(radiographs, tmp_path, "no case; expected a folder of label masks", data_dir=tmp_path)
    refused(
        radiographs,
        tmp_path,
        "no setting 'epoch'",
        predictions=None,
        bundle="mm_gtv",
        settings={"epoch": 3},
        folds=2,
        datalist=listed(tmp_path),
    )
    refused(
        radiographs,
        tmp_path,
        "set by the audit itself",
        predictions=None,
        bundle="mm_gtv",
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
        ("size", r"has 64 x 81 pixels \(rows x columns\), a label 64 x 80\."),
        ("no predictions", "no folder of predictions for 1 cases, the first c1"),
        ("all empty", "every label of Heart, Lung_L, Lung_R is empty in all 10 cases"),
        ("not a picture", "cannot be read as a picture"),
        ("grey label", r"c1.Heart.png: 3 grey levels; a label has two, and 0 is outside"),
    ],
)
def test_labels_and_predictions_that_do_not_fit(radiographs, tmp_path, change, expected):

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


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(100, "values from 10 to 80; expected a mask or probabilities"), (-1, "values from -0.8")],
)
def test_predictions_that_are_no_probabilities_are_refused(clinic, tmp_path, scale, expected):

    shutil.copytree(clinic / "pred", tmp_path / "pred")
    path = tmp_path / "pred" / "p2" / "Larynx.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj, np.float32) * scale, image.affine), path)
    refused(clinic, tmp_path, expected, data_dir=clinic / "labels", predictions=tmp_path / "pred")


def test_a_prediction_on_another_grid_is_refused(clinic, tmp_path):

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
        "mm_gtv",
        "--data",
        f"{radiographs}",
        "-o",
        f"{tmp_path / 'out'}",
        "--set",
        "epochs",
    ]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "error: 'epochs': expected ID=VALUE, as in min_volume_cc=2.\n"
