"""Contouring within a box or a structure: what lies outside is left alone, and nonsense is refused."""

from __future__ import annotations

import json

import pydicom
import pytest
from chiral_cases import MARKER_CC, chiral_series, contoured

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.errors import InputError


def test_within_a_box_only_what_lies_there_is_contoured(bright_bundle, tmp_path):
    phantom = chiral_series(tmp_path / "CT")
    x, y, z = phantom.points_lps_mm["Marker"]
    half = f"{x},{x + 20},{y - 20},{y + 20},{z - 20},{z + 20}"
    folder = contoured(
        bright_bundle, tmp_path / "CT", tmp_path / "out", within=half, settings={"min_volume_cc": 0.0}
    )
    record = json.loads((folder / "run.json").read_text())
    assert record["options"]["within"] == half
    assert record["structures"][0]["volume_cc"] == pytest.approx(MARKER_CC / 2, rel=0.2)
    assert image_free_of_points_left_of(folder / "RS.dcm", x - 1.0)


def image_free_of_points_left_of(path, x_mm):
    contours = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    return all(min(float(v) for v in contour.ContourData[::3]) >= x_mm for contour in contours)


def test_within_an_roi_of_a_structure_set_beside_the_series(bright_bundle, tmp_path):
    from medseg.dicom import read_series, write_rtstruct

    phantom = chiral_series(tmp_path / "CT")
    series = read_series(tmp_path / "CT")
    region = phantom.masks["Marker"].copy()
    region[:, :, : region.shape[2] // 2] = False
    write_rtstruct({"Region": region, "Elsewhere": phantom.masks["Foot"]}, series, tmp_path / "RS.dcm")
    folder = contoured(
        bright_bundle,
        tmp_path / "CT",
        tmp_path / "out",
        within="RS.dcm:Region",
        settings={"min_volume_cc": 0.0},
    )
    assert json.loads((folder / "run.json").read_text())["structures"][0]["volume_cc"] > 0.5
    empty = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out2", within="RS.dcm:Elsewhere")
    assert json.loads((empty / "run.json").read_text())["structures"][0]["empty"]


@pytest.mark.parametrize(
    ("within", "words"),
    [
        ("900,901,0,1,0,1", "no voxel centre"),
        ("RS.dcm:GTV", "no such structure set"),
    ],
)
def test_a_region_that_makes_no_sense_is_refused(within, words, bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    cohort = segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", within=within))
    case = cohort["cases"][0]
    assert case["status"] == "failed" and case["fault"] == "input"
    assert any(word in case["error"] for word in words.split("|"))
    assert not (tmp_path / "out" / "CT" / "RS.dcm").exists()


@pytest.mark.parametrize(("within", "words"), [("1,2,3", "expected x0,x1"), ("5,1,0,9,0,9", "ascend")])
def test_a_box_that_is_none_is_refused_before_anything_is_read(within, words, bright_bundle, tmp_path):
    with pytest.raises(InputError, match=words):
        Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", within=within)


def test_a_region_drawn_anew_is_contoured_anew(bright_bundle, tmp_path):
    from medseg.dicom import read_series, write_rtstruct

    phantom = chiral_series(tmp_path / "patient" / "CT")
    series = read_series(tmp_path / "patient" / "CT")
    request = Request(
        tmp_path / "patient" / "CT", str(bright_bundle), tmp_path / "out", within="RS.dcm:Region"
    )
    for name in ("Marker", "Foot"):
        (tmp_path / "patient" / "RS.dcm").unlink(missing_ok=True)
        write_rtstruct({"Region": phantom.masks[name]}, series, tmp_path / "patient" / "RS.dcm")
        assert segment(request)["cases"][0]["status"] == "done"
    assert segment(request)["cases"][0]["status"] == "skipped"


def test_an_empty_region_is_not_taken_for_the_whole_image(bright_bundle, tmp_path):
    with pytest.raises(InputError, match="within` is empty"):
        Request(tmp_path, str(bright_bundle), tmp_path / "out", within="")
