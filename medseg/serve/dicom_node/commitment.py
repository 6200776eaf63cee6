"""Storage commitment (PS3.4 annex J): a sender asks whether it may delete, and is told what lies here."""

from __future__ import annotations

import threading
import time

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from medseg.serve.dicom_node.config import Listen
from medseg.serve.dicom_node.index import Index
from medseg.serve.dicom_node.logs import log
from medseg.serve.dicom_node.storage import is_uid

WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
NO_SUCH_OBJECT, WRONG_REQUEST, SUCCESS = 0x0112, 0x0115, 0x0000
ALL_HELD, SOME_MISSING = 1, 2
MOST_OBJECTS = 100_000
AFTER_THE_ANSWER_S = 0.2
"""The outcome must not overtake the answer to the question."""


def answer_commitment(event: evt.Event, settings: Listen, index: Index) -> tuple[int, None]:
    """Answer an N-ACTION at once; the outcome follows as an N-EVENT-REPORT, to the address that
    ``settings.commitment`` names for the sender, else on the sender's own association."""
    asked = event.action_information
    rows = asked.get("ReferencedSOPSequence") or []
    if event.action_type != 1 or not is_uid(str(asked.get("TransactionUID", ""))) or len(rows) > MOST_OBJECTS:
        return WRONG_REQUEST, None
    sender = str(event.assoc.requestor.ae_title).strip()
    report = outcome(asked, index)
    arguments = (report, sender, settings, event.assoc)
    threading.Thread(target=_tell, args=arguments, name="commitment", daemon=True).start()
    return SUCCESS, None


def outcome(asked: Dataset, index: Index) -> Dataset:
    """The event information: which of the objects asked for are held, and which are not, with the reason."""
    report = Dataset()
    report.TransactionUID = asked.TransactionUID
    held, missing = [], []
    for row in asked.ReferencedSOPSequence:
        named = Dataset()
        named.ReferencedSOPClassUID = row.ReferencedSOPClassUID
        named.ReferencedSOPInstanceUID = row.ReferencedSOPInstanceUID
        if index.study_of(str(row.ReferencedSOPInstanceUID)) is not None:
            held.append(named)
        else:
            named.FailureReason = NO_SUCH_OBJECT
            missing.append(named)
    report.ReferencedSOPSequence = held
    if missing:
        report.FailedSOPSequence = missing
    return report


def _tell(report: Dataset, sender: str, settings: Listen, association) -> None:
    time.sleep(AFTER_THE_ANSWER_S)
    kind = SOME_MISSING if "FailedSOPSequence" in report else ALL_HELD
    instance = WELL_KNOWN_INSTANCE
    own = None
    if sender in settings.commitment:
        host, _, port = settings.commitment[sender].rpartition(":")
        entity = AE(ae_title=settings.ae_title)
        entity.add_requested_context(StorageCommitmentPushModel)
        # The roles are turned round: who reports is the provider of the service (PS3.4 J.3.3).
        role = _provider_role()
        own = entity.associate(host, int(port), ae_title=sender, ext_neg=[role])
        association = own
    state = "unreachable"
    try:
        if association.is_established:
            status, _ = association.send_n_event_report(report, kind, StorageCommitmentPushModel, instance)
            state = f"0x{status.Status:04X}" if "Status" in status else "unanswered"
    except (RuntimeError, ValueError, TypeError) as error:
        state = type(error).__name__
    finally:
        if own is not None and own.is_established:
            own.release()
    log("commitment", sender=sender, state=state, images=len(report.ReferencedSOPSequence))


def _provider_role():
    from pynetdicom import build_role

    return build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)
