"""A running server on phantoms, started once: the real process, with its workers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from medseg.cases.nifti import write_volume
from medseg.phantoms.chiral import ChiralPhantom, chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

NAMES = ("Brainstem", "Parotid_R", "Parotid_L")
"""What the test bundle answers with; of the phantom it finds Parotid_R alone."""


@pytest.fixture(scope="session")
def sides_bundle(tmp_path_factory, bright_bundle) -> Path:
    """``bright_bundle`` with three structures, of which only the second, the *right* parotid, is ever there:
    what is brighter than 600 HU."""
    import torch

    from medseg.bundles.find import find_bundle
    from medseg.bundles.trust import trust
    from medseg.training.checkpoints import save_weights

    folder = tmp_path_factory.mktemp("bundles") / "sides"
    shutil.copytree(bright_bundle, folder)
    for name in ("inference", "train"):
        path = folder / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        config["network_def"] = {**config["network_def"], "out_channels": 3}
        if name == "inference":
            steps = config["postprocessing"]["transforms"]
            left_out = ("medseg.transforms.KeepComponentsd", "medseg.transforms.MarginStructuresd")
            steps[:] = [step for step in steps if step["_target_"] not in left_out]
            made = next(step for step in steps if step["_target_"] == "medseg.transforms.ToStructuresd")
            made["structures"] = [{"name": one, "interpreted_type": "ORGAN"} for one in NAMES]
        path.write_text(json.dumps(config))
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["network_data_format"]["outputs"]["pred"] |= {
        "num_channels": 3,
        "channel_def": {str(number): name for number, name in enumerate(NAMES)},
    }
    metadata.pop("weights_sha256", None)
    path.write_text(json.dumps(metadata))
    weights = {"weight": torch.full((3, 1, 1, 1, 1), 100.0), "bias": torch.tensor([-1e4, -80.0, -1e4])}
    save_weights(weights, folder / "models" / "model.pt")
    trust(find_bundle(folder))
    return folder


@dataclass(frozen=True)
class Answer:
    """What a server answered, read as far as a client would."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Server:
    """A running ``medseg label start``."""

    process: subprocess.Popen
    port: int
    state: Path
    log: Path

    def ask(self, method, path, body=None, headers=None, timeout=60) -> Answer:
        """One request; a dict as body is sent as JSON."""
        headers = dict(headers or {})
        if isinstance(body, dict):
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def form(self, method, path, fields=None, files=None, headers=None) -> Answer:
        """A request as 3D Slicer's module builds it: {field: text}, {field: (file name, bytes)}."""
        mark = "----------lImIt_of_THE_fIle_eW_$"
        lines = []
        for name, text in (fields or {}).items():
            lines += [f"--{mark}", f'Content-Disposition: form-data; name="{name}"', "", text]
        for name, (file, content) in (files or {}).items():
            head = f'Content-Disposition: form-data; name="{name}"; filename="{file}"'
            lines += [f"--{mark}", head, "Content-Type: application/octet-stream", "", content]
        lines += [f"--{mark}--", ""]
        body = b"".join(line if isinstance(line, bytes) else line.encode() for line in _ended(lines))
        kind = {"content-type": f"multipart/form-data; boundary={mark}", "content-length": str(len(body))}
        return self.ask(method, path, body, {**kind, **(headers or {})})

    def memory_maps(self) -> str:
        """The libraries that the process which answers has loaded."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        answering = [pid for pid in children if b"tied" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return "".join(Path(f"/proc/{pid}/maps").read_text() for pid in answering)


def _ended(lines):
    for line in lines:
        yield line
        yield b"\r\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(studies, bundles, state: Path, *options: str, port: int | None = None) -> Server:
    """Start the real command and wait until it answers."""
    port = port or free_port()
    state.mkdir(parents=True, exist_ok=True)
    log = state / "output.txt"
    command = [sys.executable, "-m", "medseg", "label", "start", "--studies", str(studies)]
    command += [
        "--bundles",
        ",".join(map(str, bundles)),
        "--state",
        str(state),
        "--port",
        str(port),
        *options,
    ]
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ)
    server = Server(process, port, state, log)
    for _ in range(600):
        try:
            server.ask("GET", "/auth/")
            return server
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def stop_server(server: Server) -> None:
    server.process.terminate()
    server.process.wait(60)


@dataclass(frozen=True)
class Studies:
    """``folder`` with one DICOM series "CT" and one NIfTI file "second", both of ``phantom``."""

    folder: Path
    phantom: ChiralPhantom


@pytest.fixture(scope="session")
def studies(tmp_path_factory) -> Studies:
    folder = tmp_path_factory.mktemp("studies")
    geometry = stack_geometry(
        (34, 64, 72), gaps_mm=2.5, pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(7, -20, 110)
    )
    phantom = chiral_phantom(geometry)
    write_series(phantom.volume_hu, phantom.geometry, folder / "CT", seed=0)
    write_volume(phantom.volume_hu, phantom.geometry, folder / "second.nii.gz")
    return Studies(folder, phantom)


@pytest.fixture(scope="session")
def server(studies, sides_bundle, tmp_path_factory):
    running = start_server(studies.folder, [sides_bundle], tmp_path_factory.mktemp("label"))
    yield running
    stop_server(running)


@pytest.fixture
def start(tmp_path):
    """A function that starts another server; it is stopped when the test ends."""
    running = []

    def begin(*arguments, **options) -> Server:
        running.append(start_server(*arguments, **options))
        return running[-1]

    yield begin
    for one in running:
        stop_server(one)
