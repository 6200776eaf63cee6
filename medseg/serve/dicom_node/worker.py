"""The node's workers: :mod:`medseg.bundles.worker` with the node's queue, bundles and log."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from medseg.bundles.queue import Queue
from medseg.bundles.worker import LOG, limit_memory, until_stopped, work
from medseg.serve.dicom_node.config import read_config
from medseg.serve.dicom_node.logs import log, use_json_logs


def main(arguments: list[str] | None = None) -> int:
    """``python -m medseg.serve.dicom_node.worker CONFIG``: contour until SIGTERM, which gives the job in hand
    back."""
    use_json_logs()
    LOG.setLevel(logging.WARNING)
    (path,) = arguments if arguments is not None else sys.argv[1:]

    def run() -> None:
        config = read_config(Path(path))
        if config.worker_memory_gb is not None:
            limit_memory(int(config.worker_memory_gb * 2**30))
        work(Queue(config.queue_url), bundles=config.bundles, stop=threading.Event(), lease_s=config.lease_s)

    def refused(error: Exception) -> None:
        log("cannot work", "error", error=type(error).__name__)
        sys.stderr.write(f"error: {error}\n")

    return until_stopped(run, refused)


if __name__ == "__main__":
    raise SystemExit(main())
