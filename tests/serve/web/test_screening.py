"""A result that screens: what the number means, where the network looked, a questionnaire, and a way on."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from chest_files import write_dx
from PIL import Image
from web_visits import answered, client_of, send

from medseg.phantoms.hip import make_hip
from medseg.serve.web.screening import QUESTIONNAIRES


def hip_file(path, **header) -> bytes:
    """A DX film of a phantom with a T-score of -4."""
    pixels = np.rint(make_hip(5001, -4.0, "R", pixels=160).image * 4095).astype(np.uint16)
    return write_dx(path, pixels, BodyPartExamined="HIP", **header).read_bytes()


@pytest.fixture
def store():
    """(port, UIDs that it got) of a store of reports on the loopback."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    got: list[str] = []
    entity = AE(ae_title="PACS")
    entity.supported_contexts = AllStoragePresentationContexts

    def keep(event) -> int:
        got.append(event.dataset.SOPInstanceUID)
        return 0x0000

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    yield server.socket.getsockname()[1], got
    server.shutdown()


@pytest.fixture(scope="module")
def seen(site_dir, tmp_path_factory):
    """(client, address) of a finished job of one film, for tests that only look."""
    client = client_of("screened")
    film = hip_file(tmp_path_factory.mktemp("film") / "film.dcm", ImageLaterality="R")
    study = send(client, {"film.dcm": film}).url
    return client, answered(client, study, image="pictures:p0001", bundle="hip_osteoporosis")


def test_a_film_of_a_hip_gets_a_page_that_explains_its_number(seen, site_says):
    client, job = seen
    site_says(appointment_url="https://clinic.example/appointments")
    answer = client.get(job)
    page = answer.content.decode()
    name, chance, interval = answer.context["labels"]["probabilities"][1]
    assert name == "osteoporosis" and chance > 0.9 and 0.5 < interval[0] <= interval[1] <= 1
    assert "Not for diagnosis" in page and "This is not a diagnosis." in page
    assert "know no patient" in page  # its metadata's own explanation
    assert 'href="https://clinic.example/appointments"' in page and "/manual/" in page
    assert "Self-assessment" in page and "doi:10.1007/s001980170070" in page
    client.post("/language/", {"language": "zh-hans", "next": "/"})
    assert "骨密度须用双能" in client.get(job).content.decode()
    client.post("/language/", {"language": "en", "next": "/"})


def test_the_map_of_where_the_network_looked_is_a_layer_of_the_film_s_size(seen):
    client, job = seen
    page = client.get(job)
    case = page.context["case"]
    assert 'id="opacity"' in page.content.decode() and 'data-layer="heat"' in page.content.decode()
    layer = np.asarray(Image.open(io.BytesIO(client.get(f"{job}cases/{case}/overlays/map.png").content)))
    stored = b"".join(client.get(f"{job}cases/{case}/files/map.png").streaming_content)
    heat = np.asarray(Image.open(io.BytesIO(stored)))
    assert heat.shape == (160, 160) and heat.dtype == np.uint8 and np.ptp(heat) > 100
    assert np.array_equal(layer[..., 3], heat)  # clear where the network did not look


def test_the_answer_is_a_dicom_report_to_take_home_and_to_send_after_the_review(
    seen, logged_in, site_says, store
):
    client, job = seen
    case = client.get(job).context["case"]
    content = b"".join(client.get(f"{job}cases/{case}/files/SR.dcm").streaming_content)
    report = pydicom.dcmread(io.BytesIO(content))
    assert report.Modality == "SR" and "osteoporosis" in str(report)
    port, got = store
    site_says(targets=[{"name": "PACS", "host": "127.0.0.1", "port": port, "ae_title": "PACS"}])
    reviewer = logged_in("reviewer")
    assert reviewer.post(f"{job}send", {"target": "PACS"}).status_code == 400 and got == []
    reviewer.post(f"{job}review", {"reviewed": "on"})
    assert (
        "1 objects accepted" in reviewer.post(f"{job}send", {"target": "PACS"}, follow=True).content.decode()
    )
    assert got == [report.SOPInstanceUID]


