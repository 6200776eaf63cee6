"""The node's workers: :mod:`medseg.bundles.worker` with the node's queue, bundles and log."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from medseg.bundles.queue import Queue
from medseg.bundles.worker import LOG, be_interruptible, limit_memory, work
from medseg.errors import MedsegError
from medseg.serve.dicom_node.config import read_config
from medseg.serve.dicom_node.logs import log, use_json_logs


def main(arguments: list[str] | None = None) -> int:
    """``python -m medseg.serve.dicom_node.worker CONFIG``: contour until SIGTERM, which gives the job in hand
    back."""
    use_json_logs()
    LOG.setLevel(logging.WARNING)
    (path,) = arguments if arguments is not None else sys.argv[1:]
    be_interruptible()
    try:
        config = read_config(Path(path))
        if config.worker_memory_gb is not None:
            limit_memory(int(config.worker_memory_gb * 2**30))
        work(Queue(config.queue_url), bundles=config.bundles, stop=threading.Event(), lease_s=config.lease_s)
    except KeyboardInterrupt:
        return 0
    except (MedsegError, OSError) as error:
        log("cannot work", "error", error=type(error).__name__)
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
