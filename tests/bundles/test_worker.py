"""A worker answers what `medseg segment` answers; killed, cancelled or short of memory it loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pydicom
import pytest
import SimpleITK
from chiral_cases import chiral_series

from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.queue import Queue
from medseg.bundles.request import Request, payload_of, request_of
from medseg.bundles.worker import work
from medseg.errors import BundleError, InputError


def queued(queue, source, bundle, out, **options):
    return queue.submit(payload_of(Request(source, str(bundle), out, **options)))


def worker(url, bundles, *options):
    command = [
        sys.executable,
        "-m",
        "medseg.bundles.worker",
        str(url),
        "--bundles",
        ",".join(map(str, bundles)),
    ]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)


def wait_for(queue, id, *states, seconds=60):
    deadline = time.monotonic() + seconds
    while (job := queue.get(id)).state not in states and time.monotonic() < deadline:
        time.sleep(0.05)
    assert job.state in states, job
    return job


def stopped(process):
    process.terminate()
    _, log = process.communicate(timeout=60)
    return process.returncode, log


class AfterJobs:
    """Says stop as soon as no job waits."""

    def __init__(self, queue):
        self.queue = queue

    def is_set(self):
        return not self.queue.counts()["waiting"]

    def wait(self, timeout):
        time.sleep(timeout)


def answer_of(folder):
    """What a case's result says, without what names a run: times, UIDs, hashes, folders."""
    record = json.loads((folder / "run.json").read_text())
    return {key: record[key] for key in ("status", "bundle", "options", "structures", "input_sha256")}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_worker_process_with_a_shipped_bundle_answers_as_medseg_segment_does(tmp_path):
    chiral_series(tmp_path / "CT")  # no sarcoma, but 105 cc that the network takes for one
    queue = Queue(tmp_path / "jobs.sqlite")
    options = {"formats": ("rtstruct", "nifti"), "allow": ("out_of_distribution",), "engine": "torch"}
    id = queued(queue, tmp_path / "CT", "mm_gtv", tmp_path / "queued", **options)
    process = worker(tmp_path / "jobs.sqlite", ["mm_gtv"])
    direct = segment(Request(tmp_path / "CT", "mm_gtv", tmp_path / "direct", **options))
    job = wait_for(queue, id, "done", "failed", "set aside", seconds=120)
    assert stopped(process)[0] == 0
    assert job.state == "done", job.reason
    (case,) = job.result["cases"]
    assert (case["status"], case["folder"]) == ("done", str(tmp_path / "queued" / "CT"))
    assert direct["cases"][0]["status"] == "done"

    ours, theirs = tmp_path / "queued" / "CT", tmp_path / "direct" / "CT"
    assert answer_of(ours) == answer_of(theirs)
    masks = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(f / "GTV.nii.gz"))) for f in (ours, theirs)]
    assert masks[0].any() and np.array_equal(*masks)
    contours = [pydicom.dcmread(f / "RS.dcm").ROIContourSequence[0].ContourSequence for f in (ours, theirs)]
    assert [list(c.ContourData) for c in contours[0]] == [list(c.ContourData) for c in contours[1]]


def test_a_network_is_loaded_once_for_many_jobs_and_anew_when_its_files_change(
    bright_bundle, tmp_path, monkeypatch
):
    import medseg.bundles.job as job

    loaded, load = [], job.load_network
    monkeypatch.setattr(job, "load_network", lambda *values: loaded.append(1) or load(*values))
    queue = Queue(tmp_path / "jobs.sqlite")
    chiral_series(tmp_path / "CT")
    for number, formats in enumerate((("nifti",), ("rtstruct",), ("nifti",))):
        queued(queue, tmp_path / "CT", bright_bundle, tmp_path / f"out{number}", formats=formats)
    assert work(queue, bundles=[str(bright_bundle)], stop=AfterJobs(queue), poll_s=0.05) == 3
    assert queue.counts()["done"] == 3 and len(loaded) == 1

    networks = job.Networks()
    bundle, load_one = find_bundle(bright_bundle), lambda: loaded.append(1) or object()
    first = networks.get(bundle, "cpu", {}, load_one)
    assert networks.get(bundle, "cpu", {}, load_one) is first
    assert networks.get(bundle, "cpu", {"spacing_mm": [1, 1, 1]}, load_one) is not first
    assert networks.get(bundle, "cuda", {}, load_one) is not first


def test_an_inputs_fault_fails_the_job_and_medsegs_own_sets_it_aside(bright_bundle, tmp_path, monkeypatch):
    chiral_series(tmp_path / "CT")
    (tmp_path / "CT" / "CT_0012.dcm").unlink()
    queue = Queue(tmp_path / "jobs.sqlite")
    hole = queued(queue, tmp_path / "CT", bright_bundle, tmp_path / "out")
    absent = queued(queue, tmp_path / "absent", bright_bundle, tmp_path / "out2")
    mistyped = queue.submit({"bundle": str(bright_bundle), "output_dir": str(tmp_path), "format": ["nifti"]})
    work(queue, bundles=[str(bright_bundle)], stop=AfterJobs(queue), poll_s=0.05)
    reasons = {id: queue.get(id).reason for id in (hole, absent, mistyped)}
    assert {queue.get(id).state for id in reasons} == {"failed"}
    assert "missing" in reasons[hole] and "no such file or folder" in reasons[absent]
    assert "unknown field 'format'" in reasons[mistyped]

    from medseg.bundles.job import Pipeline

    def broken(self, item, stage):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Pipeline, "predict", broken)
    bug = queued(queue, tmp_path / "CT", bright_bundle, tmp_path / "out3", allow=("missing_slice",))
    assert work(queue, bundles=[str(bright_bundle)], stop=AfterJobs(queue), poll_s=0.05) == 3
    assert (queue.get(bug).state, queue.get(bug).reason) == ("set aside", "RuntimeError: a bug")


