"""Fresh processes, their memory, and tables: what the inference benchmarks share."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def child(*arguments: str) -> dict:
    """Run run.py in a fresh process and read the JSON on its last line."""
    command = [sys.executable, Path(__file__).with_name("run.py"), "--child", *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    return json.loads(run.stdout.strip().splitlines()[-1])


def note() -> str:
    import torch

    busy = os.getloadavg()[0]
    return (
        f"{len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, load of the computer at the "
        f"end {busy:.1f}."
    )
