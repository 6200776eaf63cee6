"""DICOM files without the patient's name: the basic profile of PS3.15 annex E, by dicom-anonymizer.

What that library leaves to its caller is done here: nested data sets, references that still hold within one
upload, and dates that are shifted together, so that intervals (and with them SUV) stay true. Weight and size
stay for the same reason (Retain Patient Characteristics), ROI names since they are what is compared.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from medseg import limits
from medseg.dicom.opening import read_dicom
from medseg.files import atomic_path

TABLE = "dicomfields_2026c"
KEPT = {(0x0010, 0x1020), (0x0010, 0x1030), (0x0010, 0x0040), (0x3006, 0x0026), (0x3006, 0x0004)}
"""Patient's Size, Weight and Sex; ROI Name; Structure Set Name is replaced below, and kept from removal."""

PATIENT_ID, BIRTH_DATE = (0x0010, 0x0020), (0x0010, 0x0030)

STANDARD_UIDS = "1.2.840.10008."
"""SOP classes, transfer syntaxes and the like: names of the standard, not of a patient."""


class Names:
    """Strips the files of one upload: the same UID becomes the same new one, every date moves by the same
    number of days. Both come from a secret that is forgotten with this object."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(16)
        self.shift = timedelta(days=-(365 + secrets.randbelow(3650)))
        self.rules = self._rules()

    def write_without(self, source: Path, out: Path) -> None:
        """Write ``source`` to ``out`` without what identifies; raises what reading and the library raise."""
        dataset = read_dicom(source, pixel_bytes=limits.most("volume_voxels") * 4)
        self.strip(dataset)
        meta = dataset.file_meta
        meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
        for keyword in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle"):
            if keyword in meta:
                delattr(meta, keyword)
        dataset.preamble = b"\0" * 128
        with atomic_path(out) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)

    def strip(self, dataset: Dataset) -> None:
        """Do it to a data set in place, the nested ones first."""
        from dicomanonymizer import anonymize_dataset

        for element in dataset:
            if element.VR == "SQ" and not element.tag.is_private:
                for item in element.value:
                    self.strip(item)
        anonymize_dataset(dataset, base_rules_gen=lambda: self.rules)
        if "PatientID" in dataset:
            dataset.PatientIdentityRemoved = "YES"
            dataset.DeidentificationMethod = "medseg: PS3.15 basic profile, dates shifted"
            dataset.LongitudinalTemporalInformationModified = "MODIFIED"

    def _rules(self) -> dict[tuple[int, ...], Callable]:
        from dicomanonymizer.simpledicomanonymizer import (
            delete_or_empty_or_replace_UID,
            initialize_actions,
            keep,
            replace_UID,
        )

        rules = initialize_actions(TABLE)
        for tag, action in rules.items():
            if tag in KEPT:
                rules[tag] = keep
            elif action in (replace_UID, delete_or_empty_or_replace_UID):
                rules[tag] = self._other_uids
            elif tag == PATIENT_ID:
                rules[tag] = self._pseudonym
            elif tag == BIRTH_DATE:
                rules[tag] = _emptied
            elif len(tag) == 2 and _is_date(tag):
                rules[tag] = self._shifted
            elif len(tag) == 2 and _vr(tag) == "TM":
                rules[tag] = keep
        return rules

    def _other_uids(self, dataset: Dataset, tag: tuple[int, int]) -> None:
        element = dataset.get(tag)
        if element is None or element.VR != "UI":
            return
        values = [element.value] if isinstance(element.value, str) else list(element.value or ())
        made = [value if value.startswith(STANDARD_UIDS) else self.uid(value) for value in values]
        element.value = made if len(made) > 1 else (made or [""])[0]

    def uid(self, old: str) -> str:
        """The UID that stands for ``old`` in this upload."""
        return generate_uid(entropy_srcs=[self.secret, hashlib.sha256(old.encode()).hexdigest()])

    def _pseudonym(self, dataset: Dataset, tag: tuple[int, int]) -> None:
        """Two patients of one upload stay two."""
        if tag in dataset:
            known = hashlib.sha256(f"{self.secret}{dataset[tag].value}".encode()).hexdigest()
            dataset[tag].value = f"ANON-{known[:8]}"

    def _shifted(self, dataset: Dataset, tag: tuple[int, int]) -> None:
        element = dataset.get(tag)
        if element is None:
            return
        try:
            day = datetime.strptime(str(element.value)[:8], "%Y%m%d") + self.shift
            element.value = f"{day:%Y%m%d}{str(element.value)[8:]}"
        except ValueError:  # no date that could be shifted: it could be anything
            element.value = ""


def _emptied(dataset: Dataset, tag: tuple[int, int]) -> None:
    if tag in dataset:
        dataset[tag].value = ""


def _vr(tag: tuple[int, ...]) -> str:
    try:
        return pydicom.datadict.dictionary_VR(tag)
    except KeyError:
        return ""


def _is_date(tag: tuple[int, ...]) -> bool:
    return _vr(tag) in ("DA", "DT")


def is_burnt_in(header: Dataset) -> bool:
    """True when the pixels may show a name: the file says so, or it is a screen shot or ultrasound image that
    does not say no."""
    said = str(header.get("BurnedInAnnotation", "")).upper()
    return said == "YES" or (said != "NO" and str(header.get("Modality", "")) in ("OT", "SC", "US"))
