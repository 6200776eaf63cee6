"""The node as a whole: starts receiver, dispatcher and workers, and starts again whichever dies."""

from __future__ import annotations

import sys
from pathlib import Path

from medseg.serve.dicom_node.config import NodeConfig
from medseg.serve.dicom_node.logs import log
from medseg.serve.processes import Group, Kept

LOOK_S = 0.2


def processes(config: NodeConfig, path: Path) -> list[Kept]:
    """All that the node runs, not started yet."""
    kept = [("receiver", "receiver"), ("dispatcher", "dispatch")]
    kept += [(f"worker {number}", "worker") for number in range(1, config.workers + 1)]
    start = (sys.executable, "-m")
    return [Kept(name, (*start, f"medseg.serve.dicom_node.{module}", str(path))) for name, module in kept]


def run_node(config: NodeConfig, path: Path) -> int:
    """Run until SIGTERM or Ctrl-C; returns the exit code 0."""
    group = Group(processes(config, path), log)
    group.stop_at_signals()
    try:
        group.keep()
        while not group.stopped.wait(LOOK_S):
            group.keep()
    finally:
        group.end()
        log("stopped")
    return 0
