"""Projection radiographs (CR, DX): grey pictures with, perhaps, a pixel spacing, and without a place in the
patient."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID

from medseg.dicom.images.header import why_refused
from medseg.dicom.images.pixels import read_slices
from medseg.dicom.images.scan import SliceRecord
from medseg.dicom.images.single import picture_header, positive_pair, require_a_picture
from medseg.errors import InputError

RADIOGRAPH_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.7": "secondary capture of modality CR, DX or RG",
}
"""SOP Classes that are read: Computed Radiography, Digital X-Ray for presentation, and exports that kept the
modality."""

FOR_PROCESSING_CLASS_UID = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE_CLASS_UID = "1.2.840.10008.5.1.4.1.1.7"
RADIOGRAPH_MODALITIES = ("CR", "DX", "RG")


@dataclass(frozen=True, eq=False)
class Projection:
    """One radiograph. ``pixels``: float32 [row, column], 0 (black) to 1 (white, dense), as a viewer shows it.

    ``header``: without pixels. ``shown``: in words, how stored numbers became grey. ``spacing_mm``: (between
    rows, between columns), None where the file does not say; ``spacing_from``: which attribute it stands in
    and where it holds.
    """

    header: Dataset = field(repr=False)
    pixels: np.ndarray = field(repr=False)
    shown: str
    spacing_mm: tuple[float, float] | None
    spacing_from: str


def why_no_radiograph(path: str | os.PathLike) -> str | None:
    """Why a file is no radiograph that :func:`read_projection` takes, by its header alone; None when it is
    one.

    "" stands for a file that is not DICOM at all.
    """
    return why_refused(Path(path), _other_kind)


def _other_kind(header: Dataset) -> str | None:
    kind = str(header.get("SOPClassUID", ""))
    if kind == FOR_PROCESSING_CLASS_UID or str(header.get("PresentationIntentType", "")) == "FOR PROCESSING":
        return "raw detector values (FOR PROCESSING); export the image for presentation"
    if kind not in RADIOGRAPH_CLASSES:
        return f"{UID(kind).name or 'no SOP Class'}, not a projection radiograph (CR or DX)"
    modality = str(header.get("Modality", ""))
    if kind == SECONDARY_CAPTURE_CLASS_UID and modality not in RADIOGRAPH_MODALITIES:
        return f"a secondary capture of modality {modality or 'unknown'}, not of a projection radiograph"
    return None


def read_projection(path: str | os.PathLike) -> Projection:
    """Read one CR or DX file.

    Stored numbers go through the Modality LUT or rescale, then the first VOI LUT or window of the file (DICOM
    PS3.3 C.11.1, C.11.2), then to 0..1 between their extremes; MONOCHROME1 is turned over, padding is black.
    InputError for any other SOP Class, raw (FOR PROCESSING) values, colour, several frames, a picture of one
    value, and for a PatientOrientation in which the patient's left is not on the viewer's right: sides would
    be exchanged.
    """
    path = Path(path)
    with picture_header(path, _other_kind, _require_a_frontal_grey_picture) as header:
        nowhere = np.full(3, np.nan)
        record = SliceRecord(path, None, header, nowhere, np.full(6, np.nan), nowhere[:2], None, "", ())
        _, stored = next(read_slices([record]))
        pixels, shown = _grey(stored, header, path)
        spacing_mm, spacing_from = _spacing(header)
    return Projection(header, pixels, shown, spacing_mm, spacing_from)


def _require_a_frontal_grey_picture(header: Dataset) -> None:
    kind = str(header.get("PhotometricInterpretation", ""))
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(
            f"PhotometricInterpretation {kind or 'missing'}; expected MONOCHROME1 or MONOCHROME2"
        )
    _require_patients_left_on_the_right(header)


def _require_patients_left_on_the_right(header: Dataset) -> None:
    """InputError when PatientOrientation (DICOM PS3.3 C.7.6.1.1.1) is there and is not Left, Foot."""
    told = [str(part) for part in header.get("PatientOrientation") or ()]
    if len(told) == 2 and not (told[0].startswith("L") and told[1].startswith("F")):
        raise InputError(
            f"PatientOrientation {told[0]}\\{told[1]}; expected L\\F, a frontal picture upright with the "
            "patient's left on the viewer's right. Turn the image first, or sides would be exchanged"
        )


def _grey(stored: np.ndarray, header: Dataset, path: Path) -> tuple[np.ndarray, str]:
    """0..1 as shown, and in words how."""
    numbers = stored.astype(np.int64)
    padding = _padding(numbers, header)
    values = apply_modality_lut(numbers.astype(np.int32), header)
    window = _window_words(header)
    if window:
        values = apply_voi_lut(values.astype(np.int32) if _has_voi_lut(header) else values, header, index=0)
    values = np.asarray(values, dtype=np.float64)
    seen = values[~padding]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)
    require_a_picture(low, high, path)
    grey = np.clip((values - low) / (high - low), 0, 1)
    words = window or "whole range of values"
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey, words = 1 - grey, f"{words}, MONOCHROME1 turned over"
    grey[padding] = 0
    return grey.astype(np.float32), words


def _padding(numbers: np.ndarray, header: Dataset) -> np.ndarray:
    """bool: pixels that the file declares as padding (PixelPaddingValue, and its range where one is
    given)."""
    if "PixelPaddingValue" not in header:
        return np.zeros(numbers.shape, dtype=bool)
    limits = [
        int(header.PixelPaddingValue),
        int(header.get("PixelPaddingRangeLimit", header.PixelPaddingValue)),
    ]
    return (numbers >= min(limits)) & (numbers <= max(limits))


def _has_voi_lut(header: Dataset) -> bool:
    return bool(header.get("VOILUTSequence"))


def _window_words(header: Dataset) -> str:
    """Which of the file's windows is used; "" where it has none."""
    if _has_voi_lut(header):
        return (
            f"first of {len(header.VOILUTSequence)} VOI LUTs" if len(header.VOILUTSequence) > 1 else "VOI LUT"
        )
    centre, width = header.get("WindowCenter"), header.get("WindowWidth")
    if centre in (None, "") or width in (None, ""):
        return ""
    centres, widths = np.atleast_1d(centre), np.atleast_1d(width)
    more = f" (first of {len(centres)})" if len(centres) > 1 else ""
    kind = str(header.get("VOILUTFunction", "") or "LINEAR")
    return f"window centre {float(centres[0]):g}, width {float(widths[0]):g}{more}, {kind}"


def _spacing(header: Dataset) -> tuple[tuple[float, float] | None, str]:
    """(between rows, between columns) in mm and what they are, by DICOM PS3.3 10.7.1.3; (None, "") where none
    is given.

    PixelSpacing differs from ImagerPixelSpacing only where somebody calibrated it to the patient; otherwise
    both are distances at the detector, where everything is larger than in the patient.
    """
    detector, calibrated = (positive_pair(header, name) for name in ("ImagerPixelSpacing", "PixelSpacing"))
    if calibrated is not None and (
        header.get("PixelSpacingCalibrationType") or (detector and detector != calibrated)
    ):
        kind = str(header.get("PixelSpacingCalibrationType") or "of unknown kind")
        return calibrated, f"PixelSpacing, calibrated ({kind})"
    if detector is not None:
        return detector, "ImagerPixelSpacing, at the detector"
    if calibrated is not None:
        return calibrated, "PixelSpacing, not said whether at the detector or in the patient"
    return None, ""
