"""One worker against two, one thread each, on the phantom of a thigh with a shipped bundle.

    python tools/benchmarks/cohort/workers.py

Takes about four minutes on two cores. Time counts from when every worker has its network, to the last case.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from medseg.bundles.many.engine import LocalEngine, Workers
from medseg.bundles.many.run import run_cohort
from medseg.bundles.many.segment import Segment
from medseg.bundles.request import Request
from medseg.phantoms.thigh import write_thigh_phantom


def all_ready(verb, workers: Workers) -> LocalEngine:
    """Workers of which each is ready."""
    engine = LocalEngine(verb, workers)
    while len(engine.idle()) < workers.count:
        engine.wait(1.0)
    return engine


def seconds(source: Path, out: Path, count: int, within: str) -> tuple[float, float]:
    """(from the first case's beginning to the last one's end, mean of a case)."""
    request = Request(source, "mm_gtv", out, formats=("rtstruct",), within=within, engine="torch")
    result = run_cohort(Segment(request), Workers(count, threads=1), start=all_ready)
    cases = result["cases"]
    assert all(case["status"] == "done" for case in cases), cases
    whole = max(case["ended"] for case in cases) - min(case["began"] for case in cases)
    return whole, sum(case["seconds"] for case in cases) / len(cases)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=12)
    count = parser.parse_args().cases
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(count):
            phantom = write_thigh_phantom(root / "made", seed=number)
            (root / "in").mkdir(exist_ok=True)
            phantom.ct_dir.rename(root / "in" / f"p{number:02d}")
        within = ",".join(f"{mm:.1f}" for pair in zip(*phantom.box_lps_mm, strict=True) for mm in pair)
        one, each_one = seconds(root / "in", root / "one", 1, within)
        two, each_two = seconds(root / "in", root / "two", 2, within)
    print("| workers | cases | seconds | cases an hour | seconds a case |\n|--:|--:|--:|--:|--:|")
    for workers, whole, each in ((1, one, each_one), (2, two, each_two)):
        print(f"| {workers} | {count} | {whole:.1f} | {3600 * count / whole:.0f} | {each:.2f} |")
    print(f"\n2 workers do {one / two:.2f} of one's work in the same time: {one / two / 2:.2f} x 2.")
    print(f"{time.monotonic() - began:.0f} s in all.")


if __name__ == "__main__":
    main()
