"""The stock server of monailabel 0.8.5 and this one, asked the same of the same image, call by call.

    sh tools/benchmarks/label/stock_environment.sh DIR
    MEDSEG_MONAILABEL_PYTHON=DIR/bin/python pytest -s -m slow tests/serve/monai_label/test_stock_server.py

Without that environment the test is skipped. With -s it prints start-up, memory and a table of the answers.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from label_server import Server, free_port, parts_of, start_server, stop_server

APP = Path(__file__).parent / "stock_app"


def started(process, port: int, state: Path) -> tuple[Server, float]:
    """(the server once it answers, seconds that took)."""
    server, begun = Server(process, port, state, state / "log"), time.perf_counter()
    while True:
        try:
            server.ask("GET", "/info/")
            return server, time.perf_counter() - begun
        except OSError:
            assert process.poll() is None, server.log.read_text()[-2000:]
            time.sleep(0.1)


def tree_mb(pid: int) -> float:
    """Resident memory of a process and all below it."""
    status = Path(f"/proc/{pid}/status").read_text()
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024 + sum(tree_mb(int(one)) for one in below)


@pytest.fixture(scope="module")
def both(studies, sides_bundle, tmp_path_factory):
    """{name: (server, seconds to the first answer, MB idle)}, started one after the other."""
    python = os.environ.get("MEDSEG_MONAILABEL_PYTHON")
    if not python:
        pytest.skip("no environment of monailabel 0.8.5: set MEDSEG_MONAILABEL_PYTHON to its python")
    folder = tmp_path_factory.mktemp("stock")
    app = shutil.copytree(APP, folder / "app")  # the server writes into it
    (folder / "studies").mkdir()
    shutil.copy(studies.folder / "second.nii.gz", folder / "studies")
    port = free_port()
    command = [python, str(app / "launch.py"), "start_server", "--app", str(app), "--host", "127.0.0.1"]
    command += ["--studies", str(folder / "studies"), "--port", str(port), "--conf", "sam2", "false"]
    environment = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    environment |= {"PYTHONPATH": str(app), "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    stock, stock_s = started(process, port, folder)
    stock_mb = tree_mb(process.pid)
    begun = time.perf_counter()
    ours = start_server(studies.folder, [sides_bundle], folder / "ours")
    ours.ask("GET", "/info/")
    ours_s = time.perf_counter() - begun
    yield {"stock": (stock, stock_s, stock_mb), "medseg": (ours, ours_s, tree_mb(ours.process.pid))}
    stop_server(ours)
    stop_server(stock)


def label_map(answer) -> np.ndarray:
    content = parts_of(answer)["image"][2]
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return np.asarray(nibabel.Nifti1Image.from_bytes(content).dataobj).squeeze().transpose(2, 1, 0)


def calls(server: Server, image: str) -> dict:
    """{call: answer} of what Slicer's module asks, and of what should be refused."""
    params = {"params": json.dumps({"result_extension": ".nii.gz", "client_id": "ann"})}

    def infer(model="sides", image=image, query=""):
        return server.form("POST", f"/infer/{model}?image={image}{query}", params)

    found = {
        "GET /info/": server.ask("GET", "/info/"),
        "GET /auth/": server.ask("GET", "/auth/"),
        "POST /activelearning/first": server.ask("POST", "/activelearning/first", {"client_id": "ann"}),
        "POST /infer/sides": infer(),
        "POST /infer/sides?output=json": infer(query="&output=json"),
        "GET /datastore/": server.ask("GET", "/datastore/?output=all"),
        "GET /datastore/image": server.ask("GET", f"/datastore/image?image={image}"),
        "GET /train/?check_if_running": server.ask("GET", "/train/?check_if_running=true"),
        "an unknown model": infer(model="spleen"),
        "an unknown image": infer(image="nobody"),
        "a file of the server": infer(image="/etc/hostname"),
        "an unknown label": server.ask("GET", "/datastore/label?label=nobody&tag=final"),
        "an unknown strategy": server.ask("POST", "/activelearning/best", {}),
    }
    content = server.ask("GET", f"/datastore/image?image={image}").body
    session = server.form("PUT", "/session/", {}, {"files": ("scan.nii.gz", content)})
    found["PUT /session/"] = session
    number = session.json["session_id"]
    found["POST /infer/sides of a session"] = infer(image="scan", query=f"&session_id={number}")
    found["DELETE /session/"] = server.ask("DELETE", f"/session/{number}")
    label = gzip.compress(b"") if found["POST /infer/sides"].status != 200 else None
    label = label or parts_of(found["POST /infer/sides"])["image"][2]
    kept = {"params": json.dumps({"label_info": [{"name": "Parotid_R", "idx": 1}]})}
    path = f"/datastore/label?image={image}"
    found["PUT /datastore/label"] = server.form("PUT", path, kept, {"label": ("label.nii.gz", label)})
    return found


@pytest.mark.slow
def test_answers_are_those_of_the_stock_server_where_it_answers_and_better_where_it_fails(both, studies):
    answers = {name: calls(server, "second") for name, (server, _, _) in both.items()}
    stock, ours = answers["stock"], answers["medseg"]
    for name, (_, seconds, megabytes) in both.items():
        print(f"\n{name}: first answer after {seconds:.1f} s, {megabytes:.0f} MB idle", end="")
    print("\n| call | stock | medseg |\n|---|--:|--:|")
    for call in stock:
        print(f"| {call} | {stock[call].status} | {ours[call].status} |")
    good = [call for call in stock if stock[call].status == 200 and call != "a file of the server"]
    assert len(good) >= 8 and [call for call in good if ours[call].status != 200] == []

    # The same voxels; the stock server leaves the model's number, which Slicer then misreads by position.
    for call in ("POST /infer/sides", "POST /infer/sides of a session"):
        theirs, own = label_map(stock[call]), label_map(ours[call])
        assert set(np.unique(theirs)) == {0, 2} and set(np.unique(own)) == {0, 1}
        assert ((theirs > 0) != (own > 0)).mean() < 1e-3
        names = json.loads(parts_of(ours[call])["params"][2])["label_names"]
        assert names == {"Parotid_R": 1}
    said, own = stock["GET /info/"].json, ours["GET /info/"].json
    for key in ("name", "description", "version", "labels", "models", "trainers", "strategies", "datastore"):
        assert key in said and type(said[key]) is type(own[key]), key
    assert said["models"]["sides"]["labels"] == own["models"]["sides"]["labels"]
    assert {"type", "labels", "dimension", "description", "config"} <= set(own["models"]["sides"])
    assert stock["POST /activelearning/first"].json["id"] == "second"
    content = [gzip.decompress(one["GET /datastore/image"].body) for one in (stock, ours)]
    assert content[0] == content[1]

    # What medseg does otherwise on purpose.
    assert ours["a file of the server"].status == 404
    for call in ("an unknown model", "an unknown image", "an unknown label", "an unknown strategy"):
        assert ours[call].status == 404 and ours[call].json["detail"], call
