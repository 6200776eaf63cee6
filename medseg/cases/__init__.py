"""What goes in: volumes, radiographs, regions, masks made elsewhere. Never loads torch."""

from medseg.cases.volume import case_items

__all__ = ["case_items"]
