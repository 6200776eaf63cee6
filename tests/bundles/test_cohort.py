"""Many cases in one run: each keeps its own result, and a fault or a kill costs only the case it meets."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pydicom
import pytest
import SimpleITK
from chiral_cases import chiral_series

from medseg.bundles.cohort import segment
from medseg.bundles.job import case_lock
from medseg.bundles.record import case_line
from medseg.bundles.request import Request
from medseg.files import Lock


def test_one_broken_case_does_not_stop_the_cohort_and_a_rerun_continues(bright_bundle, tmp_path):
    cohort_dir = tmp_path / "cohort"
    chiral_series(cohort_dir / "patient_1" / "CT", seed=1)
    chiral_series(cohort_dir / "patient_2" / "CT", seed=2)
    (cohort_dir / "patient_2" / "CT" / "CT_0012.dcm").unlink()  # a hole in the stack
    chiral_series(cohort_dir / "patient_3" / "deeper" / "CT", seed=3)
    request = Request(cohort_dir, str(bright_bundle), tmp_path / "out")

    statuses = {case["case"]: case["status"] for case in segment(request)["cases"]}
    assert statuses == {"patient_1_CT": "done", "patient_2_CT": "failed", "patient_3_deeper_CT": "done"}
    failed = json.loads((tmp_path / "out" / "patient_2_CT" / "run.json").read_text())
    assert "missing" in failed["error"] and failed["status"] == "failed"
    assert [p.name for p in (tmp_path / "out" / "patient_2_CT").iterdir()] == ["run.json"]
    table = (tmp_path / "out" / "volumes.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in table] == [list(pair) for pair in statuses.items()]
    assert (tmp_path / "out" / "cohort.html").read_text().count("data:image/jpeg") == 2

    statuses = {case["case"]: case["status"] for case in segment(request)["cases"]}
    assert statuses == {"patient_1_CT": "skipped", "patient_2_CT": "failed", "patient_3_deeper_CT": "skipped"}

    accepted = Request(cohort_dir, str(bright_bundle), tmp_path / "out", allow=("missing_slice",))
    assert {case["status"] for case in segment(accepted)["cases"]} == {"done"}
    record = json.loads((tmp_path / "out" / "patient_2_CT" / "run.json").read_text())
    assert any("missing_slice" in warning for warning in record["warnings"])


def test_cases_whose_names_differ_only_in_odd_characters_do_not_replace_each_other(bright_bundle, tmp_path):
    for seed, name in enumerate(("a b", "a_b", "A_B")):
        chiral_series(tmp_path / "cohort" / name, seed=seed)
    cohort = segment(
        Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    )
    assert len({case["folder"] for case in cohort["cases"]}) == 3
    read = {pydicom.dcmread(Path(case["folder"]) / "RS.dcm").PatientID for case in cohort["cases"]}
    assert len(read) == 3


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"source": 5, "outputs": []}',
        '{"source": "x", "outputs": [{}]}',
        '{"source": "x", "outputs": 5}',
    ],
)
def test_a_damaged_run_record_fails_its_case_and_not_the_cohort(text, bright_bundle, tmp_path):
    for seed in (1, 2):
        chiral_series(tmp_path / "cohort" / f"p{seed}", seed=seed)
    (tmp_path / "out" / "p1").mkdir(parents=True)
    (tmp_path / "out" / "p1" / "run.json").write_text(text)
    cases = segment(
        Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    )["cases"]
    assert [(case["status"], case.get("fault")) for case in cases] == [("failed", "input"), ("done", None)]
    assert "move it away" in cases[0]["error"]
    assert (tmp_path / "out" / "p1" / "run.json").read_text() == text


def test_a_cohort_of_series_and_nifti_files_gets_the_formats_that_each_can_have(bright_bundle, tmp_path):
    phantom = chiral_series(tmp_path / "cohort" / "CT")
    image = SimpleITK.GetImageFromArray(phantom.volume_hu)
    SimpleITK.WriteImage(image, str(tmp_path / "cohort" / "flat.nii.gz"))
    cohort = segment(Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out"))
    assert [case["status"] for case in cohort["cases"]] == ["done", "done"]
    assert (tmp_path / "out" / "CT" / "RS.dcm").is_file() and (
        tmp_path / "out" / "flat" / "GTV.nii.gz"
    ).is_file()


def five_cases(folder, faulty=()):
    for number in range(5):
        chiral_series(folder / f"p{number}", seed=number)
        if number in faulty:
            (folder / f"p{number}" / "CT_0012.dcm").unlink()


def test_what_has_ended_stands_in_the_cohorts_record_while_the_others_run(
    bright_bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr("medseg.bundles.cohort.WRITE_EVERY_S", 0.0)
    five_cases(tmp_path / "cohort")
    seen = []

    def look(record):
        file = tmp_path / "out" / "run.json"
        seen.append(json.loads(file.read_text()) if file.exists() else None)

    request = Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("nifti",))
    segment(request, report=look)
    assert seen[0] is None and [len(record["cases"]) for record in seen[1:]] == [1, 2, 3, 4]
    assert {record["state"] for record in seen[1:]} == {"running"}
    last = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(last["cases"]) == 5 and "state" not in last


def test_warnings_of_cases_in_flight_together_stay_with_their_own_case(bright_bundle, tmp_path):
    five_cases(tmp_path / "cohort", faulty=(1, 3))
    request = Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", allow=("missing_slice",))
    cases = segment(request)["cases"]
    assert [case["case"] for case in cases] == [f"p{number}" for number in range(5)]
    warned = [any("missing_slice" in warning for warning in case["warnings"]) for case in cases]
    assert warned == [False, True, False, True, False]


def test_a_case_is_read_while_the_one_before_is_in_the_network_and_written_while_the_next_is(
    bright_bundle, tmp_path
):
    from threading import Event

    from medseg.bundles.job import Pipeline

    five_cases(tmp_path / "cohort")
    begun = {(step, f"p{n}"): Event() for step in ("prepare", "predict", "finish") for n in range(5)}
    ended, original = [], {step: getattr(Pipeline, step) for step in ("prepare", "predict", "finish")}

    def waiting(step, other, distance):
        """The step as it is, but it does not begin before ``other`` of the case ``distance`` places on has
        begun."""

        def run(self, item, stage):
            begun[step, item["case_name"]].set()
            met = begun.get((other, f"p{int(item['case_name'][1:]) + distance}"))
            assert met is None or met.wait(60), f"{step} of {item['case_name']} ran alone"
            result = original[step](self, item, stage)
            ended.append((step, item["case_name"]))
            return result

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "prepare", waiting("prepare", "none", 0))
        patch.setattr(Pipeline, "predict", waiting("predict", "prepare", 1))
        patch.setattr(Pipeline, "finish", waiting("finish", "predict", 1))
        cohort = segment(
            Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
        )
    assert [(case["case"], case["status"]) for case in cohort["cases"]] == [
        (f"p{n}", "done") for n in range(5)
    ]
    for number in range(3):  # and no case is read further ahead than one
        assert ended.index(("predict", f"p{number}")) < ended.index(("prepare", f"p{number + 2}"))


def test_a_disk_that_is_full_for_one_case_does_not_stop_the_cohort_and_a_rerun_finishes(
    bright_bundle, tmp_path
):
    import medseg.bundles.job

    for number in range(3):
        chiral_series(tmp_path / "cohort" / f"p{number}", seed=number)
    publish = medseg.bundles.job.publish

    def full(record, staged, folder):
        if record["case"] == "p1":
            raise OSError(28, "No space left on device", str(folder / "run.json"))
        publish(record, staged, folder)

    request = Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medseg.bundles.job, "publish", full)
        cases = segment(request)["cases"]
    assert [case["status"] for case in cases] == ["done", "failed", "done"]
    assert cases[1]["error"].endswith("run.json: No space left on device")
    assert not (tmp_path / "out" / "p1").exists() and not list((tmp_path / "out").glob(".partial*"))
    assert [case["status"] for case in segment(request)["cases"]] == ["skipped", "done", "skipped"]


def test_after_ctrl_c_finished_cases_are_whole_and_nothing_else_lies_about(bright_bundle, tmp_path):
    five_cases(tmp_path / "cohort")
    import medseg.bundles.job
    from medseg.bundles.job import Pipeline

    predict, publish = Pipeline.predict, medseg.bundles.job.publish
    seen, second_is_there = [], threading.Event()

    def published(record, staged, folder):
        publish(record, staged, folder)
        if record["case"] == "p1":
            second_is_there.set()

    def interrupted(self, item, stage):
        seen.append(item["case_name"])
        if len(seen) == 3:
            assert second_is_there.wait(60)
            raise KeyboardInterrupt
        return predict(self, item, stage)

    request = Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "predict", interrupted)
        patch.setattr(medseg.bundles.job, "publish", published)
        with pytest.raises(KeyboardInterrupt):
            segment(request)
    left = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*"))
    assert left == ["p0", "p0/RS.dcm", "p0/run.json", "p1", "p1/RS.dcm", "p1/run.json"]
    assert [case["status"] for case in segment(request)["cases"]] == ["skipped"] * 2 + ["done"] * 3


def test_a_case_that_another_run_works_on_is_left_to_it_and_taken_over_when_that_run_is_gone(
    bright_bundle, tmp_path
):
    for number in range(3):
        chiral_series(tmp_path / "cohort" / f"p{number}", seed=number)
    out = tmp_path / "out"
    out.mkdir()
    request = Request(tmp_path / "cohort", str(bright_bundle), out, formats=("rtstruct",))
    other, seen = Lock(case_lock(out, "p1")), []
    assert other.take() is None

    def report(record):
        seen.append((record["case"], record["status"]))
        if record["status"] == "waiting":
            assert f"process {os.getpid()} on" in case_line(record)
            assert not (out / "p1").exists(), "nothing of another run's case is touched"
            other.release()

    expected = [("p0", "done"), ("p2", "done"), ("p1", "waiting"), ("p1", "done")]
    cases = segment(request, report)["cases"]
    assert seen == expected and [case["status"] for case in cases] == ["done"] * 3
    assert [case["case"] for case in cases] == ["p0", "p1", "p2"]
    assert not list(out.glob(".lock*")) and not list(out.glob(".partial*"))

    # Another run that finished the case meanwhile: nothing is done twice, and nobody's case failed.
    seen.clear()
    written = (out / "p1" / "RS.dcm").read_bytes()
    (out / "p1").rename(tmp_path / "by_another_run")
    assert other.take() is None

    def finished_by_the_other(record):
        seen.append((record["case"], record["status"]))
        if record["status"] == "waiting":
            (tmp_path / "by_another_run").rename(out / "p1")
            other.release()

    segment(request, finished_by_the_other)
    assert seen == [("p0", "skipped"), ("p2", "skipped"), ("p1", "waiting"), ("p1", "skipped")]
    assert (out / "p1" / "RS.dcm").read_bytes() == written
