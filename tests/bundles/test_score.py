"""medseg score: what was written is read back and compared; figures worked out by hand on phantoms."""

from __future__ import annotations

import json
import os
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.bundles.score import ScoreRequest, ellipsoid, region_box, score_structures
from medseg.bundles.score_tables import as_json, in_words
from medseg.cases.pictures import read_bit_field
from medseg.cli.main import main
from medseg.dicom import read_series, write_rtstruct
from medseg.errors import BundleError, InputError
from medseg.phantoms.series import stack_geometry, write_series


def patient(folder, bright, drawn, name="Tumour"):
    """A CT of 12 x 30 x 30 voxels of 2 x 1 x 1 mm, bright in the slices ``bright`` and contoured in
    ``drawn``."""
    geometry = stack_geometry((12, 30, 30), gaps_mm=2.0, pixel_spacing_mm=(1.0, 1.0))
    volume, mask = np.full(geometry.shape, 300.0), np.zeros(geometry.shape, bool)
    volume[bright, 8:20, 8:20] = 900.0
    mask[drawn, 8:20, 8:20] = True
    write_series(volume, geometry, folder / "CT", seed=folder.name)
    write_rtstruct({name: mask}, read_series(folder / "CT"), folder / "RS.dcm")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    patient(folder / "a", slice(3, 9), slice(3, 9))
    patient(folder / "b", slice(3, 9), slice(3, 6))
    return folder


def test_structure_sets_are_scored_through_the_rtstruct_that_was_written(cohort, bright_bundle, tmp_path):
    request = ScoreRequest(
        str(bright_bundle), cohort, tmp_path, truth={"GTV": "Tumour"}, region_margins_mm=(3.0, 3.0)
    )
    scored = score_structures(request)
    a, b = (scored.cases[name]["GTV"] for name in "ab")
    assert a["DSC"] > 0.97 and a["HD95 mm"] <= 1.0
    # Six slices are contoured where three were drawn, within a box that ends 3 mm (one and a half slices)
    # above the drawn ones: one more slice at most. 2 x 3 / (3 + 4) = 0.857.
    assert b["DSC"] == pytest.approx(2 * 3 / (3 + 4), abs=0.03)
    assert a["true"] == pytest.approx(6 * 12 * 12 * 2 / 1000) and scored.failed == {}
    # The ellipsoid in a box fills pi / 6 of it: 2 x 0.52 / 1.52 = 0.69 where the box is the structure's own.
    assert 0.5 < a["ellipsoid DSC"] < 0.85
    assert scored.columns == ("DSC", "sDSC 2 mm", "HD95 mm", "ellipsoid DSC")
    words = in_words(scored)
    assert "| a |" in words and "| GTV | 2 |" in words and "(b)" in words


def test_a_case_without_its_roi_is_reported_and_the_others_are_scored(cohort, bright_bundle, tmp_path):
    shutil.copytree(cohort, tmp_path / "cohort")
    shutil.rmtree(tmp_path / "cohort" / "b")
    patient(tmp_path / "cohort" / "c", slice(3, 9), slice(3, 9), name="Other")
    said = []
    request = ScoreRequest(str(bright_bundle), tmp_path / "cohort", tmp_path / "out", truth={"GTV": "Tumour"})
    scored = score_structures(request, said.append)
    assert list(scored.cases) == ["a"] and "no ROI 'Tumour'; it has Other" in said[0]
    assert json.loads(as_json(scored))["failed"].keys() == {"c"}


def test_the_region_is_the_truth_s_box_moved_out_by_each_side_s_margin():
    geometry = stack_geometry((12, 30, 30), gaps_mm=2.0, pixel_spacing_mm=(1.0, 1.0))
    truth = np.zeros(geometry.shape, bool)
    truth[3:9, 8:20, 10:20] = True
    low, high = region_box(truth, geometry, (5.0, 5.0), np.random.default_rng(0))
    corner = geometry.points_lps_mm(3, np.array([[8, 10]]))[0]
    assert low == pytest.approx(corner - 5) and high - low == pytest.approx([9 + 10, 11 + 10, 10 + 10])
    filled = ellipsoid(np.array([low, high]), 5.0, geometry)
    assert filled.any() and not (filled & ~truth).any()


