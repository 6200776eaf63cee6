"""The single steps that a cohort of a million patients multiplies, each measured by itself.

    python tools/benchmarks/cohort/steps.py

Takes about two minutes. Times are of the processor; files lie in the cache of the operating system, as they
rarely do in an archive.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from medseg.bundles.many.index import Index
from medseg.bundles.many.run import MOST_CASES, record_of
from medseg.bundles.queue import Queue
from medseg.dicom import find_series, read_series, read_structure_set, write_rtstruct
from medseg.phantoms.series import stack_geometry, write_series

STRUCTURES = 24
"""Of a case's record and of a structure set, as ct_head_neck has some two dozen."""

SLICES = 150


def write_archive(folder: Path, series: int) -> None:
    """Series of small slices: only headers are read here."""
    geometry = stack_geometry((SLICES, 16, 16), gaps_mm=2.0)
    for number in range(series):
        write_series(np.zeros(geometry.shape), geometry, folder / f"p{number:03d}" / "CT", seed=number)


def looks(folder: Path, database: Path, files: int) -> dict[str, str]:
    """The first look at an archive, and a later one."""
    index = Index(database)
    before = database.stat().st_size
    began = time.process_time()
    index.scan(folder)
    first_s = time.process_time() - began
    assert index.opened == files
    grown = sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*")) - before
    began = time.process_time()
    index.scan(folder)
    later_s = time.process_time() - began
    assert index.opened == 0
    began = time.process_time()
    for path in folder.rglob("*.dcm"):
        path.stat()
    stat_s = time.process_time() - began
    return {
        "first look, for a file": f"{1e3 * first_s / files:.2f} ms",
        "later look, for a file": f"{1e6 * later_s / files:.0f} µs",
        "of it listing and `stat`": f"{1e6 * stat_s / files:.0f} µs",
        "index, for a file": f"{grown / files:.0f} bytes",
    }


def record(name: str) -> dict:
    """What a worker sends back of a case with two dozen structures."""
    rows = [
        {
            "name": f"Structure_{n:02d}",
            "empty": False,
            "volume_cc": 12.345,
            "centre_lps_mm": [1.5, -20.25, 110.75],
        }
        for n in range(STRUCTURES)
    ]
    timings = {"read": 1.234, "network": 23.456, "write": 2.345}
    return {
        "case": name,
        "status": "done",
        "seconds": 27.035,
        "structures": rows,
        "warnings": [],
        "timings_s": timings,
    }


def jobs(database: Path, count: int) -> dict[str, str]:
    """Rows of the table of jobs, and the records in memory at a run's end."""
    queue = Queue(database, durable=False)
    before = database.stat().st_size
    folder = "/archive/of/the/clinic/patients"
    payloads = [
        {
            "case": f"p{n:07d}_CT",
            "name": f"p{n:07d}_CT",
            "source": f"{folder}/p{n:07d}/CT",
            "others": {},
            "registrations": [],
            "address": "",
            "bundle": "a" * 64,
        }
        for n in range(count)
    ]
    queue.submit_all([(payload, f"{n:064d}", 0) for n, payload in enumerate(payloads)], owner="a" * 64)
    began = time.process_time()
    for _ in range(count):
        job = queue.claim("worker 0", 60.0, tasks=["a" * 64])
        assert job is not None
        queue.finish(job.id, "worker 0", record(job.payload["case"]))
    each_ms = 1e3 * (time.process_time() - began) / count
    grown = sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*")) - before
    tracemalloc.start()
    held = [record_of(job) for job in queue.jobs(owner="a" * 64, limit=MOST_CASES)]
    memory = tracemalloc.get_traced_memory()[0] / len(held)
    tracemalloc.stop()
    return {
        "table of jobs, for a case": f"{grown / count / 1e3:.1f} kB",
        "claim and finish of a case": f"{each_ms:.2f} ms",
        "records in memory, for a case": f"{memory / 1e3:.1f} kB",
    }


def structure_set(folder: Path) -> dict[str, str]:
    """The command reads every structure set to know its series."""
    geometry = stack_geometry((SLICES, 256, 256), gaps_mm=2.0)
    write_series(np.zeros(geometry.shape), geometry, folder / "CT")
    away = np.linalg.norm(np.indices(geometry.shape[1:]) - 128, axis=0) < 40
    mask = np.broadcast_to(away, geometry.shape).copy()
    masks = {f"Structure_{number:02d}": mask for number in range(STRUCTURES)}
    write_rtstruct(masks, read_series(folder / "CT"), folder / "RS.dcm")
    began = time.process_time()
    found = find_series(folder / "RS.dcm").structure_sets
    read_structure_set(found[0])
    seconds = time.process_time() - began
    megabytes = (folder / "RS.dcm").stat().st_size / 1e6
    return {
        f"structure set of {STRUCTURES} on {SLICES} slices ({megabytes:.1f} MB)": f"{1e3 * seconds:.0f} ms"
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--series", type=int, default=40)
    options.add_argument("--jobs", type=int, default=5000)
    given = options.parse_args()
    print("| step | measured |\n|---|--:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tell(jobs(root / "jobs.sqlite", given.jobs))
        write_archive(root / "archive", given.series)
        tell(looks(root / "archive", root / "index.sqlite", given.series * SLICES))
        tell(structure_set(root / "one"))


def tell(found: dict[str, str]) -> None:
    for step, figure in found.items():
        print(f"| {step} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
