"""A result is sent on after a person has looked at it, and what is not accepted is not called sent."""

from __future__ import annotations

import re
import threading

import pytest

pynetdicom = pytest.importorskip("pynetdicom", reason="C-STORE needs pynetdicom: medseg[serve]")


@pytest.fixture
def node():
    """A storage node on the loopback: (port, what it got, {"status": …} that it answers with)."""
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import RTStructureSetStorage, SegmentationStorage

    got, answer = [], {"status": 0x0000}

    def store(event):
        if answer["status"] == 0:
            got.append(str(event.request.AffectedSOPClassUID.name))
        return answer["status"]

    entity = AE(ae_title="PLANNING")
    for sop_class in (RTStructureSetStorage, SegmentationStorage):
        entity.add_supported_context(sop_class, pynetdicom.ALL_TRANSFER_SYNTAXES)
    entity.require_called_aet = True
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield server.socket.getsockname()[1], got, answer
    server.shutdown()
    assert threading.active_count() < 60


@pytest.fixture
def reviewed(finished, logged_in, site_says, node):
    """(reviewer, job) where the site lists the node."""
    site_says(targets=[{"name": "Planning", "host": "127.0.0.1", "port": node[0], "ae_title": "PLANNING"}])
    reviewer = logged_in("reviewer")
    yield reviewer, finished[1]
    reviewer.post(f"{finished[1]}review", {})


def test_a_result_is_sent_after_the_review_and_not_before(reviewed, node):
    reviewer, job = reviewed
    before = reviewer.post(f"{job}send", {"target": "Planning"})
    assert before.status_code == 400 and node[1] == []
    assert reviewer.post(f"{job}review", {"reviewed": "on"}).url == job
    assert f"reviewed by {reviewer.username}" in reviewer.get(job).content.decode()
    page = reviewer.post(f"{job}send", {"target": "Planning"}, follow=True).content.decode()
    assert sorted(node[1]) == ["RT Structure Set Storage", "Segmentation Storage"]
    assert "2 objects accepted by Planning." in page
    assert reviewer.post(f"{job}send", {"target": "127.0.0.1"}).status_code == 400
    # Withdrawn, nothing more is sent.
    reviewer.post(f"{job}review", {})
    assert reviewer.post(f"{job}send", {"target": "Planning"}).status_code == 400


def test_a_node_that_refuses_is_not_called_a_success(reviewed, node):
    reviewer, job = reviewed
    reviewer.post(f"{job}review", {"reviewed": "on"})
    node[2]["status"] = 0xA700  # out of resources
    answer = reviewer.post(f"{job}send", {"target": "Planning"})
    assert answer.status_code == 502 and b"status 0xA700" in answer.content
    assert b"sending failed" in reviewer.get("/trail/").content


def test_a_node_that_is_not_there_is_named(reviewed, site_says):
    reviewer, job = reviewed
    reviewer.post(f"{job}review", {"reviewed": "on"})
    site_says(targets=[{"name": "Away", "host": "127.0.0.1", "port": 9, "ae_title": "X"}])
    answer = reviewer.post(f"{job}send", {"target": "Away"})
    assert answer.status_code == 502 and b"Away does not answer" in answer.content


def test_the_report_names_who_reviewed_it(reviewed):
    from medseg.serve.web.models import Job
    from medseg.serve.web.pdf import lines_of, pdf_of
    from medseg.serve.web.tasks import results

    reviewer, job = reviewed
    kept = Job.objects.get(id=job.split("/")[2])
    folder, record = results(kept)[0]
    assert "Review: not reviewed" in lines_of(kept, folder, record)
    reviewer.post(f"{job}review", {"reviewed": "on"})
    kept.refresh_from_db()
    said = "\n".join(lines_of(kept, folder, record))
    assert f"reviewed by {reviewer.username}" in said and "Research use only" in said
    found = re.search(r"GTV +\w* +([0-9.]+) cc", said)
    assert float(found.group(1)) == pytest.approx(4.86, abs=0.05)  # 1440 voxels of 1.5 mm
    assert pdf_of(kept, folder, record).startswith(b"%PDF")
