"""What the receiver acknowledges lies on the disk, once, byte for byte; all else is refused with a reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pydicom
import pytest
from dicom_peers import association, node_config, send, small_disk, small_study, wait_until
from pydicom.uid import JPEGLSLossless, RLELossless

from medseg.dicom import read_series
from medseg.serve.dicom_node.config import NodeConfig
from medseg.serve.dicom_node.index import Index
from medseg.serve.dicom_node.receiver import listen
from medseg.serve.dicom_node.storage import path_of

SUCCESS, OUT_OF_RESOURCES, DOES_NOT_MATCH, CANNOT_UNDERSTAND, DUPLICATE = 0, 0xA700, 0xA900, 0xC000, 0x0111


class Clock:
    seconds = 1_000_000.0

    def __call__(self):
        return self.seconds


class Running:
    def __init__(self, config: NodeConfig):
        self.config, self.clock = config, Clock()
        self.index = Index(config.folder, self.clock)
        self.receiver = listen(config, self.index)
        self.server = self.receiver.server
        self.port = config.listen.port

    def stop(self):
        if self.server is not None:
            self.server.shutdown()
        self.server = None

    def files(self):
        return sorted(self.config.incoming.rglob("*.dcm"))


@pytest.fixture
def start(tmp_path):
    """A function that starts a receiver in this process."""
    started = []

    def begin(**listen_changes):
        started.append(Running(node_config(tmp_path, listen=listen_changes)[0]))
        return started[-1]

    yield begin
    for running in started:
        running.stop()


def data_set_of(path):
    """The bytes behind a file's head."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")  # (0002,0000): the first element's value
    return content[144 + length :]


def test_what_is_acknowledged_lies_there_byte_for_byte_under_its_uids(start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1)
    assert send(node.port, paths) == [SUCCESS] * 4
    sent = [pydicom.dcmread(path) for path in paths]
    assert node.files() == sorted(
        node.config.incoming / d.StudyInstanceUID / d.SeriesInstanceUID / f"{d.SOPInstanceUID}.dcm"
        for d in sent
    )
    kept = {pydicom.dcmread(path).SOPInstanceUID: path for path in node.files()}
    for path, dataset in zip(paths, sent, strict=True):
        assert data_set_of(kept[dataset.SOPInstanceUID]) == data_set_of(path)
        meta = pydicom.dcmread(kept[dataset.SOPInstanceUID]).file_meta
        assert meta.SourceApplicationEntityTitle == "CT1"
    assert [p.name for p in node.config.incoming.iterdir()] == [
        sent[0].StudyInstanceUID
    ]  # nothing unfinished


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=["RLE", "JPEG-LS"])
def test_compressed_slices_are_kept_as_they_come(syntax, start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=3)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    assert send(node.port, paths) == [SUCCESS] * 3
    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in node.files()} == {syntax}
    series = read_series(node.files()[0].parent)
    assert (series.volume() == read_series(tmp_path / "ct").volume()).all()


def test_the_same_study_twice_is_stored_once_and_does_not_open_it_again(start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1)
    send(node.port, paths)
    ((study, last_at),) = wait_until(lambda: node.index.quiet(0))
    assert node.index.complete(study, last_at)
    node.clock.seconds += 100
    before = {path: path.stat().st_mtime_ns for path in node.files()}
    assert send(node.port, paths) == [SUCCESS] * 4
    assert {path: path.stat().st_mtime_ns for path in node.files()} == before
    figures = node.index.figures()
    assert (figures["received"], figures["duplicates"]) == (4, 4)
    assert (figures["studies_receiving"], figures["studies_complete"]) == (0, 1)


def test_another_object_under_a_uid_that_is_held_is_refused_and_the_first_stays(start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=2)
    send(node.port, paths)
    before = node.files()[0].read_bytes(), node.files()[1].read_bytes()
    other = pydicom.dcmread(paths[0])
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(tmp_path / "pixels.dcm")
    elsewhere = pydicom.dcmread(paths[1])
    elsewhere.StudyInstanceUID = "2.25.5"
    elsewhere.save_as(tmp_path / "study.dcm")
    assert send(node.port, [tmp_path / "pixels.dcm", tmp_path / "study.dcm"]) == [DUPLICATE] * 2
    assert (node.files()[0].read_bytes(), node.files()[1].read_bytes()) == before
    assert node.index.figures()["refused_0111"] == 2


def test_the_same_object_in_another_encoding_is_the_same_object(start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=2)
    send(node.port, paths)
    dataset = pydicom.dcmread(paths[0])
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "rle.dcm")
    assert send(node.port, [tmp_path / "rle.dcm"]) == [SUCCESS]
    assert len(node.files()) == 2 and node.index.figures()["duplicates"] == 1


