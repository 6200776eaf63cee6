"""Many users at once against a site on this computer: each logs in, uploads a CT, lets it be contoured,
polls, looks at a slice and downloads a mask. Prints what was slow, and whether anybody got somebody else's.

    python tools/benchmarks/web/load.py --users 100
    python tools/benchmarks/web/load.py --users 100 --arrive-s 60    they come one after the other

It starts ``medseg serve`` in a temporary folder on the loopback, with a bundle around a one-voxel network, so
that what is measured is the site and not a network. Every user's CT holds a block of its own size, and the
mask in the download has to be that block.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import requests

ROOT = Path(__file__).resolve().parents[3]
SHAPE, SPACING_MM = (12, 32, 40), 1.5
MOST_USERS = 500


def bright_bundle(folder: Path) -> Path:
    """mm_gtv's steps for a CT alone around one voxel's weight: it contours what is brighter than 600 HU."""
    import torch

    from medseg.bundles.find import find_bundle
    from medseg.bundles.trust import trust
    from medseg.training.checkpoints import save_weights

    shutil.copytree(ROOT / "monai_bundles" / "mm_gtv", folder, ignore=shutil.ignore_patterns("*.pt"))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    for key in ("modalities", "optional_modalities", "requires_region"):
        metadata.pop(key, None)
    image = {"modality": "CT", "num_channels": 1, "channel_def": {"0": "CT"}}
    metadata["network_data_format"]["inputs"]["image"] |= image
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    config = json.loads((folder / "configs" / "inference.json").read_text())
    left_out = ("medseg.transforms.LoadSeriesd", "medseg.transforms.CheckInputd", "Resized")
    window = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -1000, "a_max": 1000}
    window |= {"b_min": 0.0, "b_max": 1.0}
    steps = config["preprocessing"]["transforms"]
    steps[:] = [
        window if step["_target_"] == "medseg.transforms.StackSeriesd" else step
        for step in steps
        if step["_target_"] not in left_out
    ]
    config["dataset"]["data"] = {
        "_target_": "medseg.bundles.case_items",
        "path": "@dataset_dir",
        "modality": "CT",
    }
    config |= {"inferer": config["inferer"]["inferer"], "spacing_mm": [SPACING_MM] * 3, "min_volume_cc": 0.0}
    config["network_def"] = {
        "_target_": "torch.nn.Conv3d",
        "in_channels": 1,
        "out_channels": 1,
        "kernel_size": 1,
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "models").mkdir(exist_ok=True)
    weights = {"weight": torch.full((1, 1, 1, 1, 1), 100.0), "bias": torch.tensor([-80.0])}
    save_weights(weights, folder / "models" / "model.pt")
    trust(find_bundle(folder))
    return folder


def ct_of(user: int, folder: Path) -> tuple[bytes, tuple[int, int, int]]:
    """(a zip of a CT, slices, rows and columns of the block in it): no two users' blocks are equal."""
    from medseg.phantoms.series import stack_geometry, write_series

    geometry = stack_geometry(SHAPE, gaps_mm=SPACING_MM, pixel_spacing_mm=(SPACING_MM, SPACING_MM))
    volume = np.full(SHAPE, -200.0, np.float32)
    rows, columns = 5 + user % 21, 5 + user // 21
    volume[3:9, 4 : 4 + rows, 4 : 4 + columns] = 800.0
    write_series(volume, geometry, folder)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return out.getvalue(), (6, rows, columns)


class User(threading.Thread):
    """One person's visit; what it took goes into ``took_s`` and what went wrong into ``faults``."""

    def __init__(
        self,
        address: str,
        login: tuple[str, str],
        ct: tuple[bytes, tuple[int, int, int]],
        start: threading.Barrier,
        comes_after_s: float,
    ):
        super().__init__(daemon=True)
        self.address, self.login, (self.zip, self.block), self.start_ = address, login, ct, start
        self.comes_after_s = comes_after_s
        self.session = requests.Session()
        self.session.trust_env = False
        self.took_s: dict[str, list[float]] = defaultdict(list)
        self.faults: list[str] = []
        self.job = ""

    def call(self, what: str, method: str, path: str, **options) -> requests.Response:
        began = time.perf_counter()
        answer = self.session.request(method, self.address + path, timeout=300, **options)
        self.took_s[what].append(time.perf_counter() - began)
        if answer.status_code != 200:
            raise RuntimeError(f"{what}: {answer.status_code}")
        return answer

    def post(self, what: str, path: str, fields: dict, **options) -> requests.Response:
        # The cookie is the token too, as far as the server is concerned.
        return self.call(what, "POST", path, data={**fields, "csrfmiddlewaretoken": self.token}, **options)

    @property
    def token(self) -> str:
        return self.session.cookies["csrftoken"]

    def run(self) -> None:
        try:
            self.start_.wait()
            time.sleep(self.comes_after_s)
            self._visit()
        except Exception as error:  # a fault of one user is a number in the report, whatever it is
            self.faults.append(f"{type(error).__name__}: {error}"[:200])

    def _visit(self) -> None:
        self.call("log-in page", "GET", "/log-in/")
        name, password = self.login
        self.post("log in", "/log-in/", {"username": name, "password": password})
        page = self.post("upload", "/upload/", {"title": name}, files={"files": ("ct.zip", self.zip)})
        bundle = re.search(r'name="bundle" value="([^"]+)"', page.text).group(1)
        study = re.search(r"/studies/[0-9a-f]{32}/", page.url).group(0)
        page = self.post("queue", f"{study}contour", {"image": "series:s0001", "bundle": bundle})
        self.job = re.search(r"/jobs/([0-9a-f]{32})/", page.url).group(1)
        while True:
            said = self.call("poll", "GET", f"/jobs/{self.job}/progress").json()
            if said["state"] not in ("waiting", "running"):
                break
            time.sleep(min(2 + said["position"] / 5, 10))
        if said["state"] != "done":
            raise RuntimeError(f"job {said['state']}: {said['reason']}")
        self.call("result page", "GET", f"/jobs/{self.job}/")
        self.call("slice", "GET", f"/jobs/{self.job}/cases/s0001/slice?axis=coronal")
        content = self.call("download", "GET", f"/jobs/{self.job}/cases/s0001/files/GTV.nii.gz").content
        found = block_of(content)
        if found != self.block:
            self.faults.append(f"another user's result: a block of {found} instead of {self.block}")


