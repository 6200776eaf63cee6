"""What lies in the output folder already: finished cases, files of other options, and files of others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from chiral_cases import case_at, chiral_series, contoured

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request

ROOT = Path(__file__).resolve().parents[2]


def test_files_exported_anew_are_contoured_anew(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    request = Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out")
    assert segment(request)["cases"][0]["status"] == "done"
    assert segment(request)["cases"][0]["status"] == "skipped"
    chiral_series(tmp_path / "CT", centre_lps_mm=(0, 0, 0))
    assert segment(request)["cases"][0]["status"] == "done"


def test_old_files_do_not_stay_beside_new_ones(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(
        bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("nifti",), settings={"ctv_margin_mm": 5}
    )
    assert {p.name for p in folder.iterdir()} == {"GTV.nii.gz", "CTV.nii.gz", "run.json"}
    contoured(bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("rtstruct",))
    assert {p.name for p in folder.iterdir()} == {"RS.dcm", "run.json"}
    assert not list((tmp_path / "out").glob(".partial*"))


def test_two_patients_whose_folders_are_both_called_ct_do_not_share_an_output_folder(bright_bundle, tmp_path):
    out = tmp_path / "out"
    for seed in (1, 2):
        chiral_series(tmp_path / f"patient_{seed}" / "CT", seed=seed)
    contoured(bright_bundle, tmp_path / "patient_1" / "CT", out)
    before = (out / "CT" / "RS.dcm").read_bytes()
    second = segment(Request(tmp_path / "patient_2" / "CT", str(bright_bundle), out))["cases"][0]
    assert second["status"] == "failed" and "holds the result of" in second["error"]
    assert (out / "CT" / "RS.dcm").read_bytes() == before and case_at(out)["status"] == "done"


def test_a_structure_set_that_medseg_did_not_write_is_never_replaced(bright_bundle, tmp_path):
    chiral_series(tmp_path / "patient" / "CT")
    clinical = tmp_path / "patient" / "CT" / "RS.dcm"
    clinical.write_bytes(b"approved by a physician")
    among = segment(Request(tmp_path / "patient" / "CT", str(bright_bundle), tmp_path / "patient"))["cases"][
        0
    ]
    assert among["status"] == "failed" and "among the images" in among["error"]
    assert clinical.read_bytes() == b"approved by a physician"

    clinical.rename(tmp_path / "patient" / "clinical")
    (tmp_path / "out" / "CT").mkdir(parents=True)
    other = tmp_path / "out" / "CT" / "RS.dcm"
    other.write_bytes(b"somebody's")
    beside = segment(Request(tmp_path / "patient" / "CT", str(bright_bundle), tmp_path / "out"))["cases"][0]
    assert beside["status"] == "failed" and "was not written by medseg" in beside["error"]
    assert other.read_bytes() == b"somebody's"
    assert not (tmp_path / "out" / "CT" / "preview.png").exists()


def test_a_result_that_somebody_edited_is_not_removed_by_a_run_with_other_options(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("nifti",))
    (folder / "GTV.nii.gz").write_bytes(b"corrected by hand")
    request = Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    case = segment(request)["cases"][0]
    assert case["status"] == "failed" and "was changed after medseg wrote it" in case["error"]
    assert (folder / "GTV.nii.gz").read_bytes() == b"corrected by hand"


def test_a_changed_step_of_the_bundle_is_contoured_anew(bright_bundle, tmp_path):
    bundle = tmp_path / "bright"
    shutil.copytree(bright_bundle, bundle)
    chiral_series(tmp_path / "CT")
    contoured(bundle, tmp_path / "CT", tmp_path / "out", formats=("rtstruct",))
    config = bundle / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "min_volume_cc": 50.0}))
    contoured(bundle, tmp_path / "CT", tmp_path / "out", formats=("rtstruct",), trust_bundle=True)
    assert case_at(tmp_path / "out")["structures"][0]["empty"]


def test_results_inside_the_input_folder_are_no_cases_at_the_next_run(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    request = Request(
        tmp_path / "CT", str(bright_bundle), tmp_path / "CT" / "out", formats=("rtstruct", "nifti")
    )
    assert [case["status"] for case in segment(request)["cases"]] == ["done"]
    again = segment(request)
    assert [case["status"] for case in again["cases"]] == ["skipped"]
    assert "NIfTI files that medseg wrote" in again["passed_over"][0]


def test_files_left_by_a_run_killed_half_way_are_replaced_by_the_next(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out")
    record = case_at(tmp_path / "out")
    (folder / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    (folder / "preview.png").unlink()
    contoured(bright_bundle, tmp_path / "CT", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"RS.dcm", "preview.png", "run.json"}


def test_a_result_of_zero_bytes_is_done_again(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out")
    (folder / "RS.dcm").write_bytes(b"")
    case = segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out"))["cases"][0]
    assert case["status"] == "done" and (folder / "RS.dcm").stat().st_size > 1000
    (folder / "preview.png").unlink()
    case = segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out"))["cases"][0]
    assert case["status"] == "done" and (folder / "preview.png").stat().st_size > 0


def test_a_result_that_is_another_one_now_is_neither_skipped_nor_overwritten(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("rtstruct",))
    whole = (folder / "RS.dcm").read_bytes()
    request = Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):  # cut, and of the same size
        (folder / "RS.dcm").write_bytes(damaged)
        case = segment(request)["cases"][0]
        assert case["status"] == "failed" and (folder / "RS.dcm").read_bytes() == damaged
        assert "RS.dcm was changed after medseg wrote it" in case["error"]
    (folder / "RS.dcm").write_bytes(whole)
    assert segment(request)["cases"][0]["status"] == "skipped"


def test_a_link_in_the_place_of_a_result_is_not_replaced(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    (tmp_path / "out" / "CT").mkdir(parents=True)
    (tmp_path / "out" / "CT" / "RS.dcm").symlink_to(tmp_path / "nowhere.dcm")
    request = Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    case = segment(request)["cases"][0]
    assert case["status"] == "failed" and "was not written by medseg" in case["error"]
    assert (tmp_path / "out" / "CT" / "RS.dcm").is_symlink() and not (tmp_path / "nowhere.dcm").exists()


def test_a_finished_cohort_is_recognised_without_torch(bright_bundle, tmp_path):
    for number in range(2):
        chiral_series(tmp_path / "cohort" / f"p{number}", seed=number)
    request = Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    segment(request)
    (tmp_path / "out" / "volumes.csv").unlink()
    script = (
        "import sys; sys.modules['torch'] = sys.modules['monai'] = None\n"
        "from pathlib import Path\n"
        "from medseg.bundles.cohort import segment\n"
        "from medseg.bundles.request import Request\n"
        "source, bundle, out = sys.argv[1:]\n"
        "done = segment(Request(Path(source), bundle, Path(out), formats=('rtstruct',)))\n"
        "print([case['status'] for case in done['cases']])"
    )
    words = [str(tmp_path / "cohort"), str(bright_bundle), str(tmp_path / "out")]
    run = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.stdout.strip() == "['skipped', 'skipped']", run.stderr
    assert (tmp_path / "out" / "volumes.csv").is_file()
    (tmp_path / "out" / "p1" / "RS.dcm").unlink()  # one is to be contoured again
    assert [case["status"] for case in segment(request)["cases"]] == ["skipped", "done"]
