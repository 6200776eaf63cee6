"""Does the site grow? So many small jobs, one after the other, through the real web processes and a real
worker; what is resident is printed on the way.

    python tools/benchmarks/web/memory.py --jobs 1000

It starts ``medseg serve`` as load.py does, with the same bundle of one voxel's weight. Of every job the page,
a slice and the mask are fetched, so that everything that a visit touches is touched.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent))
from load import accounts, block_of, bright_bundle, ct_of, megabytes_of, started

AT_ONCE = 20
"""Jobs that wait at the same time: a worker that finds an empty queue would pause."""

JOBS_OF_A_STUDY = 100
WARM_AFTER = 0.2
"""Of all jobs; what libraries keep from the first ones is no growth."""


class Visitor:
    """One person who never stops."""

    def __init__(self, address: str, name: str, password: str) -> None:
        self.address, self.session = address, requests.Session()
        self.session.trust_env = False
        self.get("/log-in/")
        self.post("/log-in/", {"username": name, "password": password})

    def get(self, path: str) -> requests.Response:
        answer = self.session.get(self.address + path, timeout=120)
        answer.raise_for_status()
        return answer

    def post(self, path: str, fields: dict, **options) -> requests.Response:
        fields = {**fields, "csrfmiddlewaretoken": self.session.cookies["csrftoken"]}
        answer = self.session.post(self.address + path, data=fields, timeout=120, **options)
        answer.raise_for_status()
        return answer

    def new_study(self, ct: bytes) -> tuple[str, str]:
        """(its path, the name of the bundle that it is offered)."""
        page = self.post("/upload/", {"title": "memory"}, files={"files": ("ct.zip", ct)})
        bundle = re.search(r'name="bundle" value="([^"]+)"', page.text).group(1)
        return re.search(r"/studies/[0-9a-f]{32}/", page.url).group(0), bundle

    def contour(self, study: str, bundle: str, block: tuple[int, int, int]) -> None:
        """AT_ONCE jobs of a study, and a look at each of them. SystemExit for a job that fails, or whose mask
        is not the block."""
        form = {"image": "series:s0001", "bundle": bundle}
        jobs = [
            re.search(r"/jobs/[0-9a-f]{32}/", self.post(f"{study}contour", form).url).group(0)
            for _ in range(AT_ONCE)
        ]
        for job in jobs:
            while (said := self.get(f"{job}progress").json())["state"] in ("waiting", "running"):
                time.sleep(0.2)
            if said["state"] != "done":
                raise SystemExit(f"job {said['state']}: {said['reason']}")
            self.get(job)
            self.get(f"{job}cases/s0001/slice?axis=coronal")
            if block_of(self.get(f"{job}cases/s0001/files/GTV.nii.gz").content) != block:
                raise SystemExit("a mask is not the block that was uploaded")


def row(count: int, seconds: float, resident: list[tuple[str, float]]) -> float:
    """Print one line; returns the sum in MB."""
    whole = sum(mb for _, mb in resident)
    parts = ", ".join(f"{name.removeprefix('medseg.bundles.')} {mb:.0f}" for name, mb in resident)
    print(f"{count:>6}{seconds:>9.1f}{whole:>9.0f}   {parts}", flush=True)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help="in all, a multiple of 100, default 1000")
    options = parser.parse_args()
    if options.jobs < JOBS_OF_A_STUDY or options.jobs % JOBS_OF_A_STUDY:
        parser.error(f"--jobs {options.jobs}: expected a multiple of {JOBS_OF_A_STUDY}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MEDSEG_TRUST_FILE"] = str(folder / "trusted.json")
        bundle = bright_bundle(folder / "bright")
        ((account, password),) = accounts(folder / "site", bundle, 1)
        ct, block = ct_of(7, folder / "ct")
        process, address = started(folder / "site", bundle, workers=1)
        try:
            visitor, began, sums = Visitor(address, account, password), time.perf_counter(), {}
            print(f"{'jobs':>6}{'seconds':>9}{'MB':>9}   resident MB of each process")
            for count in range(JOBS_OF_A_STUDY, options.jobs + 1, JOBS_OF_A_STUDY):
                study, offered = visitor.new_study(ct)
                for _ in range(JOBS_OF_A_STUDY // AT_ONCE):
                    visitor.contour(study, offered, block)
                sums[count] = row(count, time.perf_counter() - began, megabytes_of(process.pid))
            warm = max(min(sums), int(options.jobs * WARM_AFTER))
            grown = sums[options.jobs] - sums[warm]
            print(f"from job {warm} to job {options.jobs}: {grown:+.0f} MB")
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
