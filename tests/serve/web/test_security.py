"""What a user, or a file, could try against the site: one test for each entry of the usual list."""

from __future__ import annotations

import html
import io
import zipfile

import numpy as np
import pydicom
import pytest

from medseg.phantoms.series import stack_geometry, write_series

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


# ---- other people's things ---------------------------------------------------------------------------------


def test_nobody_gets_at_a_job_of_somebody_else(finished, logged_in):
    owner, job = finished
    other = logged_in("user")
    study_id = owner.get(job).context["study"].id
    looks = ["", "progress", "everything.zip", "cases/s0001/slice", "cases/s0001/volumes/image.nii.gz"]
    looks += [f"cases/s0001/files/{name}" for name in ("RS.dcm", "run.json", "report.pdf", "preview.png")]
    for address in [*(job + part for part in looks), f"/studies/{study_id}/", f"/compare/?study={study_id}"]:
        assert owner.get(address).status_code == 200, address
        assert other.get(address).status_code == 404, address
    for address in [job + part for part in ("cancel", "delete", "review", "send")]:
        assert other.post(address).status_code == 404, address
    for part in ("contour", "delete"):
        assert other.post(f"/studies/{study_id}/{part}").status_code == 404
    assert other.post("/compare/make", {"study": study_id}).status_code == 404
    assert owner.get(job).status_code == 200
    assert study_id not in other.get("/").content.decode()


def test_a_reviewer_looks_at_everything_and_changes_nothing(finished, logged_in):
    owner, job = finished
    reviewer = logged_in("reviewer")
    study_id = owner.get(job).context["study"].id
    assert reviewer.get(job).status_code == 200 and reviewer.get(f"/studies/{study_id}/").status_code == 200
    assert reviewer.post(f"/studies/{study_id}/delete").status_code == 404
    assert reviewer.post(f"/studies/{study_id}/contour").status_code == 404
    assert reviewer.post(f"{job}delete").status_code == 404
    assert owner.get(job).status_code == 200


def test_an_administrator_keeps_accounts_and_sees_no_images(finished, logged_in):
    _, job = finished
    boss = logged_in("administrator")
    assert boss.get(job).status_code == 404 and boss.get("/admin/auth/user/").status_code == 200
    assert "looked at" not in boss.get("/").content.decode()


def test_a_user_cannot_review_and_cannot_reach_the_administration(finished):
    owner, job = finished
    assert owner.post(f"{job}review", {"reviewed": "on"}).status_code == 403
    assert owner.post(f"{job}send", {"target": "x"}).status_code == 403
    assert owner.get("/admin/").status_code == 302
    assert b"Nobody has reviewed" in owner.get(job).content


def test_the_trail_shows_a_user_only_what_that_user_did(finished, logged_in):
    owner, job = finished
    other, boss = logged_in(), logged_in("administrator")
    job_id = job.split("/")[2]
    assert job_id in owner.get("/trail/").content.decode()
    assert job_id not in other.get("/trail/").content.decode()
    assert job_id in boss.get("/trail/").content.decode()
    assert boss.get("/admin/web/event/").status_code == 200
    assert boss.get("/admin/web/event/add/").status_code == 403


# ---- texts that come from files ----------------------------------------------------------------------------


@pytest.fixture
def evil_files(tmp_path) -> dict[str, bytes]:
    geometry = stack_geometry((6, 16, 16))
    write_series(np.zeros(geometry.shape, np.float32), geometry, tmp_path / "ct")
    files = {}
    for number, path in enumerate(sorted((tmp_path / "ct").iterdir())):
        header = pydicom.dcmread(path)
        header.PatientName, header.PatientID = EVIL, EVIL[:60]
        header.SeriesDescription = header.StudyDescription = header.BodyPartExamined = EVIL[:60]
        header.save_as(path)
        files[f"{number}.dcm"] = path.read_bytes()
    return files


def test_markup_in_names_descriptions_and_file_names_is_shown_and_not_run(client, upload, evil_files):
    picture = io.BytesIO()
    from PIL import Image

    Image.new("L", (64, 48), 90).save(picture, "PNG")
    files = {**evil_files, f"{EVIL.replace('/', '')}.png": picture.getvalue(), f"{EVIL[:8]}.txt": b"text"}
    address = upload(client, files, title=EVIL).url
    for page in (address, "/", f"/compare/?study={address.split('/')[2]}", "/trail/"):
        content = client.get(page).content.decode()
        assert "<script>alert" not in content and "<img src=x" not in content, page
    content = client.get(address).content.decode()
    assert html.escape(EVIL) in content  # the user's own title, and the series description, as texts
    assert html.escape(EVIL[:60]) in content


