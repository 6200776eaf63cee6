"""Structure sets of an archive are converted, compared and listed as the commands for one do it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK
from chiral_cases import chiral_series

from medseg.bundles.many.datalist import Datalist
from medseg.bundles.many.engine import Workers
from medseg.bundles.many.run import run_cohort
from medseg.bundles.many.sets import Compare, Convert
from medseg.cases.mask_sources import Reference
from medseg.dicom import find_series, read_series, write_rtstruct
from medseg.errors import InputError
from medseg.workbench.clinic_datalist import DatalistRequest, make_datalist
from medseg.workbench.compare import ComparisonRequest, compare
from medseg.workbench.comparison_outputs import record


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """(three patients with a structure set each, others' sets of the first two, moved by a voxel)."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(3):
        own = folder / "in" / f"p{number}"
        phantom = chiral_series(own / "CT", seed=number)
        series = read_series(own / "CT")
        masks = {name: phantom.masks[name] for name in ("L", "Marker")}
        write_rtstruct(masks, series, own / "RS.dcm")
        if number < 2:
            (folder / "other" / f"q{number}").mkdir(parents=True)
            moved = {name: np.roll(mask, 1, axis=2) for name, mask in masks.items()}
            write_rtstruct(moved, series, folder / "other" / f"q{number}" / "RS.dcm")
    (folder / "in" / "p2" / "CT" / "CT_0012.dcm").unlink()
    return folder, phantom


@pytest.fixture(scope="module")
def converted(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "out"
    return out, run_cohort(Convert(archive[0] / "in", out), Workers(1))


def test_images_and_masks_are_written_for_each_and_a_broken_series_fails_alone(converted, archive):
    out, result = converted
    statuses = {case["case"]: case["status"] for case in result["cases"]}
    assert statuses == {"p0_CT": "done", "p1_CT": "done", "p2_CT": "failed"}
    assert sorted(path.name for path in (out / "p0_CT").iterdir()) == ["image.nii.gz", "masks", "run.json"]
    mask = SimpleITK.ReadImage(str(out / "p0_CT" / "masks" / "Marker.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(mask), archive[1].masks["Marker"])
    image = SimpleITK.ReadImage(str(out / "p0_CT" / "image.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), archive[1].volume_hu)
    assert not (out / "p2_CT").exists() and not list(out.glob(".partial*"))


def test_a_folder_that_somebody_else_made_is_left_as_it_is(archive, tmp_path):
    (tmp_path / "out" / "p0_CT").mkdir(parents=True)
    (tmp_path / "out" / "p0_CT" / "mine.txt").write_text("mine")
    result = run_cohort(Convert(archive[0] / "in", tmp_path / "out", format="seg"), Workers(1))
    assert "choose another output folder" in result["cases"][0]["error"]
    assert [path.name for path in (tmp_path / "out" / "p0_CT").iterdir()] == ["mine.txt"]
    assert (tmp_path / "out" / "p1_CT" / "SEG.dcm").is_file()


def test_sets_of_two_folders_are_compared_as_medseg_compare_does(archive, tmp_path):
    folder, out = archive[0], tmp_path / "out"
    result = run_cohort(Compare(folder / "in", folder / "other", out), Workers(1))
    assert [case["case"] for case in result["cases"]] == ["p0_CT", "p1_CT"]
    assert any("p2/CT: a set on one side only" in note for note in result["passed_over"])
    request = ComparisonRequest(
        folder / "in/p0/RS.dcm", folder / "other/q0/RS.dcm", Reference(folder / "in/p0/CT"), pictures=True
    )
    alone = record(compare(request))
    assert json.loads((out / "p0_CT" / "comparison.json").read_text()) == alone
    rows = {row["name"]: row["dsc"] for row in result["cases"][0]["structures"]}
    assert rows == {row["name"]: row["dsc"] for row in alone["structures"]} and 0.7 < rows["Marker"] < 0.95


def test_the_datalist_is_the_one_that_medseg_datalist_makes(archive, tmp_path):
    folder = archive[0]
    (tmp_path / "rois.json").write_text(json.dumps({"Ball": ["Marker"], "L": []}))
    verb = Datalist(folder / "in", tmp_path / "rois.json", tmp_path / "out", validation=0.5)
    result = run_cohort(verb, Workers(1))
    verb.end(result["cases"])
    make_datalist(DatalistRequest(folder / "in", tmp_path / "rois.json", tmp_path / "one.json", 0.5))
    ours = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert ours == json.loads((tmp_path / "one.json").read_text())
    database = (tmp_path / "out" / "cohort.sqlite").read_bytes()
    (files, *_) = find_series(folder / "in").series.values()
    assert files.patient_id and files.patient_id.encode() not in database


def test_what_concerns_all_is_refused_before_any_case(archive, tmp_path):
    with pytest.raises(InputError, match="expected one of nifti, seg"):
        run_cohort(Convert(archive[0] / "in", tmp_path / "out", format="png"), Workers(1))
    with pytest.raises(InputError, match="no series with a structure set"):
        run_cohort(Compare(archive[0] / "in", tmp_path, tmp_path / "out"), Workers(1))