def test_a_study_is_complete_after_quiet_time_without_an_open_association_and_a_late_slice_opens_it(
    start, tmp_path
):
    node, paths = start(), small_study(tmp_path / "ct", seed=1)
    with association(node.port, paths) as link:
        for path in paths[:3]:
            link.send_c_store(str(path))
        node.clock.seconds += 1000
        assert node.index.quiet(60) == []  # quiet, but its sender may go on
    ((study, last_at),) = wait_until(lambda: node.index.quiet(60))
    node.clock.seconds = last_at + 59
    assert node.index.quiet(60) == []  # nobody sends, but not for long
    node.clock.seconds = last_at + 60
    assert node.index.quiet(60) == [(study, last_at)]
    assert node.index.complete(study, last_at) and node.index.quiet(60) == []
    node.clock.seconds += 5000
    send(node.port, paths[3:])
    assert node.index.figures()["studies_receiving"] == 1
    node.clock.seconds += 60
    assert [uid for uid, _ in wait_until(lambda: node.index.quiet(60))] == [study]
    assert [row.images for row in node.index.series(study)] == [4]
    assert not node.index.complete(study, last_at)  # a dispatcher that looked before the late slice came


def test_a_sender_that_aborts_in_the_middle_leaves_whole_files_and_no_open_association(start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1)
    with association(node.port, paths) as link:
        assert [link.send_c_store(str(path)).Status for path in paths[:2]] == [SUCCESS] * 2
        assert node.index.figures()["open"] == 1
        link.abort()
    wait_until(lambda: node.index.figures()["open"] == 0)
    assert len(node.files()) == 2
    assert send(node.port, paths) == [SUCCESS] * 4  # it tries again
    assert len(node.files()) == 4 and node.index.figures()["duplicates"] == 2


def test_a_connection_lost_while_an_object_is_written_does_not_keep_its_study_open(
    start, tmp_path, monkeypatch
):
    from types import SimpleNamespace

    from medseg.serve.dicom_node import storage

    node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=2)
    keep = storage.keep

    def lost(*values):  # said by another thread of pynetdicom while the object is on its way to the disk
        (assoc,) = [thread for _, thread in node.receiver.associations.values()]
        node.receiver.ended(SimpleNamespace(assoc=assoc, event=SimpleNamespace(name="EVT_CONN_CLOSE")))
        return keep(*values)

    monkeypatch.setattr(storage, "keep", lost)
    send(node.port, paths[:1])

    def closed():
        node.receiver.close_ended()  # as the process does twice a second
        return node.index.figures()["open"] == 0

    wait_until(closed)
    assert [len(rows) for rows in (node.files(), node.index.quiet(0))] == [1, 1]


def test_two_patients_interleaved_on_one_association_become_two_studies(start, tmp_path):
    node = start()
    one, other = (small_study(tmp_path / name, seed=name) for name in ("ann", "bob"))
    mixed = [path for pair in zip(one, other, strict=True) for path in pair]
    assert send(node.port, mixed) == [SUCCESS] * 8
    for folder in node.config.incoming.iterdir():
        patients = {pydicom.dcmread(path).PatientID for path in folder.rglob("*.dcm")}
        assert len(patients) == 1 and len(list(folder.rglob("*.dcm"))) == 4
    assert len(wait_until(lambda: node.index.quiet(0))) == 2


def test_twenty_senders_at_once_are_all_served(start, tmp_path):
    node = start()
    studies = [small_study(tmp_path / str(n), seed=n, slices=5) for n in range(20)]
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda paths: send(node.port, paths), studies))
    assert statuses == [[SUCCESS] * 5] * 20
    assert len(node.files()) == 100
    figures = wait_until(lambda: (f := node.index.figures())["open"] == 0 and f)
    assert (figures["received"], figures["duplicates"], figures.get("rejected", 0)) == (100, 0, 0)


def test_the_same_object_from_eight_senders_at_once_is_stored_once(start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=3)
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: send(node.port, paths), range(8)))
    assert statuses == [[SUCCESS] * 3] * 8
    assert len(node.files()) == 3
    assert (node.index.figures()["received"], node.index.figures()["duplicates"]) == (3, 21)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"StudyInstanceUID": "../../../etc"}, CANNOT_UNDERSTAND),
        ({"SeriesInstanceUID": "1..2"}, CANNOT_UNDERSTAND),
        ({"SeriesInstanceUID": ""}, CANNOT_UNDERSTAND),
        ({"StudyInstanceUID": "1." * 33 + "1"}, CANNOT_UNDERSTAND),
    ],
    ids=["path", "dots", "empty", "long"],
)
def test_uids_that_are_none_become_no_file_names(change, status, start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=2)
    with pydicom.config.disable_value_validation():
        dataset = pydicom.dcmread(paths[0])
        for keyword, value in change.items():
            setattr(dataset, keyword, value)
        dataset.save_as(paths[0])
        assert send(node.port, paths[:1]) == [status]
    assert list(node.config.incoming.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct", "node", "node.json"]


def test_a_data_set_that_contradicts_its_request_or_is_no_data_set_is_refused(start, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True
    )  # the bytes of the file as they are
    node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=2)
    dataset = pydicom.dcmread(paths[0])
    with association(node.port, paths) as link:
        # The request names the second object and brings the first.
        dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.dcmread(paths[1]).SOPInstanceUID
        dataset.save_as(tmp_path / "other.dcm", enforce_file_format=False)
        assert link.send_c_store(str(tmp_path / "other.dcm")).Status == DOES_NOT_MATCH
        head = len(paths[1].read_bytes()) - len(data_set_of(paths[1]))
        (tmp_path / "noise.dcm").write_bytes(paths[1].read_bytes()[:head] + b"\xff" * 3000)
        assert link.send_c_store(str(tmp_path / "noise.dcm")).Status == CANNOT_UNDERSTAND
    assert node.files() == [] and list(node.config.incoming.iterdir()) == []