def test_a_patient_s_name_is_on_no_page_in_no_table_and_in_no_address(client, upload, site_dir, tmp_path):
    geometry = stack_geometry((6, 16, 16))
    write_series(np.zeros(geometry.shape, np.float32), geometry, tmp_path / "ct")
    files = {}
    for path in (tmp_path / "ct").iterdir():
        header = pydicom.dcmread(path)
        header.PatientName, header.PatientID = "QUOKKA^ZELDA", "QUOKKA-17"
        header.save_as(path)
        files[path.name] = path.read_bytes()
    address = upload(client, files).url
    for page in (address, "/", "/trail/"):
        assert "QUOKKA" not in client.get(page).content.decode().upper()
    for table in site_dir.glob("*.sqlite3*"):
        assert b"QUOKKA" not in table.read_bytes()


@pytest.mark.parametrize("next_", ["https://evil.example/", "//evil.example", "javascript:alert(1)"])
def test_no_address_of_elsewhere_is_followed_after_the_log_in(account, next_):
    from django.test import Client

    name, password = account()
    answer = Client().post("/log-in/", {"username": name, "password": password, "next": next_})
    assert answer.url == "/"
    answer = Client().post("/language/", {"language": "zh-hans", "next": next_})
    assert answer.url == "/"


# ---- paths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fsecret_key",
        "../../../../secret_key",
        "secret_key",
        ".view_s0001",
        "%00",
        "RS.dcm%00.png",
        "....//RS.dcm",
    ],
)
def test_only_files_that_the_run_record_lists_are_given_out(finished, name):
    client, job = finished
    for address in (
        f"{job}cases/s0001/files/{name}",
        f"{job}cases/{name}/files/RS.dcm",
        f"{job}cases/s0001/overlays/{name}",
        f"/static/{name}",
    ):
        assert client.get(address).status_code in (400, 404), address


def test_a_run_record_that_names_other_files_opens_none_of_them(finished, site_dir):
    """A worker, not a user, writes the record; should it ever lie, the reader of run.json refuses it."""
    import json

    from medseg.serve.web.models import Job
    from medseg.serve.web.tasks import results

    job = Job.objects.get(id=finished[1].split("/")[2])
    path = job.folder / "s0001" / "run.json"
    kept = path.read_text()
    record = json.loads(kept)
    record["outputs"][0]["file"] = "../../../../../secret_key"
    path.write_text(json.dumps(record))
    try:
        assert results(job) == []
    finally:
        path.write_text(kept)
    assert len(results(job)) == 1


def test_an_error_shows_nothing_of_the_server(client, monkeypatch):
    from django.test import Client

    from medseg.serve.web.views import studies

    def broken(user):
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(studies, "studies_of", broken)
    quiet = Client(raise_request_exception=False)
    quiet.cookies = client.cookies
    answer = quiet.get("/")
    assert answer.status_code == 500
    assert b"secret of the server" not in answer.content and b"Traceback" not in answer.content


# ---- addresses that the server itself would ask ------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "localhost", ""]
)
def test_an_archive_that_the_operator_did_not_list_is_never_asked(client, site_says, monkeypatch, name):
    import requests

    site_says(pacs=[{"name": "archive", "url": "http://127.0.0.1:9/dicom-web"}])
    monkeypatch.setattr(requests.Session, "send", lambda *a, **k: pytest.fail("asked"))
    answer = client.get("/pacs/", {"pacs": name, "patient_id": "1"})
    assert b"does not list that archive" in answer.content
    assert client.post("/pacs/fetch", {"pacs": name, "uid": "1.2.3"}).status_code == 400


@pytest.mark.parametrize(
    "uid", ["../../instances", "1.2.3/../../x", "1.2.3?a=b", "1.2.3#", "x", "", "1" * 70, "1.2\n3"]
)
def test_what_is_no_uid_never_becomes_part_of_an_address(client, site_says, monkeypatch, uid):
    import requests

    site_says(pacs=[{"name": "archive", "url": "http://127.0.0.1:9/dicom-web"}])
    monkeypatch.setattr(requests.Session, "send", lambda *a, **k: pytest.fail("asked"))
    answer = client.post("/pacs/fetch", {"pacs": "archive", "uid": uid})
    assert answer.status_code == 400 and b"no StudyInstanceUID" in answer.content


def test_a_zip_of_a_user_is_no_program_either(client, upload):
    files = {
        "configs/metadata.json": b"{}",
        "configs/inference.json": b'{"run": "$print(1)"}',
        "evil.py": b"raise SystemExit",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    answer = upload(client, {"bundle.zip": out.getvalue()})
    assert answer.status_code == 400 and b"no DICOM" in answer.content
