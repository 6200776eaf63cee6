"""Each case ends once, whatever becomes of the workers and of the process that hands the cases out."""

from __future__ import annotations

import json
import sqlite3

import pytest
from cohort_runs import Rehearsal, Unready, begun

from medseg.bundles.many.engine import LocalEngine, Workers
from medseg.bundles.many.outputs import table_rows, write_outputs
from medseg.bundles.many.run import DATABASE, Progress, run_cohort
from medseg.errors import InputError, MedsegError
from medseg.files import held


def rehearse(out, *acts, workers=1, **options):
    return run_cohort(Rehearsal(out, acts), Workers(workers, memory_gb=4), **options)


def statuses(result):
    return {case["case"]: case["status"] for case in result["cases"]}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A run in which cases write, fail, break, want too much memory and kill their workers."""
    out = tmp_path_factory.mktemp("mixed") / "out"
    acts = [("a", "write"), ("b", "fail"), ("c", "die"), ("d", "break"), ("e", "die twice"), ("f", "grow")]
    heard = []
    return out, heard, rehearse(out, *acts, workers=2, report=heard.append)


def test_a_case_that_kills_its_worker_three_times_is_set_aside_and_the_others_are_done(mixed):
    out, _, result = mixed
    found = {case["case"]: case for case in result["cases"]}
    assert statuses(result) == dict(
        a="done", b="failed", c="set aside", d="set aside", e="done", f="set aside"
    )
    assert begun(out).count("c") == 3 and "SIGKILL" in found["c"]["error"] and found["c"]["attempts"] == 3
    assert begun(out).count("e") == 3 and begun(out).count("a") == begun(out).count("b") == 1


def test_each_fault_is_told_with_its_reason_once_when_the_case_has_ended(mixed):
    _, heard, result = mixed
    assert sorted(record["case"] for record in heard) == list("abcdef")
    found = {case["case"]: (case.get("fault"), case.get("error")) for case in result["cases"]}
    assert found["b"] == ("input", "a slice is missing.")
    assert found["d"][0] == "medseg" and "ZeroDivisionError: by zero" in found["d"][1]
    assert found["f"][0] == "medseg" and "MemoryError" in found["f"][1]


def test_a_second_run_does_only_what_was_not_done_and_leaves_what_was_set_aside(mixed):
    out = mixed[0]
    acts = [("a", "write"), ("b", "fail"), ("c", "die"), ("e", "die twice"), ("g", "write")]
    before = begun(out)
    result = rehearse(out, *acts)
    assert sorted(begun(out)[len(before) :]) == ["b", "g"]
    assert statuses(result) == dict(a="done", b="failed", c="set aside", e="done", g="done")
    before = begun(out)
    rehearse(out, ("c", "die"), retry=True)
    assert begun(out)[len(before) :] == ["c"] * 3


def test_what_was_removed_or_changed_since_is_done_again(tmp_path):
    out = tmp_path / "out"
    rehearse(out, ("a", "write"), ("b", "write"), ("c", "write"))
    (out / "a" / "run.json").unlink()
    before = begun(out)
    result = rehearse(out, ("a", "write"), ("b", "die twice"), ("c", "write"))
    assert set(begun(out)[len(before) :]) == {"a", "b"} and result["newly_run"] == 2


def test_the_largest_case_goes_first(tmp_path):
    rehearse(tmp_path / "out", *[(name, "write") for name in "abcd"])  # sizes 0 to 3
    assert begun(tmp_path / "out") == list("dcba")


def test_a_run_that_was_killed_leaves_jobs_that_the_next_one_takes_up_without_counting_them(tmp_path):
    out = tmp_path / "out"
    rehearse(out, ("a", "write"))
    with sqlite3.connect(out / DATABASE) as database:  # as a kill leaves it, three times
        database.execute("UPDATE medseg_jobs SET state = 'running', attempts = 3, worker = 'gone 0'")
    (out / "a" / "run.json").unlink()
    result = rehearse(out, ("a", "write"))
    assert statuses(result) == {"a": "done"} and result["cases"][0]["attempts"] == 3


def test_a_folder_that_another_run_has_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out" / ".lock-run", "out"):
        with pytest.raises(InputError, match="another run"):
            rehearse(tmp_path / "out", ("a", "write"))


def test_what_is_wrong_with_all_cases_ends_the_run_with_its_reason(tmp_path):
    with pytest.raises(MedsegError, match="no weights there"):
        run_cohort(Unready(tmp_path / "out", (("a", "write"),)), Workers())
    assert rehearse(tmp_path / "out", ("a", "write"))["cases"][0]["attempts"] == 1


def test_the_table_has_a_row_for_each_case_and_the_record_the_counts(mixed):
    pandas = pytest.importorskip("pandas")
    out, _, result = mixed
    assert write_outputs(result, "rehearsal", out) == []
    table = pandas.read_parquet(out / "cohort.parquet")
    assert table.set_index("case")["status"].to_dict() == statuses(result)
    assert (table.set_index("case")["attempts"] == [1, 1, 3, 3, 3, 3]).all()
    record = json.loads((out / "run.json").read_text())
    assert record["counts"] == {"done": 2, "failed": 1, "set aside": 3} and record["passed_over"] == [
        "a note"
    ]
    page = (out / "cohort.html").read_text()
    assert "a slice is missing." in page and "SIGKILL" in page


def test_the_table_of_a_cohort_of_boxes_and_of_labels_has_a_row_for_each_of_them():
    done = {"status": "done", "attempts": 1, "seconds": 2.0}
    box = {"class": "nodule", "score": 0.9, "low": [1.0, 2.0, 3.0], "high": [4.0, 5.0, 6.0]}
    found = [
        {**done, "case": "a", "boxes": {"unit": "LPS mm", "found": [box, {**box, "score": 0.5}]}},
        {**done, "case": "b", "boxes": {"unit": "LPS mm", "found": []}},
    ]
    rows = list(table_rows(found))
    assert [(r["case"], r["score"], r["high_3"], r["seconds"]) for r in rows] == [
        ("a", 0.9, 6.0, 2.0),
        ("a", 0.5, 6.0, 2.0),
        ("b", None, None, 2.0),
    ]
    (empty,) = table_rows([{**done, "case": "b", "boxes": {"unit": "LPS mm", "found": []}}])
    assert {"class", "score", "unit", "low_1", "high_3"} <= empty.keys(), "tables of runs are read together"
    said = {"probabilities": {"normal": 0.25}, "values": {"T-score": {"value": -2.6, "unit": "1"}}}
    rows = list(table_rows([{**done, "case": "a", "labels": said}]))
    assert [(r["label"], r["probability"], r["value"]) for r in rows] == [
        ("normal", 0.25, None),
        ("T-score", None, -2.6),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"memory_gb": 0},
        {"memory_gb": float("nan")},
        {"gpus_each": -1},
        {"gpus_each": float("nan")},
        {"threads": 0},
    ],
)
def test_workers_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError):
        Workers(**wrong)


def test_the_end_is_reckoned_by_bytes():
    progress = Progress(total=3, total_bytes=40)
    assert progress.remaining_s is None
    progress.began -= 10
    progress.count({"status": "done"}, 20)
    assert progress.remaining_s == pytest.approx(10, rel=0.01)
    assert progress.cases_per_hour == pytest.approx(360, rel=0.01)


def test_an_idle_worker_ends_with_its_engine(tmp_path):
    engine = LocalEngine(Rehearsal(tmp_path, ()), Workers(1))
    while not engine.idle():
        engine.wait(1)
    (process,) = [one.process for one in engine._all.values()]
    engine.close()
    assert process.exitcode == 0
