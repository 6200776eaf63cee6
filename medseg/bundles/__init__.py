"""A MONAI bundle is the truth about a task: find it, check it, run it over cases, record what came out."""

from medseg.bundles.inputs import case_items

__all__ = ["case_items"]
