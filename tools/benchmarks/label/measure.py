"""Start-up, memory and latency of ``medseg label start``: python tools/benchmarks/label/measure.py
[--bundle NAME] [--studies DIR --image ID]. Without images of its own it contours a phantom."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


KINDS = {"medseg.bundles.worker": "contouring", "medseg.serve.monai_label.": "helper"}


def what(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return next((name for words, name in KINDS.items() if words in command), "server")


def family_of(master: int) -> str:
    """Memory of the process that was started, and of all below it."""
    below = children(master)
    below += [grandchild for child in below for grandchild in children(child)]
    parts = [f"{what(pid)} {resident_mb(pid):.0f} MB" for pid in below]
    return ", ".join([f"master {resident_mb(master):.0f} MB", *parts])


def get(url: str, body: bytes | None = None, kind: str = "application/json", timeout: float = 1200) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": kind} if body else {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.read()


def phantom(folder: Path) -> str:
    from medseg.phantoms.chiral import chiral_phantom
    from medseg.phantoms.series import stack_geometry, write_series

    geometry = stack_geometry((60, 256, 256), gaps_mm=3.0)
    write_series(chiral_phantom(geometry).volume_hu, geometry, folder / "CT", seed=0)
    return "CT"


def infer(url: str, bundle: str, image: str) -> dict:
    fields = json.dumps({"allow": "out_of_distribution"})
    body = f'--b\r\nContent-Disposition: form-data; name="params"\r\n\r\n{fields}\r\n--b--\r\n'.encode()
    kind = "multipart/form-data; boundary=b"
    return json.loads(get(f"{url}/infer/{bundle}?image={image}&output=json", body, kind))


def measure(studies: Path, image: str, bundle: str, state: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "medseg",
        "label",
        "start",
        "--studies",
        str(studies),
        "--bundles",
        bundle,
    ]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--state", str(state), "--port", str(port)], stdout=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                get(f"{url}/info/", timeout=30)
                break
            except OSError:
                time.sleep(0.05)
        print(f"first answer after {time.perf_counter() - began:.1f} s")
        print(f"idle: {family_of(process.pid)}")
        took_ms, done = [], threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                began = time.perf_counter()
                get(f"{url}/info/")
                took_ms.append((time.perf_counter() - began) * 1000)

        for which in ("first contour", "same again, answered from its files"):
            took_ms.clear()
            done.clear()
            watcher = threading.Thread(target=watch)
            watcher.start()
            began = time.perf_counter()
            infer(url, bundle, image)
            done.set()
            watcher.join()
            seconds = time.perf_counter() - began
            line = f"{which}: {seconds:.1f} s"
            if took_ms:
                middle, worst = np.median(took_ms), max(took_ms)
                line += f"; /info/ meanwhile: median {middle:.0f} ms, worst {worst:.0f} ms of {len(took_ms)}"
            print(line)
        print(f"after: {family_of(process.pid)}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="ct_head_neck")
    parser.add_argument("--studies", type=Path)
    parser.add_argument("--image")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studies = options.studies or Path(folder) / "studies"
        image = options.image or phantom(studies)
        measure(studies, image, options.bundle, Path(folder) / "state")


if __name__ == "__main__":
    main()
