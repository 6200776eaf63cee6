"""Cases of a cohort are contoured as `medseg segment` contours them, and once each whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal

import numpy as np
import pytest
import SimpleITK
from chiral_cases import chiral_series
from cohort_runs import done, is_alive, start, wait_until, workers_of

from medseg.bundles.cohort import segment
from medseg.bundles.many.engine import Workers
from medseg.bundles.many.run import run_cohort
from medseg.bundles.many.segment import Segment
from medseg.bundles.request import Request
from medseg.errors import BundleError, InputError


def write_cases(folder, count):
    for number in range(count):
        chiral_series(folder / f"p{number}", seed=number, centre_lps_mm=(number, 0, 0))
    return folder


def masks(out):
    read = SimpleITK.ReadImage
    return {
        path.parent.name: SimpleITK.GetArrayFromImage(read(str(path))) for path in out.glob("*/GTV.nii.gz")
    }


def require_whole(out, count):
    """Every case stands there once with its files, and nothing unfinished does."""
    records = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/run.json")}
    assert set(records) == {f"p{number}" for number in range(count)}
    for name, record in records.items():
        assert record["status"] == "done"
        listed = sorted(row["file"] for row in record["outputs"])
        assert sorted(p.name for p in (out / name).iterdir()) == sorted([*listed, "run.json"])
    assert not list(out.glob(".partial*")) and not list(out.glob(".lock*"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_workers_and_a_killed_run_lose_nothing_do_nothing_twice_and_answer_as_medseg_segment(
    bright_bundle, tmp_path
):
    source, out = write_cases(tmp_path / "in", 5), tmp_path / "out"
    words = [source, "--bundle", bright_bundle, "-o", out, "--format", "nifti"]
    first = start(*words)
    wait_until(lambda: len(done(out)) >= 1)
    (worker,) = workers_of(first)
    os.kill(worker, signal.SIGKILL)
    before = len(done(out))
    wait_until(lambda: len(done(out)) > before)  # another worker has taken over
    (worker,) = workers_of(first)
    first.kill()
    first.communicate()
    wait_until(lambda: not is_alive(worker))  # it does not go on by itself
    finished = done(out)
    assert 2 <= len(finished) < 5
    second = start(*words)
    output, errors = second.communicate(timeout=900)
    assert second.returncode == 0, errors
    assert "5 done" in output and "by an earlier run" in output
    assert {name: done(out)[name] for name in finished} == finished
    require_whole(out, 5)
    segment(Request(source, str(bright_bundle), tmp_path / "one", formats=("nifti",)))
    ours, theirs = masks(out), masks(tmp_path / "one")
    assert sorted(ours) == sorted(theirs) == [f"p{n}" for n in range(5)]
    assert all(ours[name].any() and np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_at_random(bright_bundle, tmp_path):
    source, out = write_cases(tmp_path / "in", 60), tmp_path / "out"
    words = [source, "--bundle", bright_bundle, "-o", out, "--format", "nifti", "--workers", "2"]
    rng, kills, ever = random.Random(0), {"run": 0, "worker": 0}, {}
    while sum(kills.values()) < 20:
        run = start(*words)
        seen = len(done(out))
        wait_until(lambda seen=seen, run=run: len(done(out)) > seen or run.poll() is not None)
        for _ in range(rng.randrange(3)):  # workers, then the run itself
            alive = workers_of(run)
            if alive and sum(kills.values()) < 19:
                os.kill(rng.choice(alive), signal.SIGKILL)
                kills["worker"] += 1
                seen = len(done(out))
                wait_until(lambda seen=seen, run=run: len(done(out)) > seen or run.poll() is not None)
        assert run.poll() is None, "all cases were done before twenty kills"
        left = workers_of(run)
        run.kill()
        run.communicate()
        kills["run"] += 1
        wait_until(lambda left=left: not any(map(is_alive, left)))
        assert {name: time for name, time in done(out).items() if name in ever} == ever  # none done twice
        ever = done(out)
    run = start(*words)
    output, errors = run.communicate(timeout=900)
    print(f"\n{kills}, {len(ever)} cases done before the last run; {output.strip()}")
    assert run.returncode == 0 and "60 done" in output, errors
    assert {name: done(out)[name] for name in ever} == ever
    require_whole(out, 60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_answers_as_medseg_segment_does_and_survives_its_workers(bright_bundle, tmp_path):
    pytest.importorskip("ray")
    from medseg.bundles.many.ray_engine import RayEngine

    source = write_cases(tmp_path / "in", 4)
    request = Request(source, str(bright_bundle), tmp_path / "out", formats=("nifti",))
    killed = []

    def kill_once(progress):
        if not killed and engine[0].pids():
            killed.append(next(iter(engine[0].pids().values())))
            os.kill(killed[0], signal.SIGKILL)

    engine = []

    def start_engine(verb, workers):
        engine.append(RayEngine(verb, workers))
        return engine[0]

    result = run_cohort(Segment(request), Workers(2), tell=kill_once, start=start_engine)
    assert killed and [case["status"] for case in result["cases"]] == ["done"] * 4
    segment(Request(source, str(bright_bundle), tmp_path / "one", formats=("nifti",)))
    ours, theirs = masks(tmp_path / "out"), masks(tmp_path / "one")
    assert len(ours) == 4 and all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_cases_at_an_address_are_fetched_contoured_and_known_again(bright_bundle, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    write_cases(tmp_path / "in", 2)
    address = f"local://{tmp_path / 'in'}"
    assert fsspec.core.url_to_fs(address)
    request = Request(tmp_path / "in", str(bright_bundle), tmp_path / "out", formats=("nifti",))
    verb = Segment(request, address)
    cases, _ = verb.cases(lambda path: None)
    with verb.open() as run:
        records = [run(case.values) for case in cases]
        again = run(cases[0].values)
    assert [record["status"] for record in [*records, again]] == ["done"] * 3
    told = json.loads((tmp_path / "out" / "p0" / "run.json").read_text())
    assert told["address"] == f"local://{tmp_path / 'in' / 'p0'}" and told["seconds"] == records[0]["seconds"]
    segment(request := Request(tmp_path / "in", str(bright_bundle), tmp_path / "one", formats=("nifti",)))
    ours, theirs = masks(tmp_path / "out"), masks(tmp_path / "one")
    assert len(ours) == 2 and all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_what_concerns_the_whole_run_is_refused_before_any_worker_starts(bright_bundle, tmp_path):
    source = write_cases(tmp_path / "in", 1)
    with pytest.raises(BundleError, match="no bundle"):
        run_cohort(Segment(Request(source, "no_such_bundle", tmp_path / "out")), Workers())
    wrong = Request(source, str(bright_bundle), tmp_path / "out", settings={"no_such_setting": 1})
    with pytest.raises((InputError, BundleError), match="no_such_setting"):
        run_cohort(Segment(wrong), Workers())
    with pytest.raises(InputError, match="no .* found"):
        run_cohort(
            Segment(Request(source, str(bright_bundle), tmp_path / "out"), "memory://empty"), Workers()
        )
