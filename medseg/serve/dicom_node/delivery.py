"""Results go back by C-STORE or STOW-RS, and again until they are accepted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE

from medseg.serve.dicom_node.answers import DUE, GIVEN_UP, SENT, Delivery
from medseg.serve.dicom_node.config import Target
from medseg.serve.dicom_node.secure import client_context

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 3600.0
"""After the first refusal, doubled after each further one, and never longer than an hour."""

ACCEPTED = (0x0000, 0xB000, 0xB006, 0xB007)
"""Success, and the warnings of PS3.4 table B.2-1 with which an object is stored all the same."""

UNCOMPRESSED = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


class NotAccepted(Exception):
    """Why a target did not take the results: a few words without any value of a file."""


def pause_s(attempts: int) -> float:
    """How long to wait after so many attempts: 30 s, 1 min, 2 min … 1 h."""
    return min(FIRST_PAUSE_S * 2 ** max(attempts - 1, 0), LONGEST_PAUSE_S)


def attempted(delivery: Delivery, now: float, keep_trying_s: float, send: Callable[[], None]) -> Delivery:
    """Send once; the delivery as it is then: sent, due again after a pause, or given up after
    ``keep_trying_s``."""
    attempts = delivery.attempts + 1
    try:
        send()
    except NotAccepted as error:
        late = now - delivery.since >= keep_trying_s
        next_at = now + pause_s(attempts)
        state = GIVEN_UP if late else DUE
        return replace(delivery, state=state, attempts=attempts, next_at=next_at, error=str(error))
    return replace(delivery, state=SENT, attempts=attempts, error=None)


def send(files: Sequence[Path], target: Target, calling: str) -> None:
    """Give all files to a target; returns when it has accepted every one. NotAccepted otherwise: then all are
    sent again, and a store knows the objects that it has by their UIDs."""
    if not files:
        raise NotAccepted("a result is no longer on the disk")
    try:
        if target.stow is not None:
            _stow(files, target)
        else:
            _store(files, target, calling)
    except NotAccepted:
        raise
    except FileNotFoundError as error:
        raise NotAccepted("a result is no longer on the disk") from error
    except Exception as error:  # of a network, its libraries and the other side there is no list
        raise NotAccepted(type(error).__name__) from error


def _store(files: Sequence[Path], target: Target, calling: str) -> None:
    datasets = [dcmread(path) for path in files]
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.connection_timeout = 30
    entity.dimse_timeout = entity.network_timeout = 300
    for sop_class, syntax in dict.fromkeys(
        (str(d.SOPClassUID), str(d.file_meta.TransferSyntaxUID)) for d in datasets
    ):
        # Uncompressed objects may be encoded anew for a store that wants them so; others go as they are.
        entity.add_requested_context(sop_class, UNCOMPRESSED if syntax in UNCOMPRESSED else [syntax])
    tls = (client_context(target.tls), None) if target.tls else None
    association = entity.associate(
        target.host, int(target.port or 0), ae_title=str(target.ae_title), tls_args=tls
    )
    if not association.is_established:
        raise NotAccepted("the association was rejected" if association.is_rejected else "no connection")
    try:
        for dataset in datasets:
            try:
                status = association.send_c_store(dataset)
            except ValueError as error:
                raise NotAccepted("it takes no such objects") from error
            if "Status" not in status:
                raise NotAccepted("the association ended before the answer")
            if status.Status not in ACCEPTED:
                raise NotAccepted(f"status 0x{status.Status:04X}")
    finally:
        if association.is_established:
            association.release()


def _stow(files: Sequence[Path], target: Target) -> None:
    from dicomweb_client.api import DICOMwebClient
    from requests import HTTPError

    headers = {}
    if target.authorization_env:
        headers["Authorization"] = os.environ.get(target.authorization_env, "")
    client = DICOMwebClient(str(target.stow), headers=headers)
    try:
        answer = client.store_instances([dcmread(path) for path in files])
    except HTTPError as error:
        raise NotAccepted(f"HTTP {error.response.status_code}") from error
    failed = answer.get("FailedSOPSequence") or []
    if failed:
        raise NotAccepted(f"it refused {len(failed)} of {len(files)} objects")