def test_who_is_not_allowed_or_calls_another_is_rejected(start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=2)
    for calling, called in (("STRANGER", "MEDSEG"), ("CT1", "OTHER")):
        with association(node.port, paths, calling, called) as link:
            assert link.is_rejected
    wait_until(lambda: node.index.figures()["rejected"] == 2)
    assert node.files() == []


def test_anyone_may_send_where_the_operator_says_so_and_verification_answers(start, tmp_path):
    node, paths = start(allowed=["*"]), small_study(tmp_path / "ct", seed=1, slices=2)
    assert send(node.port, paths, calling="ANYBODY") == [SUCCESS] * 2
    with association(node.port, [], calling="X") as link:
        assert link.send_c_echo().Status == SUCCESS


def test_a_disk_with_too_little_space_is_named_as_the_reason_before_anything_is_written(start, tmp_path):
    node, paths = start(least_free_gb=1e6), small_study(tmp_path / "ct", seed=1, slices=2)
    assert send(node.port, paths) == [OUT_OF_RESOURCES] * 2
    assert list(node.config.incoming.iterdir()) == [] and node.index.figures()["refused_A700"] == 2


def test_a_full_disk_loses_nothing_that_was_acknowledged(start, tmp_path):
    with small_disk(tmp_path / "node", "2m"):
        node, paths = start(), small_study(tmp_path / "ct", seed=1, slices=40)
        (node.config.folder / "ballast").write_bytes(bytes(1_700_000))
        statuses = send(node.port, paths)
        acknowledged = [p for p, status in zip(paths, statuses, strict=True) if status == SUCCESS]
        assert set(statuses) == {SUCCESS, OUT_OF_RESOURCES} and acknowledged
        assert sorted(map(data_set_of, node.files())) == sorted(map(data_set_of, acknowledged))
        (node.config.folder / "ballast").unlink()  # somebody makes room, and the sender tries again
        assert send(node.port, paths) == [SUCCESS] * 40
        assert len(node.files()) == 40
        node.stop()


def test_what_a_kill_left_between_a_files_name_and_its_note_is_found_at_the_next_start(start, tmp_path):
    node, paths = start(), small_study(tmp_path / "ct", seed=1)
    send(node.port, paths)
    study = node.files()[0].parent.parent.name
    with node.index.database.transaction() as execute:
        execute("DELETE FROM objects WHERE sop_uid = ?", (node.files()[0].stem,))
        execute("INSERT INTO open VALUES ('killed', ?)", (study,))
    (node.config.incoming / ".unfinished-123").write_bytes(b"half")
    node.stop()
    again = start(port=node.port)
    assert [row.images for row in again.index.series(study)] == [4]
    assert again.index.figures()["open"] == 0
    assert not (again.config.incoming / ".unfinished-123").exists()


def test_the_log_tells_uids_and_no_names(start, tmp_path, capsys):
    node = start()
    words = {"PatientName": "Wintergreen^Otto", "StudyDescription": "Thigh of Otto", "PatientID": "OTTO-1"}
    paths = small_study(tmp_path / "ct", seed=1, slices=2, **words)
    send(node.port, paths)
    wait_until(lambda: node.index.figures()["open"] == 0)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["event"] for line in lines} == {"listening", "association", "stored"}
    assert [line["object"] for line in lines if line["event"] == "stored"] == [
        pydicom.dcmread(path).SOPInstanceUID for path in paths
    ]
    assert not re.search("otto|wintergreen|thigh", json.dumps(lines), re.IGNORECASE)


def test_a_log_line_cannot_tell_what_it_may_not():
    from medseg.serve.dicom_node.logs import log

    with pytest.raises(ValueError, match="patient: a log line may not tell that"):
        log("stored", patient="Wintergreen")


def test_only_uids_make_a_path(tmp_path):
    from medseg.serve.dicom_node.index import Received

    for bad in ("..", "1/2", "1.2\n", "1.２", "", "1." * 40):
        with pytest.raises(ValueError):
            path_of(tmp_path, Received("1.2", bad, "1.3", "", "", "", "", ""))


def test_receiver_and_dispatcher_load_no_torch():
    script = "import sys\nfor name in ('torch', 'monai'): sys.modules[name] = None\n"
    script += "import medseg.serve.dicom_node.receiver, medseg.serve.dicom_node.dispatch\n"
    script += "import medseg.serve.dicom_node.supervise, medseg.serve.dicom_node.report"
    subprocess.run([sys.executable, "-c", script], check=True)
