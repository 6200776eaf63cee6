"""A MONAI bundle is the truth about a task: find it, check it, run it over cases, record what came out."""

from __future__ import annotations

from typing import Any

__all__ = ["case_items"]


def __getattr__(name: str) -> Any:
    # Late, so that a mistyped bundle is refused before anything heavy is loaded.
    if name == "case_items":
        from medseg.bundles.inputs import case_items

        return case_items
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
