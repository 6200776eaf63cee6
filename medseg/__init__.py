"""Medical images to contours: MONAI bundles on DICOM, exact RTSTRUCT out. Research use only.

The functions of PUBLIC are handed out when they are first asked for, so ``import medseg`` loads neither torch
nor pydicom, and nothing at all that takes time.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.2.0"

# MLflow, which MONAI loads, and Ray report their use over the internet unless they are told not to. A user
# who set these has the last word.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

PUBLIC = {
    "segment": "medseg.cli.python",
    "convert": "medseg.cli.python",
    "compare": "medseg.cli.python",
    "read_rtstruct": "medseg.cli.python",
    "read_series": "medseg.dicom",
    "write_rtstruct": "medseg.dicom",
}
"""What ``medseg.NAME`` is, and the module that holds it."""

__all__ = ["__version__", *PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'medseg' has no attribute {name!r}; it has {', '.join(PUBLIC)}")
    import importlib

    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