def test_a_side_that_the_file_does_not_say_is_asked_for_and_never_guessed(client, tmp_path):
    study = send(client, {"film.dcm": hip_file(tmp_path / "film.dcm")}).url
    form = {"image": "pictures:p0001", "bundle": "hip_osteoporosis"}
    failed = client.get(f"{answered(client, study, **form)}progress").json()
    assert failed["state"] == "failed" and "nobody says which side" in failed["reason"]
    assert client.get(f"{answered(client, study, **form, side='R')}progress").json()["state"] == "done"


def test_a_side_that_is_none_is_refused_before_anything_is_queued(client, upload, tmp_path):
    study = upload(client, {"film.dcm": hip_file(tmp_path / "film.dcm")}).url
    assert b'name="side"' in client.get(study).content
    form = {"image": "pictures:p0001", "bundle": "hip_osteoporosis", "side": "up"}
    answer = client.post(f"{study}contour", form)
    assert answer.status_code == 400 and b"expected L or R" in answer.content


@pytest.mark.parametrize(
    ("age", "weight_kg", "index", "risk"),
    [
        ("50", "60", 2, "low"),  # 0.2 x 10
        ("60", "57", 0, "low"),  # -0.6 becomes 0, towards zero
        ("60", "55", -1, "medium"),
        ("70", "46", -4, "medium"),  # -4.8 becomes -4
        ("70", "45", -5, "high"),
        ("83", "40", -8, "high"),
    ],
)
def test_the_index_is_cut_off_towards_zero_and_banded_as_published(client, age, weight_kg, index, risk):
    answer = client.post("/self-assessment/osta/", {"age": age, "weight_kg": weight_kg})
    assert answer.context["index"] == index and answer.context["band"] == risk
    assert b"not stored" in answer.content


@pytest.mark.parametrize("weight_kg", ["", "x", "nan", "inf", "-3", "5000"])
def test_an_answer_that_is_no_number_gets_no_index(client, weight_kg):
    answer = client.post("/self-assessment/osta/", {"age": "60", "weight_kg": weight_kg})
    assert answer.status_code == 400 and "index" not in answer.context
    assert b"expected a number from 25 to 200" in answer.content


def test_a_self_assessment_leaves_no_trace(client):
    from medseg.serve.web.models import Event

    before = Event.objects.count()
    client.post("/self-assessment/osta/", {"age": "61", "weight_kg": "52"})
    assert Event.objects.count() == before
    assert client.get("/self-assessment/other/").status_code == 404


def test_bands_ascend_and_the_last_takes_every_index():
    for one in QUESTIONNAIRES.values():
        ends = [highest for _, _, highest in one.bands]
        assert ends == sorted(ends) and ends[-1] == float("inf")


def test_a_bundle_without_such_metadata_gets_no_questionnaire(site_dir):
    from medseg.serve.web.screening import screening_of

    assert screening_of("cxr_anatomy") == {} and screening_of("no_such_bundle") == {}
    assert screening_of("hip_osteoporosis")["self_assessment"] == "osta"


def test_the_card_of_a_bundle_is_read_on_the_site_without_markup_of_its_own(
    client, site_dir, tmp_path, monkeypatch
):
    page = client.get("/bundle/?bundle=hip_osteoporosis").content.decode()
    assert "<h1>hip_osteoporosis" in page and "<td" in page
    assert client.get("/bundle/?bundle=../../etc").status_code == 404
    from medseg.serve.web.views import reading

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text(
        "<script>alert(1)</script> [x](javascript:alert(1)) ![i](http://e/i) "
        "[far](https://e.example/x) [near](../../near.md)"
    )

    class Other:
        name, folder = "other", tmp_path

    monkeypatch.setattr(reading, "listed_bundle", lambda name: Other)
    page = client.get("/bundle/?bundle=other").content.decode()
    assert "<script>alert" not in page and 'href="javascript' not in page and '<img src="http' not in page
    assert '<a href="https://e.example/x">far</a> near</p>' in page  # files beside it are not on the site
