"""Ten thousand cases on 64 workers that only sleep and hold memory, with the real table of jobs and the real
processes; without kills, and with a worker killed at random every other second.

    python tools/benchmarks/cohort/simulated.py

Takes under four minutes. ``--cases`` and ``--workers`` for other sizes.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medseg.bundles.many.engine import LocalEngine, Workers
from medseg.bundles.many.plan import Case, FolderPerCase
from medseg.bundles.many.run import run_cohort


@dataclass(frozen=True)
class Simulated(FolderPerCase):
    """``count`` cases that sleep about ``mean_s``, eight times that at most, each holding 10 MB."""

    output_dir: Path
    count: int
    mean_s: float

    verb = "simulated"

    def record(self):
        return {"count": self.count, "mean_s": self.mean_s}

    def cases(self, scan):
        rng = random.Random(0)
        lengths = [
            min(8 * self.mean_s, rng.lognormvariate(0, 0.6) * self.mean_s / 1.2) for _ in range(self.count)
        ]
        cases = [
            Case(f"c{number:06d}", {"case": f"c{number:06d}", "sleep_s": s}, "", int(s * 1e6))
            for number, s in enumerate(lengths)
        ]
        return cases, []

    @contextmanager
    def open(self):
        def run(values):
            held = bytearray(10 * 2**20)
            time.sleep(values["sleep_s"])
            return {"case": values["case"], "status": "done", "seconds": values["sleep_s"], "held": len(held)}

        yield run


class Watched(LocalEngine):
    """Ready before it is used; kills a worker at random every ``kill_every_s`` while cases wait."""

    kill_every_s = 0.0
    killed = 0

    def __init__(self, verb, workers):
        super().__init__(verb, workers)
        while len(self.idle()) < workers.count:
            self.wait(1.0)
        self.began = self.last = time.monotonic()
        self.last_sent = self.began
        self.rng = random.Random(1)
        self.cpu_s = cpu_s()

    def send(self, worker, case):
        super().send(worker, case)
        self.last_sent = time.monotonic()

    def wait(self, seconds):
        if self.kill_every_s and time.monotonic() - getattr(self, "last", 1e18) > self.kill_every_s:
            self.last = time.monotonic()
            os.kill(self.rng.choice(list(self.pids().values())), signal.SIGKILL)
            self.killed += 1
        came = super().wait(seconds)
        if came:
            self.last_answer, self.cpu_s_at_the_end = time.monotonic(), cpu_s()
        return came


def cpu_s() -> float:
    """Processor time of this process alone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(count: int, workers: int, mean_s: float, kill_every_s: float) -> str:
    """A row of the table."""
    engines = []

    def start(verb, settings):
        engines.append(Watched(verb, settings))
        engines[0].kill_every_s = kill_every_s
        return engines[0]

    with tempfile.TemporaryDirectory() as folder:
        result = run_cohort(Simulated(Path(folder) / "out", count, mean_s), Workers(workers), start=start)
    engine = engines[0]
    driver_ms = 1000 * (engine.cpu_s_at_the_end - engine.cpu_s) / count
    cases = result["cases"]
    done = [case for case in cases if case["status"] == "done"]
    assert len({case["case"] for case in cases}) == count == len(cases), "a case is lost or double"
    assert {case["status"] for case in cases} <= {"done", "set aside"}
    whole, ideal = engine.last_answer - engine.began, sum(case["seconds"] for case in done) / workers
    again = sum(case["attempts"] - 1 for case in cases)
    cells = (
        count,
        workers,
        engine.killed,
        again,
        count - len(done),
        f"{ideal:.1f}",
        f"{whole:.1f}",
        f"{ideal / whole:.2f}",
        f"{driver_ms:.2f}",
        f"{engine.last_answer - engine.last_sent:.1f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--mean-s", type=float, default=0.4, help="of a case")
    parser.add_argument("--kill-every-s", type=float, default=2.0)
    options = parser.parse_args()
    heads = "cases | workers | killed | begun again | set aside | ideal s | s | share | driver ms | tail s"
    print(f"| {heads} |\n|{'--:|' * 10}")
    for every in (0.0, options.kill_every_s):
        print(measure(options.cases, options.workers, options.mean_s, every), flush=True)


if __name__ == "__main__":
    main()
