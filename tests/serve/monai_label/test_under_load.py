"""Twenty annotators at once get their own answers, and the server stays quick; killed, it loses nothing."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np

ANNOTATORS = 20


def ball(number: int) -> np.ndarray:
    """A body of 0 HU with a bright bar of its own width and place."""
    volume = np.full((16, 24, 40), 0, dtype=np.int16)
    volume[4:12, 6:18, number : number + 4 + number % 3] = 1000
    return volume


def as_file(array) -> bytes:
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([1.5, 1.5, 1.5, 1.0]))
    image.set_qform(image.affine, code=1)
    return gzip.compress(image.to_bytes(), 1)


def contoured(server, number: int) -> tuple[int, np.ndarray]:
    name = f"annotator {number}"
    files = {"files": ("image.nii.gz", as_file(ball(number)))}
    session = server.form("PUT", "/session/", {"client_id": name}, files).json["session_id"]
    params = {"params": json.dumps({"client_id": name, "result_extension": ".nrrd"})}
    path = f"/infer/sides?image=&session_id={session}&output=image"
    answer = server.form("POST", path, params, {}, {"Connection": "close"})
    assert answer.status == 200, answer.body
    server.ask("DELETE", f"/session/{session}")
    voxels = answer.body.partition(b"\n\n")[2]
    return number, np.frombuffer(voxels, dtype=np.uint8).reshape(16, 24, 40) > 0


def test_twenty_at_once_get_their_own_masks_and_info_answers_meanwhile(server):
    took_ms, ended = [], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            began = time.perf_counter()
            assert server.ask("GET", "/info/").status == 200
            took_ms.append((time.perf_counter() - began) * 1000)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(ANNOTATORS) as people:
            found = list(people.map(lambda number: contoured(server, number), range(ANNOTATORS)))
    finally:
        ended.set()
        watcher.join()
    for number, mask in found:
        assert np.array_equal(mask, ball(number) > 600), number
    assert len(found) == ANNOTATORS and len(took_ms) > 3
    print(f"/info/ during inference: median {np.median(took_ms):.0f} ms, worst {max(took_ms):.0f} ms")
    assert np.median(took_ms) < 1000


def test_the_same_question_of_two_people_is_two_jobs_and_of_one_is_one(server):
    def ask(name):
        fields = {"params": json.dumps({"client_id": name, "wait": False})}
        return server.form("POST", "/infer/sides?image=second", fields).json["job"]

    assert ask("ann") == ask("ann") != ask("ben")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_killing_the_server_loses_no_label_and_leaves_no_process(start, studies, sides_bundle, tmp_path):
    server = start(studies.folder, [sides_bundle], tmp_path / "state")
    geometry = studies.phantom.geometry
    label = studies.phantom.masks["Marker"].astype(np.uint8)
    fields = {"params": json.dumps({"client_id": "ann", "label_info": [{"name": "Parotid_R", "idx": 1}]})}
    files = {"label": ("label.bin", label.tobytes())}
    kept = server.form("PUT", "/datastore/label?image=CT", fields, files).json["label"]
    with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children") as file:
        children = [int(pid) for pid in file.read().split()]
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    until = time.monotonic() + 40
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(map(alive, children))
    again = start(studies.folder, [sides_bundle], tmp_path / "state")
    told = again.ask("GET", f"/datastore/label/info?label={kept}&tag=final").json
    assert told["label_names"] == {"Parotid_R": 1}
    content = again.ask("GET", f"/datastore/label?label={kept}").body
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), label)
    assert np.allclose(image.affine, geometry.affine_ras)
