"""What a structure is called, how it is typed and drawn. Names follow AAPM TG-263."""

from __future__ import annotations

from dataclasses import dataclass

from medseg.errors import StructureError

INTERPRETED_TYPES = (
    "EXTERNAL", "PTV", "CTV", "GTV", "TREATED_VOLUME", "IRRAD_VOLUME", "OAR", "BOLUS", "AVOIDANCE", "ORGAN", "MARKER",
    "REGISTRATION", "ISOCENTER", "CONTRAST_AGENT", "CAVITY", "BRACHY_CHANNEL", "BRACHY_ACCESSORY", "BRACHY_SRC_APP",
    "BRACHY_CHNL_SHLD", "SUPPORT", "FIXATION", "DOSE_REGION", "CONTROL", "DOSE_MEASUREMENT", "DEVICE",
)  # fmt: skip
"""Defined terms of RT ROI Interpreted Type (DICOM PS3.3 C.8.8.8.1)."""


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator and meaning, e.g. ("39607008", "SCT", "Lung")."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Structure:
    """One structure of a structure set.

    ``name``: ROI Name, at most 64 characters (TG-263 asks for at most 16). ``number``: ROI Number, positive; None lets
    the writer choose the next free one. ``colour_rgb``: 0-255 each; None lets the writer take the name's fixed colour.
    ``interpreted_type``: RT ROI Interpreted Type, "" when not known. ``code``: RT ROI Identification Code, or None.
    """

    name: str
    number: int | None = None
    colour_rgb: tuple[int, int, int] | None = None
    interpreted_type: str = ""
    code: Code | None = None

    def __post_init__(self):
        if not self.name or self.name != self.name.strip() or len(self.name) > 64 or "\\" in self.name:
            raise StructureError(f"structure name {self.name!r}: expected 1-64 characters without outer spaces or backslash.")
        if self.number is not None and self.number < 1:
            raise StructureError(f"structure {self.name}: number {self.number}; ROI numbers are positive.")
        if self.interpreted_type and self.interpreted_type not in INTERPRETED_TYPES:
            raise StructureError(
                f"structure {self.name}: type {self.interpreted_type!r} is not an RT ROI Interpreted Type; "
                f"expected one of {', '.join(INTERPRETED_TYPES)}."
            )