def block_of(nifti: bytes) -> tuple[int, ...]:
    """Slices, rows and columns of the block in a mask; (0, 0, 0) of anything but one full block."""
    import gzip

    import nibabel

    mask = np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti)).dataobj).transpose(2, 1, 0) > 0
    inside = np.argwhere(mask)
    if not len(inside):
        return 0, 0, 0
    size = tuple(int(n) for n in inside.max(axis=0) - inside.min(axis=0) + 1)
    return size if len(inside) == np.prod(size) else (0, 0, 0)


def accounts(data_dir: Path, bundle: Path, count: int) -> list[tuple[str, str]]:
    """Make so many accounts of the site before it starts."""
    from medseg.serve.web.run import ServeRequest, prepare, set_up_django

    prepare(ServeRequest(data_dir, bundles=(str(bundle),)))
    set_up_django()
    from medseg.serve.web.accounts import new_account

    return [(f"user{number}", new_account(f"user{number}", "user")) for number in range(count)]


def started(data_dir: Path, bundle: Path, workers: int) -> tuple[subprocess.Popen, str]:
    """(the running site, its address)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["serve", "--data", data_dir, "--port", port, "--bundles", bundle, "--workers", workers]
    command = [sys.executable, "-m", "medseg", *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDSEG_WEB")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if "medseg is at" not in line:
        raise SystemExit(f"the site did not start: {line}")
    return process, f"http://127.0.0.1:{port}"


def megabytes_of(parent: int) -> list[tuple[str, float]]:
    """(what it is, resident MB) of the site's processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_text().split("\0")
            ppid = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            pages = int((path / "statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue
        name = next((word for word in words if word in ("gunicorn", "medseg.bundles.worker")), "")
        if name and parent in (ppid, _parent_of(ppid)):
            found.append((name, pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
    return sorted(found)


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def report(users: list[User], whole_s: float) -> None:
    jobs = {user.job for user in users if user.job}
    faults = [fault for user in users for fault in user.faults]
    print(f"{len(users)} users, {len(jobs)} different jobs, {len(faults)} faults, {whole_s:.1f} s in all")
    for fault in sorted(set(faults))[:10]:
        print(f"  ! {faults.count(fault)} x {fault}")
    took_s: dict[str, list[float]] = defaultdict(list)
    for user in users:
        for what, seconds in user.took_s.items():
            took_s[what] += seconds
    print(
        f"{'':12}{'calls':>7}" + "".join(f"{head:>9}" for head in ("median s", "95 % s", "99 % s", "max s"))
    )
    for what, seconds in took_s.items():
        cells = [*np.percentile(seconds, (50, 95, 99)), max(seconds)]
        print(f"{what:12}{len(seconds):>7}" + "".join(f"{cell:>9.2f}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--users", type=int, default=100, help=f"at once, default 100, at most {MOST_USERS}")
    parser.add_argument("--workers", type=int, default=1, help="processes that contour, default 1")
    parser.add_argument(
        "--arrive-s", type=float, default=0.0, help="they come one after the other within so many seconds"
    )
    options = parser.parse_args()
    if not 1 <= options.users <= MOST_USERS:
        parser.error(f"--users {options.users}: expected 1 to {MOST_USERS}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MEDSEG_TRUST_FILE"] = str(folder / "trusted.json")
        bundle = bright_bundle(folder / "bright")
        logins = accounts(folder / "site", bundle, options.users)
        cts = [ct_of(number, folder / f"ct{number}") for number in range(options.users)]
        process, address = started(folder / "site", bundle, options.workers)
        try:
            barrier = threading.Barrier(options.users)
            gap_s = options.arrive_s / options.users
            users = [
                User(address, login, ct, barrier, number * gap_s)
                for number, (login, ct) in enumerate(zip(logins, cts, strict=True))
            ]
            before, began = megabytes_of(process.pid), time.perf_counter()
            for user in users:
                user.start()
            for user in users:
                user.join()
            report(users, time.perf_counter() - began)
            for when, rows in (("before", before), ("after", megabytes_of(process.pid))):
                print(f"memory {when}: " + ", ".join(f"{name} {mb:.0f} MB" for name, mb in rows))
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