def test_a_job_of_a_bundle_that_the_operator_did_not_list_is_left_alone(bright_bundle, tmp_path):
    queue = Queue(tmp_path / "jobs.sqlite")
    other = queued(queue, tmp_path / "CT", "mm_gtv", tmp_path / "out")
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    assert work(queue, bundles=[str(bright_bundle)], stop=stop, poll_s=0.05) == 0
    assert queue.get(other).state == "waiting"
    with pytest.raises(BundleError, match="no bundle 'nonsense'"):
        work(queue, bundles=["nonsense"], stop=stop)


SLOW = """
import sys, time, types
from medseg.bundles import worker
# In place of a network: long work in the main thread, in small steps.
def segment(request, report, networks):
    open(request.output_dir, "w").close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.01)
sys.modules["medseg.bundles.cohort"] = types.SimpleNamespace(segment=segment)
sys.modules["medseg.bundles.job"] = types.SimpleNamespace(Networks=dict)  # without torch it begins sooner
sys.exit(worker.main([sys.argv[1], "--bundles", "mm_gtv", "--lease-s", sys.argv[2], "--poll-s", "0.05"]))
"""


def slow_worker(queue, tmp_path, lease_s):
    """(process, job that it has begun and would work on for a minute)."""
    id = queued(queue, tmp_path / "CT", "mm_gtv", tmp_path / "begun")
    command = [sys.executable, "-c", SLOW, str(tmp_path / "jobs.sqlite"), str(lease_s)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert queue.get(id).state == "running"
    return process, id


def test_a_killed_workers_job_waits_again_when_its_lease_has_run_out(tmp_path):
    queue = Queue(tmp_path / "jobs.sqlite")
    process, id = slow_worker(queue, tmp_path, lease_s=1)
    time.sleep(1.5)
    queue.take_back()
    assert queue.get(id).state == "running"  # its heartbeat holds it beyond the lease
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(1.1)
    queue.take_back()
    assert (queue.get(id).state, queue.get(id).attempts) == ("waiting", 1)


def test_sigterm_gives_the_job_back_at_once_and_counts_no_attempt(tmp_path):
    queue = Queue(tmp_path / "jobs.sqlite")
    process, id = slow_worker(queue, tmp_path, lease_s=60)
    assert stopped(process)[0] == 0
    assert (queue.get(id).state, queue.get(id).attempts) == ("waiting", 0)


def test_a_cancelled_job_is_left_within_a_heartbeat_and_the_worker_goes_on(tmp_path):
    queue = Queue(tmp_path / "jobs.sqlite")
    process, id = slow_worker(queue, tmp_path, lease_s=1)
    queue.cancel(id)
    (tmp_path / "begun").unlink()
    deadline = time.monotonic() + 60
    while queue.get(id).lease_until is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    queue.remove(id)  # the worker has let go of it
    following = queued(queue, tmp_path / "CT", "mm_gtv", tmp_path / "begun")
    wait_for(queue, following, "running", seconds=60)
    assert stopped(process)[0] == 0


def test_a_job_that_needs_more_memory_than_allowed_does_not_take_the_host_with_it(tmp_path):
    script = """
from medseg.bundles.worker import limit_memory
limit_memory(2**29)
held = bytearray(2**28)
try:
    bytearray(2**29)
except MemoryError:
    print("refused")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n"


def test_a_request_survives_the_way_through_a_queue(tmp_path):
    request = Request(
        tmp_path,
        find_bundle("mm_gtv"),
        tmp_path / "out",
        formats=("seg",),
        within="0,1,0,1,0,1",
        allow=("missing_slice",),
        settings={"ctv_margin_mm": 5.0},
        series=(("PT", "none"),),
        engine="torch",
        device="cpu",
    )
    payload = payload_of(request)
    back = request_of(json.loads(json.dumps(payload)))
    assert payload["bundle"] == back.bundle == "mm_gtv"
    assert {**vars(back), "bundle": None} == {**vars(request), "bundle": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": "CT"}, "an absolute path"),
        ({"output_dir": None}, "expected text"),
        ({"bundle": 5}, "expected text"),
        ({"trust_bundle": True}, "unknown field 'trust_bundle'"),
        ({"formats": "nifti"}, "expected a list"),
        ({"formats": ["pdf"]}, "format 'pdf'"),
        ({"settings": ["a"]}, "expected a dict"),
        ({"series": [["PT"]]}, "expected pairs of texts"),
        ({"engine": "tpu"}, "engine 'tpu'"),
    ],
)
def test_a_payload_that_cannot_be_meant_is_refused(change, words, tmp_path):
    payload = payload_of(Request(tmp_path, "mm_gtv", tmp_path / "out"))
    with pytest.raises(InputError, match=words):
        request_of({**payload, **change})


def test_the_way_to_a_worker_loads_no_torch():
    script = "import sys\nfor name in ('torch', 'monai'): sys.modules[name] = None\n"
    script += "import medseg.bundles.worker\nfrom medseg.bundles.request import payload_of, request_of"
    subprocess.run([sys.executable, "-c", script], check=True)
