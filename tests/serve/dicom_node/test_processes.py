"""The node as processes: killed with -9 at any moment it loses nothing that it acknowledged and answers every
study."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from chiral_cases import chiral_series
from dicom_peers import (
    association,
    node_config,
    node_process,
    orthanc,
    small_study,
    wait_for_port,
    wait_until,
)

from medseg.bundles.cohort import segment
from medseg.bundles.queue import Queue
from medseg.bundles.request import Request
from medseg.phantoms.series import stack_geometry, write_series
from medseg.serve.dicom_node.index import Index


def contours(path):
    return [list(row.ContourData) for row in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence]


def acknowledged(port, paths, calling="CT1") -> list[Path]:
    """Files whose store was answered with success before the association broke, if it did."""
    done = []
    try:
        with association(port, paths, calling) as link:
            for path in paths if link.is_established else ():
                if link.send_c_store(str(path)).get("Status") != 0:
                    break
                done.append(path)
    except (RuntimeError, ValueError):  # the other side is gone
        pass
    return done


def send_until_all_is_taken(port, paths, seconds=120.0) -> None:
    """What a scanner does: the whole series again until every slice was acknowledged."""
    deadline = time.monotonic() + seconds
    while len(acknowledged(port, paths)) < len(paths):
        assert time.monotonic() < deadline, "never all taken"
        time.sleep(0.2)


def test_a_receiver_killed_while_it_receives_keeps_all_that_it_acknowledged_once(tmp_path):
    config, path = node_config(tmp_path)
    port, log = config.listen.port, tmp_path / "log"
    studies = [small_study(tmp_path / str(n), seed=n, slices=40) for n in range(3)]
    with node_process("receiver", path, log) as process, ThreadPoolExecutor(3) as pool:
        wait_for_port(port)
        sending = [pool.submit(acknowledged, port, paths) for paths in studies]
        wait_until(lambda: len(list(config.incoming.rglob("*.dcm"))) > 10)
        os.kill(process.pid, signal.SIGKILL)
        before = [file for future in sending for file in future.result()]
        process.wait()
    assert 0 < len(before) < 120
    kept = {file.stem: file for file in config.incoming.rglob("*.dcm")}
    for file in before:
        dataset = pydicom.dcmread(file)
        assert pydicom.dcmread(kept[dataset.SOPInstanceUID]) == dataset
    with node_process("receiver", path, log):
        wait_for_port(port)
        for paths in studies:
            send_until_all_is_taken(port, paths)
        names = sorted(file.stem for file in config.incoming.rglob("*.dcm"))
        assert names == sorted(pydicom.dcmread(file).SOPInstanceUID for paths in studies for file in paths)
        index = Index(config.folder)
        wait_until(lambda: index.figures()["open"] == 0)
        assert len(index.quiet(0)) == 3  # nothing waits for the killed one's associations
    assert "Traceback" not in log.read_text()


@contextmanager
def whole_node(path: Path, log: Path):
    """``medseg node start`` with all its processes."""
    with open(log, "ab") as stream:
        command = [sys.executable, "-m", "medseg", "node", "start", str(path)]
        process = subprocess.Popen(command, stderr=stream)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def pid_of(log: Path, name: str) -> int:
    """The process of that name that was started last."""
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [row["pid"] for row in rows if row["event"] == "started" and row["process"] == name][-1]


@pytest.mark.slow
def test_a_study_sent_by_dcmtk_comes_back_to_orthanc_as_medseg_segments_it_though_its_worker_is_killed(
    bright_bundle, tmp_path, program
):
    storescu = program("storescu")
    chiral_series(tmp_path / "CT")
    with orthanc(tmp_path / "orthanc") as pacs:
        config, path = node_config(
            tmp_path,
            rules=[{"bundle": str(bright_bundle), "modality": "CT", "at_least": 10, "targets": ["PACS"]}],
            targets={"PACS": {"ae_title": "ORTHANC", "port": pacs.port}},
            lease_s=3,
        )
        log = tmp_path / "log"
        queue = Queue(config.queue_url)
        with whole_node(path, log):
            wait_for_port(config.listen.port)
            command = [storescu, "-aet", "CT1", "-aec", "MEDSEG", "+sd", "127.0.0.1", str(config.listen.port)]
            subprocess.run([*command, str(tmp_path / "CT")], check=True, capture_output=True)
            wait_until(lambda: queue.counts()["running"], 300)
            os.kill(pid_of(log, "worker 1"), signal.SIGKILL)
            direct = segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "direct"))
            wait_until(lambda: pacs.modalities() == ["RTSTRUCT"], 300)
            wait_until(lambda: '"delivery"' in log.read_text(), 60)  # it has heard that it was accepted
        (job,) = queue.jobs()
        assert (job.state, job.attempts) == ("done", 2)
        (instance,) = pacs.get("/instances")
        urllib.request.urlretrieve(
            f"http://127.0.0.1:{pacs.http}/instances/{instance}/file", tmp_path / "RS.dcm"
        )
    assert direct["cases"][0]["status"] == "done"
    assert contours(tmp_path / "RS.dcm") == contours(tmp_path / "direct" / "CT" / "RS.dcm")
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events.count("job") == events.count("delivery") == 1 and events[-1] == "stopped"


# ---- the whole load, with figures: pytest -m slow -s tests/serve/dicom_node/test_processes.py ------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_senders_of_134_slices_at_once_and_kills_of_receiver_worker_dispatcher_and_orthanc(
    bright_bundle, tmp_path, program
):
    """Prints how long the senders needed, and how long until every study was answered."""
    senders, slices = 20, 134
    with orthanc(tmp_path / "orthanc") as pacs:
        config, path = node_config(
            tmp_path,
            listen={"quiet_s": 5},
            rules=[{"bundle": str(bright_bundle), "modality": "CT", "targets": ["PACS"]}],
            targets={"PACS": {"ae_title": "ORTHANC", "port": pacs.port}},
            lease_s=10,
        )
        studies = [marked_series(tmp_path / "studies" / str(n), n, slices) for n in range(senders + 1)]
        log, queue = tmp_path / "log", Queue(config.queue_url)
        with whole_node(path, log):
            port = config.listen.port
            wait_for_port(port)
            began = time.monotonic()
            command = [program("storescu"), "-aet", "CT1", "-aec", "MEDSEG", "+sd", "127.0.0.1", str(port)]
            running = [subprocess.Popen([*command, paths[0].parent]) for paths in studies[:senders]]
            assert [process.wait(1800) for process in running] == [0] * senders
            taken_s = time.monotonic() - began
            assert len(list(config.incoming.rglob("*.dcm"))) == senders * slices
            with ThreadPoolExecutor(1) as pool:
                last = pool.submit(send_until_all_is_taken, port, studies[senders])
                wait_until(lambda: len(list(config.incoming.rglob("*.dcm"))) > senders * slices + 20)
                kill(log, "receiver")
                last.result()
            wait_until(lambda: queue.counts()["running"], 600)
            kill(log, "worker 1")
            kill(log, "dispatcher")
            pacs.kill()
            wait_until(lambda: queue.counts()["done"] >= 2, 900)
            pacs.start()
            wait_until(lambda: len(pacs.modalities()) == senders + 1, 1800)
            answered_s = time.monotonic() - began
            assert pacs.modalities() == ["RTSTRUCT"] * (senders + 1)
            assert len(pacs.get("/instances")) == senders + 1
        stored = sorted(file.stem for file in config.incoming.rglob("*.dcm"))
        assert stored == sorted(pydicom.dcmread(f).SOPInstanceUID for paths in studies for f in paths)
        # The killed receiver's study may have been quiet for so long that it passed for complete before its
        # sender went on; the job of that part is then taken back.
        counts = queue.counts()
        assert counts["done"] == senders + 1 and counts["cancelled"] <= 1
        assert counts["done"] + counts["cancelled"] == len(queue.jobs())
    print(
        f"\n{senders} senders at once, {slices} slices each: all {senders * slices} acknowledged in "
        f"{taken_s:.1f} s; with one more study and four kills every study was answered after "
        f"{answered_s:.0f} s"
    )


def kill(log: Path, name: str) -> None:
    """kill -9, and wait until the node has started it again."""
    old = pid_of(log, name)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: pid_of(log, name) != old, 60)


def marked_series(folder: Path, seed: int, slices: int) -> list[Path]:
    """A block of water with a bright marker in it, which the bundle contours."""
    volume = np.full((slices, 64, 64), -1000.0)
    volume[10:-10, 16:48, 16:48] = 0
    volume[slices // 2 - 5 : slices // 2 + 5, 28:36, 28:36] = 1000
    return write_series(volume, stack_geometry(volume.shape, gaps_mm=2.0), folder, seed=seed)
