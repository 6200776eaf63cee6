"""The node as a whole: starts receiver, dispatcher and workers, and starts again whichever dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from medseg.bundles.queue import Queue
from medseg.errors import InputError
from medseg.files import make_folder
from medseg.serve.dicom_node.config import NodeConfig
from medseg.serve.dicom_node.logs import log
from medseg.serve.dicom_node.secure import server_context
from medseg.serve.processes import Group, Kept, check_free

LOOK_S = 0.2


def processes(config: NodeConfig, path: Path) -> list[Kept]:
    """All that the node runs, not started yet."""
    kept = [("receiver", "receiver"), ("dispatcher", "dispatch")]
    kept += [(f"worker {number}", "worker") for number in range(1, config.workers + 1)]
    start = (sys.executable, "-m")
    return [Kept(name, (*start, f"medseg.serve.dicom_node.{module}", str(path))) for name, module in kept]


def check_places(config: NodeConfig) -> None:
    """InputError for a folder, a queue or an address that the node cannot use: its processes would die of
    that, be started again and die again."""
    make_folder(config.folder)
    if not os.access(config.folder, os.W_OK | os.X_OK):
        raise InputError(f"folder {config.folder} cannot be written to; choose another one.")
    Queue(config.queue_url)
    if config.listen.tls is not None:
        server_context(config.listen.tls)
    check_free(config.listen.host, config.listen.port)


def run_node(config: NodeConfig, path: Path) -> int:
    """Run until SIGTERM or Ctrl-C; returns the exit code 0. InputError as :func:`check_places` says."""
    check_places(config)
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
