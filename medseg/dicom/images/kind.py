"""What the numbers of a series are, and whether all of it is there, as far as its headers tell."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.images.scan import SliceRecord
from medseg.dicom.plain import value_of

OTHER_QUANTITIES = frozenset(("MGML", "Z_EFF", "ED", "EDW", "PCT", "OD"))
"""RescaleType of CT images that hold no HU but iodine, atomic numbers, electron density (DICOM PS3.3
C.11.1.1.2)."""

OTHER_IMAGES = (
    "IODINE",
    "MAT_SPECIFIC",
    "MAT_FRACTIONAL",
    "MAT_VALUE_BASED",
    "EFF_ATOMIC",
    "ELECTRON_DENSITY",
)
"""In ImageType: maps of a material made from two energies (DICOM PS3.3 C.8.15.2.1.1)."""

VIRTUAL_IMAGES = ("VIRTUAL", "VMI", "VNC", "MONOE", "MONO_E", "MAT_REMOVED", "MAT_MODIFIED")
"""In ImageType: HU, but of an image that was computed."""


def another_modality(modality: str, records: Sequence[SliceRecord]) -> str | None:
    """What speaks against the modality of the SOP Class: slices whose Modality is another one."""
    for record in records:
        said = str(value_of(record.dataset, "Modality") or "").strip()
        if said not in ("", modality):
            return f"{record.path.name} says Modality {said} under the SOP Class of {modality} images"
    return None


def another_quantity(records: Sequence[SliceRecord]) -> str | None:
    """What says that a CT's numbers are no HU: its RescaleType or ImageType."""
    for record in records:
        if record.rescale_type in OTHER_QUANTITIES:
            return f"RescaleType {record.rescale_type} of {record.path.name}: the numbers are no HU"
        word = _word_of(record, OTHER_IMAGES)
        if word:
            return f"ImageType {word} of {record.path.name}: the numbers are no HU"
    return None


def mixed_units(modality: str, records: Sequence[SliceRecord]) -> str | None:
    """Units that differ between slices: RescaleType, and Units of PET."""
    kinds = sorted({record.rescale_type for record in records})
    if len(kinds) > 1:
        return f"RescaleType differs between slices: {', '.join(kind or 'none' for kind in kinds)}"
    if modality == "PT":
        units = sorted({str(record.dataset.get("Units") or "none") for record in records})
        if len(units) > 1:
            return f"Units differ between slices: {', '.join(units)}"
    return None


def mixed_rescale(records: Sequence[SliceRecord]) -> str | None:
    """Files whose numbers mean something else than those of the first: RescaleSlope, RescaleIntercept, or
    whether they are signed. Frames of one file have their own slopes."""
    signs = {value_of(record.dataset, "PixelRepresentation"): record.path.name for record in records}
    if len(signs) > 1:
        listed = ", ".join(f"{name} {sign}" for sign, name in signs.items())
        return f"PixelRepresentation differs between slices: {listed}"
    files = [(r.path.name, r.rescale) for r in records if r.rescale and r.frame is None]
    for name, rescale in files[1:]:
        if not np.allclose(files[0][1], rescale, rtol=1e-6):
            pairs = (
                f"{file} {slope:g} and {level:g}" for file, (slope, level) in (files[0], (name, rescale))
            )
            return f"RescaleSlope and RescaleIntercept differ between slices: {', '.join(pairs)}"
    return None


def _word_of(record: SliceRecord, words: Sequence[str]) -> str | None:
    return next((kind for kind in record.image_types if any(word in kind.upper() for word in words)), None)


def kind_remarks(modality: str, records: Sequence[SliceRecord]) -> list[str]:
    """What a reader should know of a CT's numbers although they are read as HU."""
    remarks = []
    kinds = sorted({record.rescale_type for record in records} - {"", "HU", "HU_MOD", *OTHER_QUANTITIES})
    if modality == "CT" and kinds:
        remarks.append(f"RescaleType {', '.join(kinds)}: the values are not declared to be HU.")
    virtual = _word_of(records[0], VIRTUAL_IMAGES)
    if modality == "CT" and virtual:
        remarks.append(f"ImageType {virtual}: the images were computed (virtual), not measured.")
    if any(value_of(record.dataset, "LossyImageCompression") == "01" for record in records):
        remarks.append("the images were compressed with loss.")
    return remarks


def absence_remarks(records: Sequence[SliceRecord], gaps_mm: np.ndarray) -> list[str]:
    """What suggests that others are missing where no hole shows it: every second one, or the ends.

    ``records``: slices in stack order. ``gaps_mm``: between them, positive.
    """
    remarks = []
    counts = {
        _number(record, "ImagesInAcquisition") or _number(record, "NumberOfSlices") for record in records
    }
    counted = counts.pop() if len(counts) == 1 else None
    if counted and counted > len(records):
        remarks.append(f"its headers count {counted:g} images, {len(records)} are here: some may be missing.")
    if len(records) < 3:
        return remarks
    gap_mm, thickness_mm = float(np.median(gaps_mm)), _number(records[0], "SliceThickness")
    found = [_number(record, "InstanceNumber") for record in records]
    numbers = [number for number in found if number is not None]
    steps = np.abs(np.diff(numbers)) if len(numbers) == len(found) else np.ones(1)
    if thickness_mm and gap_mm > 1.9 * thickness_mm:
        what = f"slices are {gap_mm:.2f} mm apart and {thickness_mm:.2f} mm thick"
        remarks.append(f"{what}: others may be missing between them.")
    elif steps[0] > 1 and (steps == steps[0]).all():
        remarks.append(f"InstanceNumber goes in steps of {steps[0]:g}: slices between may be missing.")
    return remarks


def _number(record: SliceRecord, keyword: str) -> float | None:
    """An attribute that only remarks need, as a number; None where it is missing or no number."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = value_of(record.dataset, keyword)
        return float(value) if isinstance(value, int | float) else None
    except PARSE_ERRORS:
        return None
