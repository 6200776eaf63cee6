"""Studies of an archive by DICOMweb: found by QIDO-RS, fetched by WADO-RS.

Only archives that the operator listed are asked, by the address the operator wrote; what a user types becomes
a value of a query and never a part of an address, and no answer leads to another address.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient

from medseg.errors import InputError
from medseg.serve.web.archives import Budget
from medseg.serve.web.site import Pacs, the_site

UID = re.compile(r"[0-9]+(\.[0-9]+)+")
MOST_STUDIES = 50
TIMEOUT_S = 30
COLUMNS = {
    "uid": "0020000D",
    "patient_id": "00100020",
    "date": "00080020",
    "description": "00081030",
    "modalities": "00080061",
    "instances": "00201208",
}


def pacs_called(name: str) -> Pacs:
    """The listed archive of that name. InputError for any other: an address is never taken from a user."""
    for pacs in the_site().pacs:
        if pacs.name == name:
            return pacs
    raise InputError("this site does not list that archive; choose one that it does.")


def client_of(pacs: Pacs) -> DICOMwebClient:
    session = requests.Session()
    session.max_redirects = 0
    session.trust_env = False
    client = DICOMwebClient(pacs.url, session=session)
    client.set_http_retry_params(retry=False)
    return client


def find_studies(pacs: Pacs, patient_id: str, date: str) -> list[dict[str, Any]]:
    """Studies of a patient ID, on a date (YYYYMMDD, or a range of two with "-"); newest first. InputError
    when neither is given or the archive does not answer as it should."""
    filters = {}
    if patient_id.strip():
        filters["PatientID"] = patient_id.strip()[:64].replace("*", "").replace("?", "").replace("\\", "")
    if date.strip():
        if not re.fullmatch(r"\d{8}(-\d{8})?", date.strip()):
            raise InputError(f"date {date[:20]!r}; expected YYYYMMDD or YYYYMMDD-YYYYMMDD.")
        filters["StudyDate"] = date.strip()
    if not filters.get("PatientID") and "StudyDate" not in filters:
        raise InputError("give a patient ID or a date.")
    fields = ["StudyDescription", "ModalitiesInStudy", "NumberOfStudyRelatedInstances"]
    try:
        found = client_of(pacs).search_for_studies(search_filters=filters, limit=MOST_STUDIES, fields=fields)
    except (requests.RequestException, ValueError) as error:
        raise _no_answer(pacs, error) from error
    rows = [{key: _value(row, tag) for key, tag in COLUMNS.items()} for row in found]
    return sorted(rows, key=lambda row: row["date"], reverse=True)


def _value(row: dict[str, Any], tag: str) -> str:
    values = row.get(tag, {}).get("Value", [])
    return ", ".join(str(value) for value in values if not isinstance(value, dict))[:200]


def fetch_study(pacs: Pacs, study_uid: str, out: Path, budget: Budget) -> int:
    """Write every object of a study into ``out``, counted while it comes in; returns how many. InputError for
    what is no UID, an archive that fails, and a study of nothing; RefusedUpload above the limits."""
    if not (UID.fullmatch(study_uid) and len(study_uid) <= 64):
        raise InputError("that is no StudyInstanceUID.")
    try:
        for number, dataset in enumerate(client_of(pacs).iter_study(study_uid), 1):
            budget.add_file()
            path = out / f"{number:06d}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            budget.add_bytes(path.stat().st_size)
    except (requests.RequestException, ValueError, AttributeError) as error:
        raise _no_answer(pacs, error) from error
    if not budget.files:
        raise InputError("the archive has no object of that study.")
    return budget.files


def _no_answer(pacs: Pacs, error: Exception) -> InputError:
    return InputError(f"{pacs.name} does not answer as it should ({type(error).__name__}).")
