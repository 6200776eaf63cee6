"""Those a DICOM node talks to, all on the loopback: senders, stores, and a real Orthanc."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from medseg.phantoms.series import stack_geometry, write_series
from medseg.serve.dicom_node.config import NodeConfig, read_config

ORTHANC = "/usr/sbin/Orthanc"
ORTHANC_DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(true, seconds: float = 30.0):
    """What ``true()`` answers as soon as that is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def small_study(folder: Path, seed, slices: int = 4, modality: str = "CT", **header) -> list[Path]:
    """A series of tiny slices; another seed is another patient and study."""
    volume = np.random.default_rng(abs(hash(str(seed))) % 2**32).integers(-50, 50, (slices, 16, 16))
    return write_series(volume, stack_geometry(volume.shape), folder, modality=modality, seed=seed, **header)


def node_config(folder: Path, listen=None, rules=None, **changes) -> tuple[NodeConfig, Path]:
    """A node's file in ``folder``, which listens on a free port and is quick to call a study complete."""
    content = {
        "folder": "node",
        "listen": {"allowed": ["CT1"], "port": free_port(), "quiet_s": 0.5, "least_free_gb": 0.0}
        | (listen or {}),
        "rules": [{"bundle": "ct_head_neck", "modality": "CT"}] if rules is None else rules,
        **changes,
    }
    path = folder / "node.json"
    path.write_text(json.dumps(content))
    config = read_config(path)
    for needed in (config.folder, config.incoming, config.work):
        needed.mkdir(parents=True, exist_ok=True)
    return config, path


@contextmanager
def association(port: int, paths, calling: str = "CT1", called: str = "MEDSEG", **options):
    """An association that may send these files as they are encoded."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 600
    metas = (pydicom.dcmread(path, specific_tags=["SOPClassUID"]) for path in paths)
    for sop_class, syntax in dict.fromkeys((d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in metas):
        entity.add_requested_context(sop_class, syntax)
    if not paths:
        entity.add_requested_context(Verification)
    link = entity.associate("127.0.0.1", port, ae_title=called, **options)
    checkpoint = link._reactor_checkpoint
    if link.is_established:
        # On a busy machine pynetdicom's own thread of a requestor may take an answer from under the sender's
        # hands, which then waits in vain (Association._run_reactor); here it rests as long as we send.
        checkpoint.clear()
        wait_until(lambda: link._is_paused)
        checkpoint.set = lambda: None
    try:
        yield link
    finally:
        if link.is_established:
            link.release()
        threading.Event.set(checkpoint)


def send(port: int, paths, calling: str = "CT1", **options) -> list[int | None]:
    """The status that each file's store was answered with; None without an answer."""
    with association(port, paths, calling, **options) as link:
        assert link.is_established, "no association"
        return [link.send_c_store(path).get("Status") for path in map(str, paths)]


@contextmanager
def node_process(module: str, path: Path, log: Path) -> Iterator[subprocess.Popen]:
    """One process of a node; its log is appended to ``log``."""
    with open(log, "ab") as stream:
        command = [sys.executable, "-m", f"medseg.serve.dicom_node.{module}", str(path)]
        process = subprocess.Popen(command, stderr=stream)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(port: int, seconds: float = 300.0) -> None:
    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(answers, seconds)


class Store:
    """A store of ours that remembers what it was sent, and answers with ``statuses`` as long as there are
    some."""

    def __init__(self, statuses=()):
        self.statuses, self.port, self.received = list(statuses), free_port(), []

    def __enter__(self) -> Store:
        entity = AE(ae_title="STORE")
        entity.supported_contexts = AllStoragePresentationContexts
        handlers = [(evt.EVT_C_STORE, self._answer)]
        self.server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        return self

    def _answer(self, event) -> int:
        status = self.statuses.pop(0) if self.statuses else 0x0000
        if status == 0x0000:
            self.received.append(event.dataset)
        return status

    def __exit__(self, *_) -> None:
        self.server.shutdown()


class Orthanc:
    """A running Orthanc with an empty store. ``stow``: its DICOMweb address."""

    def __init__(self, folder: Path):
        self.folder, self.http, self.port = folder, free_port(), free_port()
        self.stow = f"http://127.0.0.1:{self.http}/dicom-web"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        content = {
            "StorageDirectory": str(self.folder),
            "IndexDirectory": str(self.folder),
            "HttpPort": self.http,
            "DicomPort": self.port,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": False,
            "Plugins": [ORTHANC_DICOMWEB],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (self.folder / "orthanc.json").write_text(json.dumps(content))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([ORTHANC, str(self.folder / "orthanc.json")], **quiet)
        wait_for_port(self.http)
        wait_for_port(self.port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return json.load(answer)

    def modalities(self) -> list[str]:
        """Modality of every series it holds, sorted."""
        return sorted(row["MainDicomTags"]["Modality"] for row in self.get("/series?expand"))


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    if not Path(ORTHANC).exists() or not Path(ORTHANC_DICOMWEB).exists():
        pytest.skip("Orthanc is not installed (Debian: orthanc, orthanc-dicomweb)")
    one = Orthanc(folder)
    one.start()
    try:
        yield one
    finally:
        one.process.terminate()
        one.process.wait(60)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A real file system of that size mounted at ``folder``; skips where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False)
    if mount.returncode:
        pytest.skip("mounting a file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