def test_radiographs_are_scored_in_pixels_and_what_is_missing_with_the_diagonal(tmp_path, shared_data):
    datalist = tmp_path / "list.json"
    label = np.zeros((60, 80), np.uint8)
    label[10:50, 10:30] = 1  # bit 0
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 80)).astype(np.uint8)).save(tmp_path / "data" / "film.png")
    Image.fromarray(label).save(tmp_path / "data" / "label.png")
    case = {
        "case_id": "film",
        "patient_id": "p",
        "image": "film.png",
        "label": "label.png",
        "present": ["Lung_R"],
    }
    datalist.write_text(json.dumps({"test": [case]}))
    request = ScoreRequest("cxr_anatomy", tmp_path / "data", tmp_path / "out", datalist=datalist)
    scored = score_structures(request)
    row = scored.cases["film"]["Lung_R"]
    assert scored.unit == "px" and 0 <= row["DSC"] <= 1 and row["true"] == 800
    assert np.isnan(scored.cases["film"]["Lung_L"]["DSC"])
    if row["contoured"] == 0:
        assert row["HD95 px"] == pytest.approx(100.0)  # 60 x 80: the diagonal


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variant": "unet"}, "`variant` is of the training of other weights"),
        ({"region_margins_mm": (5.0, 20.0)}, "needs the ROI"),
        ({"truth": {"GTV": "x"}, "region_margins_mm": (20.0, 5.0)}, "smallest, largest"),
        ({"seed": -1}, "seed -1: expected 0 or more"),
        ({"tolerances": ()}, "expected one or more"),
        ({"tolerances": (-1.0,)}, "numbers from 0"),
        ({"tolerances": (float("nan"),)}, "numbers from 0"),
        ({"truth": {"GTV": "x"}, "region_margins_mm": (0.0, float("inf"))}, "smallest, largest"),
    ],
)
def test_requests_that_cannot_be_meant_are_refused(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        ScoreRequest("mm_gtv", tmp_path, tmp_path, **changes)


def test_a_section_that_is_not_there_and_files_that_are_missing_are_named(tmp_path):
    with pytest.raises(InputError, match="no cases in the section 'exam'; it has training, validation, test"):
        score_structures(ScoreRequest("ct_head_neck", tmp_path, tmp_path / "out", section="exam"))
    with pytest.raises(InputError, match="the paths of a datalist start from the data folder"):
        score_structures(ScoreRequest("ct_head_neck", tmp_path, tmp_path / "out"))
    with pytest.raises(BundleError, match="name the ROI that is the truth: `truth`"):
        score_structures(ScoreRequest("mm_gtv", tmp_path, tmp_path / "out"))


def test_the_command_writes_both_tables_and_names_options(cohort, bright_bundle, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["score", str(bright_bundle), "--data", str(cohort), "-o", str(out), "--truth", "GTV=Tumour"]
    assert main(words) == 0
    assert "| GTV | 2 |" in capsys.readouterr().out
    assert json.loads((out / "scores.json").read_text())["unit"] == "mm" and (out / "scores.md").is_file()
    assert main([*words, "--variant", "unet"]) == 2
    assert (
        "--variant is of the training of other weights; name them too: --weights" in capsys.readouterr().err
    )


def test_a_structure_that_nobody_drew_is_not_scored_but_counted_when_contoured(
    bright_bundle, every_bundle_trusted, tmp_path
):
    copy = tmp_path / "bundle"
    shutil.copytree(bright_bundle, copy)
    path = copy / "configs" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bits": {"GTV": [0]}}))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    volume = np.full((30, 30, 12), 300, np.int16)
    volume[8:20, 8:20, 3:9] = 900
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 600).astype(np.uint8), affine), tmp_path / "drawn.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros_like(volume, np.uint8), affine), tmp_path / "none.nii.gz")
    cases = [
        {"case_id": "drawn", "image": "ct.nii.gz", "label": "drawn.nii.gz", "present": ["GTV"]},
        {"case_id": "none", "image": "ct.nii.gz", "label": "none.nii.gz", "present": []},
    ]
    (tmp_path / "list.json").write_text(json.dumps({"test": cases}))
    request = ScoreRequest(str(copy), tmp_path, tmp_path / "out", datalist=tmp_path / "list.json")
    scored = score_structures(request)
    # The network's grid of 1.5 mm rounds the corners of the box.
    assert scored.cases["drawn"]["GTV"]["DSC"] > 0.95 and np.isnan(scored.cases["none"]["GTV"]["DSC"])
    assert "| 1 of 1 |" in in_words(scored)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"case_id": "../film"}, r"case_id '\.\./film' cannot name a folder"),
        ({"case_id": ""}, "case_id '' cannot name a folder"),
        ({"case_id": 7}, "case 0 of test has no text under case_id"),
        ({"label": [5]}, r"the label of 'film' is \[5\]; expected a file"),
        ({"label": 5}, "the label of 'film' is 5; expected a file"),
        ({"label": "nowhere.png"}, "1 files of list.json are not there, the first nowhere.png"),
        (None, "no cases in the section 'test'"),
    ],
)
def test_a_case_that_cannot_be_scored_is_refused_before_anything_is_contoured(changes, words, tmp_path):
    for name in ("image.png", "label.png"):
        (tmp_path / name).write_bytes(b"")
    case = {"image": "image.png", "label": "label.png", "case_id": "film"}
    cases = ["film"] if changes is None else [{**case, **changes}]
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"test": cases}))
    with pytest.raises(InputError, match=words):
        score_structures(ScoreRequest("cxr_anatomy", tmp_path, tmp_path / "out", datalist=datalist))
    assert not (tmp_path / "out").exists()


def test_a_label_picture_that_is_none_is_named(tmp_path):
    path = tmp_path / "label.png"
    Image.fromarray(np.full((4, 5), 9, np.uint8)).save(path)
    assert read_bit_field(path, (4, 5)).sum() == 4 * 5 * 9
    with pytest.raises(InputError, match="a label of 4 x 5 on an image of 5 x 4 pixels"):
        read_bit_field(path, (5, 4))
    os.truncate(path, 45)  # within the pixels
    with pytest.raises(InputError, match="label.png: the picture cannot be read"):
        read_bit_field(path, (4, 5))
    Image.new("RGB", (5, 4)).save(path)
    with pytest.raises(InputError, match="mode RGB; expected a label of one whole number per pixel"):
        read_bit_field(path, (4, 5))
