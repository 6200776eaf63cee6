"""A sender that asks whether it may delete is told what lies on the disk and what does not."""

from __future__ import annotations

import pydicom
import pytest
from dicom_peers import free_port, node_config, send, small_study, wait_until
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel

from medseg.serve.dicom_node.commitment import WELL_KNOWN_INSTANCE
from medseg.serve.dicom_node.index import Index
from medseg.serve.dicom_node.receiver import listen


def question(uids, transaction="2.25.77"):
    asked = Dataset()
    asked.TransactionUID = transaction
    asked.ReferencedSOPSequence = []
    for uid in uids:
        row = Dataset()
        row.ReferencedSOPClassUID, row.ReferencedSOPInstanceUID = CTImageStorage, uid
        asked.ReferencedSOPSequence.append(row)
    return asked


@pytest.fixture(params=["on the sender's association", "at an address of its own"])
def scanner(request, tmp_path):
    """(function that asks the node, reports that came back, files of which the last was never sent)"""
    reports, own_port = [], free_port()
    elsewhere = request.param != "on the sender's association"
    commitment = {"CT1": f"127.0.0.1:{own_port}"} if elsewhere else {}
    config, _ = node_config(tmp_path, listen={"commitment": commitment})

    def report(event):
        reports.append((event.event_type, event.event_information))
        return 0, None

    handlers = [(evt.EVT_N_EVENT_REPORT, report)]
    entity = AE(ae_title="CT1")
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    entity.add_requested_context(StorageCommitmentPushModel)
    listening = entity.start_server(("127.0.0.1", own_port), block=False, evt_handlers=handlers)
    receiver = listen(config, Index(config.folder))
    paths = small_study(tmp_path / "ct", seed=1)
    assert send(config.listen.port, paths[:3]) == [0, 0, 0]

    def ask(dataset):
        role = build_role(StorageCommitmentPushModel, scu_role=True, scp_role=False)
        link = entity.associate(
            "127.0.0.1", config.listen.port, ae_title="MEDSEG", ext_neg=[role], evt_handlers=handlers
        )
        assert link.is_established
        status, _ = link.send_n_action(dataset, 1, StorageCommitmentPushModel, WELL_KNOWN_INSTANCE)
        if status.Status == 0 and not elsewhere:
            wait_until(lambda: reports)
        link.release()
        return status.Status

    yield ask, reports, paths
    receiver.server.shutdown()
    listening.shutdown()


def test_all_that_was_received_is_committed_to(scanner):
    ask, reports, paths = scanner
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in paths]
    assert ask(question(uids[:3])) == 0
    ((kind, outcome),) = wait_until(lambda: list(reports))
    assert kind == 1 and outcome.TransactionUID == "2.25.77"
    assert [row.ReferencedSOPInstanceUID for row in outcome.ReferencedSOPSequence] == uids[:3]
    assert "FailedSOPSequence" not in outcome


def test_what_never_came_is_named_as_missing(scanner):
    ask, reports, paths = scanner
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in paths]
    assert ask(question(uids)) == 0
    ((kind, outcome),) = wait_until(lambda: list(reports))
    assert kind == 2 and len(outcome.ReferencedSOPSequence) == 3
    (missing,) = outcome.FailedSOPSequence
    assert (missing.ReferencedSOPInstanceUID, missing.FailureReason) == (uids[3], 0x0112)


def test_a_question_without_a_transaction_is_refused(scanner):
    ask, reports, _ = scanner
    assert ask(question(["2.25.1"], transaction="")) == 0x0115
    assert reports == []
