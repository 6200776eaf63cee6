"""What a structure is called, how it is typed and drawn. Names follow AAPM TG-263."""

from __future__ import annotations

import colorsys
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from medseg.errors import StructureError
from medseg.structures import tg263

INTERPRETED_TYPES = (
    "EXTERNAL",
    "PTV",
    "CTV",
    "GTV",
    "TREATED_VOLUME",
    "IRRAD_VOLUME",
    "OAR",
    "BOLUS",
    "AVOIDANCE",
    "ORGAN",
    "MARKER",
    "REGISTRATION",
    "ISOCENTER",
    "CONTRAST_AGENT",
    "CAVITY",
    "BRACHY_CHANNEL",
    "BRACHY_ACCESSORY",
    "BRACHY_SRC_APP",
    "BRACHY_CHNL_SHLD",
    "SUPPORT",
    "FIXATION",
    "DOSE_REGION",
    "CONTROL",
    "DOSE_MEASUREMENT",
    "DEVICE",
)
"""Defined terms of RT ROI Interpreted Type (DICOM PS3.3 C.8.8.8.1)."""

GENERATION_ALGORITHMS = ("AUTOMATIC", "SEMIAUTOMATIC", "MANUAL")
"""Defined terms of ROI Generation Algorithm (DICOM PS3.3 C.8.8.5): computed, computed with a person's help,
drawn."""


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator and meaning, e.g. ("39607008", "SCT", "Lung")."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Structure:
    """One structure of a structure set.

    ``name``: ROI Name, at most 64 characters (TG-263 asks for at most 16). ``number``: ROI Number, positive;
    None lets the writer choose the next free one. ``colour_rgb``: 0-255 each; None lets the writer take the
    name's fixed colour. ``interpreted_type``: RT ROI Interpreted Type, "" when not known. ``code``: RT ROI
    Identification Code, or None. ``generation_algorithm``: who drew it, one of GENERATION_ALGORITHMS, "" when
    not known. ``generation_description``: how it was made, in words; "" lets the writer name medseg and the
    model.
    """

    name: str
    number: int | None = None
    colour_rgb: tuple[int, int, int] | None = None
    interpreted_type: str = ""
    code: Code | None = None
    generation_algorithm: str = "AUTOMATIC"
    generation_description: str = ""

    def __post_init__(self):
        if not self.name or self.name != stored_name(self.name):
            raise StructureError(
                f"structure name {self.name[:80]!r}: expected 1-64 characters without outer spaces, "
                "backslash or control characters."
            )
        if self.number is not None and self.number < 1:
            raise StructureError(f"structure {self.name}: number {self.number}; ROI numbers are positive.")
        if self.interpreted_type and self.interpreted_type not in INTERPRETED_TYPES:
            raise StructureError(
                f"structure {self.name}: type {self.interpreted_type!r} is not an RT ROI Interpreted Type; "
                f"expected one of {', '.join(INTERPRETED_TYPES)}."
            )
        if self.generation_algorithm and self.generation_algorithm not in GENERATION_ALGORITHMS:
            raise StructureError(
                f"structure {self.name}: generation algorithm {self.generation_algorithm!r}; expected one of "
                f"{', '.join(GENERATION_ALGORITHMS)}, or nothing."
            )
        if self.colour_rgb is not None and (
            len(self.colour_rgb) != 3
            or not all(isinstance(c, int) and 0 <= c <= 255 for c in self.colour_rgb)
        ):
            raise StructureError(
                f"structure {self.name}: colour {self.colour_rgb}; expected three whole numbers, 0 to 255."
            )


def stored_name(text: str) -> str:
    """The nearest to a text that an ROI can be called in DICOM, "" where nothing is left: at most 64
    characters, no outer spaces; a backslash, control characters and bytes that are no text become ``_``."""
    return _NOT_IN_NAMES.sub("_", text.strip())[:64].strip()


_NOT_IN_NAMES = re.compile("[\\\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")


FIXED_COLOURS_RGB = {
    "GTV": (255, 0, 0),
    "CTV": (255, 128, 0),
    "ITV": (255, 170, 60),
    "PTV": (64, 160, 255),
    "External": (0, 255, 0),
    "Body": (0, 255, 0),
    "Lung_L": (90, 170, 255),
    "Lung_R": (0, 215, 190),
    "Lungs": (120, 185, 255),
    "Heart": (230, 60, 130),
    "SpinalCord": (255, 255, 0),
    "Brainstem": (255, 130, 190),
    "Esophagus": (200, 120, 70),
    "Bladder": (255, 210, 0),
    "Rectum": (160, 90, 30),
    "Parotid_L": (0, 200, 200),
    "Parotid_R": (60, 190, 60),
    "Bone_Mandible": (230, 220, 180),
    "Larynx": (190, 120, 255),
    "AirWay_Prox": (255, 120, 220),
}
"""Colours of the structures that are drawn most; every other name has a fixed colour computed from its
letters."""


def fixed_colour_rgb(name: str) -> tuple[int, int, int]:
    """The colour of a name: always the same in every file and process, whatever the case of its letters."""
    for known, colour_rgb in FIXED_COLOURS_RGB.items():
        if known.lower() == name.lower():
            return colour_rgb
    number = zlib.crc32(name.lower().encode())
    saturation, value = 0.55 + (number // 360 % 5) / 10, 0.8 + (number // 1800 % 3) / 10
    red, green, blue = colorsys.hsv_to_rgb((number % 360) / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


TARGET_CODES = {
    "GTV": Code("228791009", "SCT", "GTV"),
    "CTV": Code("228792002", "SCT", "CTV"),
    "ITV": Code("130056", "DCM", "ITV"),
    "PTV": Code("228793007", "SCT", "PTV"),
}
"""Codes of target volumes (DICOM PS3.16 CID 9534)."""


def structure_from_name(name: str) -> Structure:
    """A structure of this name with the type, fixed colour and, for a target or known organ, code that belong
    to it.

    The type is guessed from the name (see :func:`medseg.structures.tg263.interpreted_type`); the name itself
    is never changed.
    """
    interpreted_type = tg263.interpreted_type(name)
    organ, _ = tg263.organ_code(name)
    code = Code(organ[0], "SCT", organ[1]) if organ else None
    if interpreted_type in TARGET_CODES:
        code = TARGET_CODES["ITV" if name.upper().startswith("ITV") else interpreted_type]
    return Structure(name, colour_rgb=fixed_colour_rgb(name), interpreted_type=interpreted_type, code=code)


def check_names_are_unique(names: Iterable[str]) -> None:
    """Raise StructureError when two names differ at most by the case of their letters: systems would mix them
    up."""
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            other = seen[name.casefold()]
            raise StructureError(f"two structures are called {other!r} and {name!r}; give each its own name.")
        seen[name.casefold()] = name


def name_warnings(names: Iterable[str]) -> list[str]:
    """A sentence for all names that TG-263 would write differently for the same reason, with a suggestion for
    each where it is certain."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in names:
        check = tg263.check_name(name)
        if check.problems:
            found.setdefault("; ".join(check.problems), []).append((name, check.suggestion or ""))
    return [_name_warning(problems, rows) for problems, rows in found.items()]


def _name_warning(problems: str, rows: list[tuple[str, str]]) -> str:
    if len(rows) == 1:
        name, suggestion = rows[0]
        hint = f" TG-263 calls it {suggestion}." if suggestion else ""
        return f"structure name {name!r}: {problems}.{hint} It is written as given."
    listed = ", ".join(f"{name!r} (TG-263: {other})" if other else repr(name) for name, other in rows)
    return f"structure names {listed}: {problems}. They are written as given."
