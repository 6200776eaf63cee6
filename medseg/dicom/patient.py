"""Whether two headers speak of the same person: by PatientID, name, birth date and sex, as far as both know
them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from pydicom.dataset import Dataset

from medseg.dicom.charset import unstated_text
from medseg.dicom.plain import value_of

PATIENT_FIELDS = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
"""What tells people apart. Anonymisers often give all patients one PatientID, or none, so it never counts
alone."""


def patient_of(dataset: Dataset) -> dict[str, str]:
    """{field of PATIENT_FIELDS: its value}, "" where it is missing or empty."""
    return {field: str(value_of(dataset, field) or "").strip() for field in PATIENT_FIELDS}


def differing_field(one: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """The first field that both know and that differs; None where nothing speaks against one person.

    Names are the same when the words of one are among those of the other, in any order, case, spelling of
    accents and separators: "Doe^Jane" and "DOE, Jane M".
    """
    for field in PATIENT_FIELDS:
        said, known = one.get(field, ""), other.get(field, "")
        if field == "PatientName":
            words, others = name_words(said), name_words(known)
            if words and others and not (words <= others or others <= words):
                return field
        elif said and known and said.casefold().rstrip("^") != known.casefold().rstrip("^"):
            return field
    return None


def name_words(name: str) -> frozenset[str]:
    """The words of a person's name without case, accents and order; of its alphabetic form, if it has one."""
    alphabetic = next((group for group in name.split("=") if group.strip(" ^")), "")
    alphabetic = unstated_text(alphabetic)  # its writer may have stated no character set
    plain = "".join(c for c in unicodedata.normalize("NFKD", alphabetic) if not unicodedata.combining(c))
    return frozenset(re.split(r"[\s^,._-]+", plain.casefold())) - {""}
