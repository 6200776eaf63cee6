"""Killed, the server loses no label and leaves no process behind."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time

import nibabel
import numpy as np
import pytest


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow  # two servers
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
