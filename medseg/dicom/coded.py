"""Coded concepts of a structure, for structure sets and segmentations alike (DICOM PS3.16 CID 244, 9502,
9534)."""

from __future__ import annotations

from medseg.structures import tg263
from medseg.structures.structure import TARGET_CODES, Code, Structure

ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
RT_TARGET = Code("130041", "DCM", "RT Target")
EXTERNAL_BODY_MODEL = Code("130047", "DCM", "External Body Model")
NON_SPECIFIC_VOLUME = Code("130046", "DCM", "Non-specific Volume")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
MANUAL_PROCESSING = Code("123109", "DCM", "Manual Processing")
TISSUE = Code("85756007", "SCT", "Tissue")
SIDES = {"L": Code("7771000", "SCT", "Left"), "R": Code("24028007", "SCT", "Right")}


def category_code(structure: Structure) -> Code:
    """What kind of thing a structure is: an RT target, the body's outline, an anatomical structure, or just a
    volume."""
    if structure.interpreted_type in TARGET_CODES:
        return RT_TARGET
    if structure.interpreted_type == "EXTERNAL":
        return EXTERNAL_BODY_MODEL
    if structure.interpreted_type in ("ORGAN", "OAR", "AVOIDANCE", "CAVITY"):
        return ANATOMICAL_STRUCTURE
    return NON_SPECIFIC_VOLUME


def unspecific_code(structure: Structure) -> Code:
    """The type of a segment that has no code of its own: what its category allows to say without guessing."""
    return EXTERNAL_BODY_MODEL if structure.interpreted_type == "EXTERNAL" else TISSUE


def side_code(structure: Structure) -> Code | None:
    """Left or right, for a structure whose name is a known organ with its side; else None."""
    return SIDES.get(tg263.organ_code(structure.name)[1])
