"""Every complete study is answered once; results are sent until they are accepted, for days if need be."""

from __future__ import annotations

import json
import urllib.request

import numpy as np
import pydicom
import pytest
from chest_files import write_dx
from dicom_peers import Store, free_port, node_config, orthanc, small_study
from pynetdicom.sop_class import ComprehensiveSRStorage

from medseg.bundles.job import Networks
from medseg.bundles.queue import Queue
from medseg.bundles.worker import run_job
from medseg.files import write_json
from medseg.phantoms.hip import make_hip
from medseg.phantoms.series import phantom_uid
from medseg.serve.dicom_node.answers import CONTOURED, FAILED, GIVEN_UP, SENT, SUPERSEDED, WAITING
from medseg.serve.dicom_node.config import check_bundles
from medseg.serve.dicom_node.delivery import pause_s
from medseg.serve.dicom_node.dispatch import Dispatcher
from medseg.serve.dicom_node.metrics import serve_metrics
from medseg.serve.dicom_node.report import status, status_lines
from medseg.serve.dicom_node.storage import facts_of, path_of

DAY_S = 86400


class Clock:
    seconds = 1_000_000.0

    def __call__(self):
        return self.seconds


class Node:
    """A node without a network: files are put where the receiver would put them, jobs answered by hand."""

    def __init__(self, folder, **changes):
        self.folder, self.clock = folder, Clock()
        self.config, _ = node_config(folder, listen={"quiet_s": 60}, **changes)
        self.dispatcher = Dispatcher(self.config, self.clock)
        self.queue = Queue(self.config.queue_url, self.clock)
        self.answers = self.dispatcher.answers

    def receive(self, paths):
        for path in paths:
            received = facts_of(path, "CT1")
            kept = path_of(self.config.incoming, received)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(path.read_bytes())
            self.dispatcher.index.add(received, None)

    def later(self, seconds=61.0):
        self.clock.seconds += seconds
        self.dispatcher.step()
        self.dispatcher.deliver()

    def contour(self):
        """What a worker does with the next job, in place of a network: a result that refers to the study."""
        job = self.queue.claim("w", 1e9)
        source = sorted((self.folder / "node" / "work").glob("*/input/*/*.dcm"))[0]
        folder = self.config.work / job.payload["output_dir"].split("/")[-2] / "output" / "case"
        folder.mkdir(parents=True)
        result = pydicom.dcmread(source)
        result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = phantom_uid("result", job.id)
        result.SeriesDescription = "result"
        result.save_as(folder / "RS.dcm")
        (folder / "preview.png").write_bytes(b"no DICOM")
        write_json({"outputs": [{"file": "RS.dcm"}, {"file": "preview.png"}]}, folder / "run.json")
        self.queue.finish(job.id, "w", {"cases": [{"status": "done", "folder": str(folder)}]})
        return job

    def states(self):
        return [answer.state for answer in self.answers.all()]

    def delivery(self):
        (answer,) = self.answers.all(CONTOURED)
        (delivery,) = self.answers.deliveries(answer.work)
        return delivery


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def to_store(port):
    return {
        "targets": {"PACS": {"ae_title": "STORE", "port": port}},
        "rules": [{"bundle": "ct_head_neck", "modality": "CT", "targets": ["PACS"], "priority": 3}],
    }


def test_a_complete_study_becomes_one_job_with_its_own_view_of_the_files(node, tmp_path):
    paths = small_study(tmp_path / "ct", seed=1)
    node.receive(paths)
    node.later(30)
    assert node.queue.jobs() == []
    node.later()
    node.later()
    (job,) = node.queue.jobs()
    assert (job.task, job.owner, job.payload["formats"]) == ("ct_head_neck", "dicom node", ["rtstruct"])
    linked = sorted((tmp_path / "node" / "work").glob("*/input/*/*.dcm"))
    assert {path.stem for path in linked} == {pydicom.dcmread(path).SOPInstanceUID for path in paths}
    assert job.payload["input"] == str(linked[0].parent.parent)
    assert all(path.stat().st_nlink == 2 for path in linked)  # a link, not a copy


def test_a_study_that_no_rule_means_is_complete_and_nothing_else(node, tmp_path):
    node.receive(small_study(tmp_path / "mr", seed=1, modality="MR"))
    node.later()
    assert node.queue.jobs() == [] and node.dispatcher.index.figures()["studies_complete"] == 1


