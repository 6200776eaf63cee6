"""A MONAI bundle is the truth about a task: find it, check it, run it over cases, record what came out."""

from __future__ import annotations

from typing import Any

__all__ = ["case_items", "patient_items"]


def __getattr__(name: str) -> Any:
    # Late, so that a mistyped bundle is refused before anything heavy is loaded.
    if name in __all__:
        from medseg.bundles import inputs

        return getattr(inputs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