def test_a_dispatcher_killed_between_any_two_steps_makes_no_second_job(node, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    node.receive(small_study(tmp_path / "ct", seed=1))
    for place in ("queue.submit", "answers.begin", "index.complete"):
        with monkeypatch.context() as patched, pytest.raises(Killed):
            name, method = place.split(".")
            patched.setattr(getattr(node.dispatcher, name), method, die)
            node.later()
        node.dispatcher = Dispatcher(node.config, node.clock)
        node.answers = node.dispatcher.answers
    node.later()
    assert len(node.queue.jobs()) == 1 and node.states() == [WAITING]
    assert len(list((tmp_path / "node" / "work").iterdir())) == 1


def test_a_late_slice_takes_the_waiting_job_back_and_makes_one_of_the_whole_study(node, tmp_path):
    paths = small_study(tmp_path / "ct", seed=1)
    node.receive(paths[:3])
    node.later()
    (first,) = node.queue.jobs()
    node.receive(paths[3:])
    node.later()
    assert node.queue.get(first.id).state == "cancelled"
    (second,) = node.queue.jobs(state="waiting")
    assert (
        len(list((tmp_path / "node").glob(f"work/{second.payload['input'].split('/')[-2]}/input/*/*"))) == 4
    )
    assert sorted(node.states()) == [SUPERSEDED, WAITING]


def test_a_late_slice_of_another_series_leaves_the_first_job_alone(node, tmp_path):
    node.receive(small_study(tmp_path / "ct", seed=1))
    node.later()
    node.receive(small_study(tmp_path / "mr", seed=1, modality="MR"))
    node.later()
    assert [job.state for job in node.queue.jobs()] == ["waiting"] and node.states() == [WAITING]


def test_the_result_goes_to_the_rules_target_and_nothing_but_dicom_does(tmp_path):
    with Store() as store:
        node = Node(tmp_path, **to_store(store.port))
        node.receive(small_study(tmp_path / "ct", seed=1))
        node.later()
        job = node.contour()
        assert job.priority == 3
        node.later()
        node.later()
        (received,) = store.received
    assert received.SOPInstanceUID == phantom_uid("result", job.id)
    assert node.states() == [CONTOURED] and node.delivery().state == SENT


def test_a_store_that_is_away_for_three_days_gets_the_result_when_it_is_back(tmp_path):
    port = free_port()
    node = Node(tmp_path, **to_store(port))
    node.receive(small_study(tmp_path / "ct", seed=1))
    node.later()
    node.contour()
    node.later()
    assert (node.delivery().attempts, node.delivery().error) == (1, "no connection")
    node.later(29)
    assert node.delivery().attempts == 1  # not before its pause is over
    for _ in range(4 * 24):
        node.later(900)
    # 30 s to 32 min doubled, then once an hour: 7 in the first hour and a bit, 23 in the rest of the day.
    assert 25 <= node.delivery().attempts <= 31
    node.later(2 * DAY_S)
    store = Store()
    store.port = port
    with store:
        node.later(3600)
        assert len(store.received) == 1 and node.delivery().state == SENT
        node.later(3600)
        assert len(store.received) == 1


def test_a_store_that_refuses_is_asked_again_until_the_time_is_over(tmp_path):
    with Store(statuses=[0xA700] * 1000) as store:
        node = Node(tmp_path, keep_trying_days=2, **to_store(store.port))
        node.receive(small_study(tmp_path / "ct", seed=1))
        node.later()
        node.contour()
        node.later()
        assert node.delivery().error == "status 0xA700"
        for _ in range(30):
            node.later(2 * 3601)
        asked = 1000 - len(store.statuses)
    assert (node.delivery().state, store.received) == (GIVEN_UP, [])
    assert asked == node.delivery().attempts == 25  # at once, and each two hours of two days


def test_pauses_double_from_half_a_minute_to_an_hour():
    assert [pause_s(n) for n in (1, 2, 3, 7, 8, 100)] == [30, 60, 120, 1920, 3600, 3600]


def test_a_late_slice_keeps_a_result_of_the_part_from_being_sent(tmp_path):
    node = Node(tmp_path, **to_store(free_port()))
    paths = small_study(tmp_path / "ct", seed=1)
    node.receive(paths[:3])
    node.later()
    node.contour()
    node.later()
    assert node.delivery().state == "due"
    node.receive(paths[3:])
    node.later()
    assert node.answers.due() == [] and sorted(node.states()) == [SUPERSEDED, WAITING]


def test_a_failed_job_is_an_answer_with_its_reason(node, tmp_path):
    node.receive(small_study(tmp_path / "ct", seed=1))
    node.later()
    node.queue.fail(node.queue.claim("w").id, "w", "one slice is missing")
    node.later()
    (answer,) = node.answers.all()
    assert (answer.state, answer.reason) == (FAILED, "one slice is missing")
    assert "failed: one slice is missing" in "\n".join(status_lines(status(node.config)))


def test_results_that_cannot_be_read_fail_their_study_and_no_other(node, tmp_path):
    for seed in (1, 2):
        node.receive(small_study(tmp_path / str(seed), seed=seed))
    node.later()
    job = node.queue.claim("w")
    node.queue.finish(job.id, "w", {"cases": [{"status": "done", "folder": str(tmp_path / "gone")}]})
    node.contour()
    node.later()
    assert sorted(node.states()) == [CONTOURED, FAILED]


def test_old_answered_studies_go_with_their_files_and_undelivered_ones_stay(tmp_path):
    with Store() as store:
        node = Node(tmp_path, keep_days=30, keep_trying_days=100, **to_store(store.port))
        node.receive(small_study(tmp_path / "ct", seed=1))
        node.later()
        node.contour()
        node.later()
        node.dispatcher.config.targets["PACS"].__dict__["port"] = free_port()  # from now on unreachable
        node.receive(small_study(tmp_path / "ct2", seed=2))
        node.later()
        node.contour()
        node.later(31 * DAY_S)
    left = [path.name for path in (tmp_path / "node" / "incoming").iterdir()]
    assert left == [phantom_uid("study", 2)]
    assert len(list((tmp_path / "node" / "work").iterdir())) == 1 and len(node.queue.jobs()) == 1
    assert node.dispatcher.index.figures()["studies_complete"] == 1


@pytest.mark.parametrize("way", ["C-STORE", "STOW-RS"])
def test_a_real_orthanc_takes_the_result_by(way, tmp_path):
    with orthanc(tmp_path / "orthanc") as pacs:
        target = {"stow": pacs.stow} if way == "STOW-RS" else {"ae_title": "ORTHANC", "port": pacs.port}
        rules = [{"bundle": "ct_head_neck", "modality": "CT", "targets": ["PACS"]}]
        node = Node(tmp_path, targets={"PACS": target}, rules=rules)
        node.receive(small_study(tmp_path / "ct", seed=1))
        node.later()
        job = node.contour()
        node.later()
        assert node.delivery().state == SENT, node.delivery()
        (instance,) = pacs.get("/instances?expand")
        assert instance["MainDicomTags"]["SOPInstanceUID"] == phantom_uid("result", job.id)


def test_what_a_film_shows_goes_back_as_a_report_by_c_store_and_stow(tmp_path):
    film = tmp_path / "film.dcm"
    pixels = np.rint(make_hip(5001, -4.0, "R", pixels=160).image * 4095).astype(np.uint16)
    write_dx(film, pixels, ImageLaterality="R", BodyPartExamined="HIP")
    rule = {"bundle": "hip_osteoporosis", "modality": "DX", "formats": ["sr"], "targets": ["STORE", "WEB"]}
    with Store() as store, orthanc(tmp_path / "orthanc") as pacs:
        targets = {"STORE": {"ae_title": "STORE", "port": store.port}, "WEB": {"stow": pacs.stow}}
        node = Node(tmp_path, targets=targets, rules=[rule])
        check_bundles(node.config)
        node.receive([film])
        node.later()
        job = node.queue.claim("w", 1e9)
        run_job(node.queue, job, 60.0, Networks())
        node.later()
        (answer,) = node.answers.all(CONTOURED)
        assert [row.state for row in node.answers.deliveries(answer.work)] == [SENT, SENT]
        (report,) = store.received
        (instance,) = pacs.get("/instances?expand")
    assert report.SOPClassUID == ComprehensiveSRStorage and report.PatientID == "7"
    assert instance["MainDicomTags"]["SOPInstanceUID"] == report.SOPInstanceUID
    assert report.StudyInstanceUID == pydicom.dcmread(film).StudyInstanceUID


def test_metrics_are_in_prometheus_format_on_the_loopback_and_status_counts_the_same(tmp_path):
    with Store(statuses=[0xA700]) as store:
        node = Node(tmp_path, metrics_port=free_port(), **to_store(store.port))
        node.receive(small_study(tmp_path / "ct", seed=1, PatientName="Wintergreen^Otto"))
        node.later()
        node.contour()
        node.later()
    server = serve_metrics(node.config)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.config.metrics_port}/metrics") as answer:
            content = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
    rows = dict(line.rsplit(" ", 1) for line in content.splitlines() if not line.startswith("#"))
    assert rows["medseg_node_objects_received_total"] == "4"
    assert rows['medseg_node_studies{state="complete"}'] == "1"
    assert rows['medseg_node_deliveries{state="due"}'] == "1"
    assert rows['medseg_node_queue_jobs{state="done"}'] == "1"
    assert all(line.startswith("# HELP") for line in content.splitlines()[::3][:3])
    found = status(node.config)
    assert found["figures"]["received"] == 4 and found["listening"] is False
    lines = "\n".join(status_lines(found))
    assert "NOT LISTENING" in lines and "PACS due after 1 attempts (status 0xA700)" in lines
    assert "Wintergreen" not in lines + json.dumps(found) + content
