"""What must not get in: others' tokens, paths, bombs, floods, pages of other sites; and who sees what."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.core import signing
from label_server import start_server, stop_server

from medseg.errors import InputError
from medseg.serve.monai_label.people import Denied, People, secret_of, signer
from medseg.serve.monai_label.sessions import MOST_SESSIONS
from medseg.serve.monai_label.standalone import Start

PEOPLE = {"ann": "annotator", "ben": "annotator", "rev": "reviewer", "adm": "admin"}


@pytest.fixture(scope="module")
def guarded(studies, sides_bundle, program, tmp_path_factory):
    """A server that knows four people, with a certificate that it signed itself."""
    state = tmp_path_factory.mktemp("guarded")
    key, certificate = str(state / "key.pem"), str(state / "certificate.pem")
    new = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    new += ["-nodes", "-days", "2", "-subj", "/CN=label", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*new, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    hasher = PBKDF2PasswordHasher()  # with few rounds, so that tests need not wait
    users = {
        name: {"role": role, "password": hasher.encode(f"secret of {name}", "salt", 1000)}
        for name, role in PEOPLE.items()
    }
    (state / "users.json").write_text(json.dumps({"users": users}))
    options = ["--users", str(state / "users.json"), "--certificate", certificate, "--key", key]
    secure = ssl.create_default_context(cafile=certificate)
    server = start_server(studies.folder, [sides_bundle], state / "state", *options, secure=secure)
    yield server
    stop_server(server)


@pytest.fixture(scope="module")
def tokens(guarded):
    """{name: headers} of everyone's token."""
    found = {}
    for name in PEOPLE:
        body = f"username={name}&password=secret%20of%20{name}&grant_type=password"
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = guarded.ask("POST", "/auth/token", body, kind).json
        found[name] = {"Authorization": f"{answer['token_type']} {answer['access_token']}"}
    return found


@pytest.fixture(scope="module")
def server(guarded, tokens):
    """The same server as the admin sees it."""
    return replace(guarded, always=tokens["adm"])


def volume(shape=(4, 4, 4)):
    image = nibabel.Nifti1Image(np.zeros(shape, dtype=np.int16), np.diag([1.0, 1.0, 2.0, 1.0]))
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    return image


def label_of(studies, value=1):
    geometry = studies.phantom.geometry
    array = np.zeros(geometry.shape, dtype=np.int16)
    array[3, 4:9, 4:9] = value
    return gzip.compress(nibabel.Nifti1Image(array.transpose(2, 1, 0), geometry.affine_ras).to_bytes())


def submit(server, studies, headers, image="CT", **params):
    fields = {"params": json.dumps({"label_info": [{"name": "Parotid_R", "idx": 1}], **params})}
    files = {"label": ("l.nii.gz", label_of(studies))}
    return server.form("PUT", f"/datastore/label?image={image}", fields, files, headers)


# ---- who ---------------------------------------------------------------------------------------------------


def test_missing_forged_and_expired_tokens_are_401_and_a_good_one_is_its_persons(guarded, tokens):
    assert guarded.ask("GET", "/auth/").json["enabled"] is True
    assert guarded.ask("GET", "/auth/token/valid", headers=tokens["ann"]).json["roles"] == ["annotator"]
    good = tokens["ann"]["Authorization"].removeprefix("bearer ")
    own = signer(secret_of(guarded.state))
    content = own.unsign_object(good)
    then = time.time() - 13 * 3600
    with mock.patch.object(signing.time, "time", lambda: then):
        old = own.sign_object(content)
    other = signer("not the secret").sign_object({**content, "name": "adm"})
    stolen = own.sign_object({**content, "name": "adm"})  # of another password
    for token in (
        None,
        "bearer ",
        "bearer x.y.z",
        f"bearer {good[:-2]}aa",
        f"bearer {old}",
        f"bearer {other}",
        f"bearer {stolen}",
        "basic YW5uOndyb25n",
        "basic !!!",
    ):
        answer = guarded.ask("GET", "/info/", headers={"Authorization": token} if token else {})
        assert answer.status == 401 and "Bearer" in answer.headers["www-authenticate"], token
    assert (
        "expired" in guarded.ask("GET", "/info/", headers={"Authorization": f"bearer {old}"}).json["detail"]
    )


def test_with_a_certificate_plain_http_is_not_answered_and_a_stranger_is_not_believed(guarded, tmp_path):
    assert guarded.ask("GET", "/auth/").status == 200
    with pytest.raises((OSError, http.client.HTTPException)):
        replace(guarded, secure=None).ask("GET", "/auth/", timeout=20)
    with pytest.raises(ssl.SSLCertVerificationError):
        replace(guarded, secure=ssl.create_default_context()).ask("GET", "/auth/")
    with pytest.raises(InputError, match="belong together"):
        Start("studies", ("sides",), tmp_path, certificate=tmp_path / "c.pem")
    with pytest.raises(InputError, match="no such file"):
        Start("studies", ("sides",), tmp_path, certificate=tmp_path / "c.pem", key=tmp_path / "k.pem")


@pytest.mark.parametrize("given", [{"most_upload_mb": 0}, {"memory_gb": -1.0}, {"audit": Path("nowhere")}])
def test_settings_that_cannot_be_meant_are_refused_at_the_start(given, tmp_path):
    with pytest.raises(InputError, match="above 0|no such folder"):
        Start("studies", ("sides",), tmp_path, **given)


def test_ten_wrong_passwords_in_a_minute_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.serve.monai_label.people.check_password", lambda given, known: given == known)
    (tmp_path / "users.json").write_text('{"users": {"ann": {"role": "annotator", "password": "right"}}}')
    people, statuses = People(tmp_path / "users.json", "s"), []
    for password in [*["wrong"] * 10, "right"]:
        with pytest.raises(Denied) as denied:
            people.token(None, "ann", password)
        statuses.append(denied.value.status)
    assert statuses == [401] * 10 + [429]
    monkeypatch.setattr("medseg.serve.monai_label.people.FAILURES_LAST_S", 0.0)
    assert people.token(None, "ann", "right")


def test_the_command_keeps_a_hash_and_refuses_a_short_password(tmp_path):
    command = [sys.executable, "-m", "medseg", "label", "user", "ann", "--role", "reviewer"]
    command += ["--users", str(tmp_path / "users.json")]
    short = subprocess.run(command, input="short\n", text=True, capture_output=True, check=False)
    assert short.returncode == 2 and "fewer than 10" in short.stderr
    subprocess.run(command, input="a long password\n", text=True, check=True, capture_output=True)
    user = json.loads((tmp_path / "users.json").read_text())["users"]["ann"]
    assert user["role"] == "reviewer" and user["password"].startswith("pbkdf2_sha256$")


def test_roles_bound_what_a_person_may_do(guarded, tokens, studies):
    for method, path in (("POST", "/train/sides"), ("GET", "/logs/"), ("POST", "/batch/infer/sides")):
        assert guarded.ask(method, path, headers=tokens["ann"]).status == 403, path
        assert guarded.ask(method, path, headers=tokens["rev"]).status == 403, path
    assert guarded.ask("GET", "/logs/", headers=tokens["adm"]).status == 200


def test_annotators_see_their_own_labels_reviewers_everyones_and_no_client_id_changes_that(
    guarded, tokens, studies
):
    own = submit(guarded, studies, tokens["ann"], client_id="ben")
    assert own.status == 200, own.body
    label = own.json["label"]
    assert guarded.ask("GET", f"/datastore/label?label={label}", headers=tokens["ann"]).status == 200
    for path in ("/datastore/label?label=", "/datastore/label/info?label="):
        assert guarded.ask("GET", path + label, headers=tokens["ben"]).status == 404
        assert guarded.ask("GET", path + "CT&tag=final", headers=tokens["ben"]).status == 404
    told = guarded.ask("GET", f"/datastore/label/info?label={label}", headers=tokens["rev"]).json
    assert told["annotator"] == "ann" and told["origin"] == "by hand"
    assert guarded.ask("DELETE", f"/datastore/label?id={label}", headers=tokens["ann"]).status == 403
    chosen = f"/datastore/label/info?label={label}&chosen=true"
    assert guarded.form("PUT", chosen, {"info": "{}"}, headers=tokens["ann"]).status == 403
    assert guarded.form("PUT", chosen, {"info": "{}"}, headers=tokens["rev"]).json["notes"]["chosen"]
    stolen = submit(guarded, studies, tokens["ben"], parent=label)
    assert stolen.status == 404, "a parent that the person may not see"


def test_jobs_and_sessions_of_another_person_are_as_if_they_were_not(guarded, tokens):
    asked = guarded.form(
        "POST", "/infer/sides?image=CT", {"params": '{"wait": false}'}, headers=tokens["ann"]
    )
    job = asked.json["job"]
    for method in ("GET", "DELETE"):
        assert guarded.ask(method, f"/infer/jobs/{job}", headers=tokens["ben"]).status == 404
    assert guarded.ask("GET", f"/infer/jobs/{job}", headers=tokens["ann"]).json["state"] != "cancelled"
    files = {"files": ("x.nii.gz", gzip.compress(volume().to_bytes()))}
    session = guarded.form("PUT", "/session/", {}, files, tokens["ann"]).json["session_id"]
    for method in ("GET", "DELETE"):
        assert guarded.ask(method, f"/session/{session}", headers=tokens["ben"]).status == 404
    path = f"/infer/sides?image=&session_id={session}"
    assert guarded.form("POST", path, {"params": "{}"}, headers=tokens["ben"]).status == 404
    assert guarded.ask("DELETE", f"/session/{session}", headers=tokens["ann"]).status == 200


# ---- what --------------------------------------------------------------------------------------------------


def test_no_id_is_a_path(server, studies):
    for image in (
        "../../etc/passwd",
        "%2e%2e%2fetc%2fpasswd",
        str(studies.folder / "second.nii.gz"),
        "a%00b",
    ):
        for path in (f"/datastore/image?image={image}", f"/datastore/label?label={image}&tag=final"):
            answer = server.ask("GET", path)
            assert answer.status in (400, 404) and str(studies.folder.parent).encode() not in answer.body
        assert server.form("POST", f"/infer/sides?image={image}", {"params": "{}"}).status in (400, 404)
    for path in ("/session/..%2f..%2fetc", "/ohif/..%2f..%2fetc%2fpasswd", "/proxy/dicom/wado/..%2fsystem"):
        assert server.ask("GET", path).status in (400, 404), path
    within = json.dumps({"within": "/etc/passwd:GTV"})
    assert server.form("POST", "/infer/sides?image=CT", {"params": within}).status == 422


def test_an_unknown_model_is_404_in_json_and_not_500(server):
    answer = server.form("POST", "/infer/spleen?image=CT", {"params": "{}"})
    assert answer.status == 404 and "this server runs sides" in answer.json["detail"]
    assert server.ask("GET", "/nowhere").status == 404 and server.ask("GET", "/nowhere").json["detail"]
    assert server.ask("DELETE", "/info/").status == 405


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"a": ', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"<a/>", "application/xml", 415),
        (b"hello", "text/plain", 415),
        (b"x" * (2**20 + 1), "application/json", 413),
        (b"--b\r\nnothing", "multipart/form-data", 400),
    ],
)
def test_bodies_that_are_no_good_have_their_status(server, body, kind, status):
    answer = server.ask("POST", "/activelearning/first", body, {"Content-Type": kind})
    assert answer.status == status and answer.json["detail"]


def raw(server, text: str) -> bytes:
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    with server.secure.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        connection.sendall(text.encode())
        return connection.recv(4096)


def test_ten_gigabytes_are_refused_before_they_are_sent(server):
    head = f"PUT /session/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}"
    head += "\r\nContent-Type: multipart/form-data; boundary=b"
    answer = raw(server, f"{head}\r\nContent-Length: 10000000000\r\n\r\n--b\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    answer = raw(server, f"{head}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 411")
    answer = raw(server, f"{head}\r\nContent-Length: -5\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4")


def test_pages_of_other_sites_and_other_names_for_this_computer_are_refused(server):
    assert server.ask("GET", "/info/", headers={"Origin": "http://elsewhere.example"}).status == 403
    own = {"Origin": f"https://127.0.0.1:{server.port}"}
    assert server.ask("GET", "/info/", headers=own).status == 200
    assert server.ask("GET", "/info/", headers={"Host": "rebound.example"}).status in (400, 403)


def test_bombs_and_what_is_no_label_are_refused_and_kept_nowhere(server, studies):
    before = server.ask("GET", "/datastore/?output=all").json["objects"]["CT"]["versions"]
    head = volume((2000, 2000, 2000)).header.binaryblock + b"\0\0\0\0"
    bomb = gzip.compress(head + bytes(30_000_000))
    truncated = label_of(studies)[:200]
    wrong_grid = gzip.compress(volume((8, 8, 8)).to_bytes())
    params = {"params": json.dumps({"label_info": [{"name": "A", "idx": 1}]})}
    for name, content in (
        ("l.nii.gz", bomb),
        ("l.nii.gz", truncated),
        ("l.nii.gz", wrong_grid),
        ("l.nrrd", b"NRRD0004\n"),
        ("l.bin", b"123"),
        ("l.exe", b"MZ"),
    ):
        answer = server.form("PUT", "/datastore/label?image=CT", params, {"label": (name, content)})
        assert answer.status == 422, (name, answer.body)
        assert str(server.state.parent).encode() not in answer.body
    assert server.form("PUT", "/session/", {}, {"files": ("s.nii.gz", bomb)}).status == 422
    assert server.form("PUT", "/session/", {}, {"files": ("s.zip", b"PK\3\4")}).status == 422
    assert server.ask("GET", "/datastore/?output=all").json["objects"]["CT"]["versions"] == before


def test_a_flood_of_sessions_ends_in_429_and_the_server_lives(server):
    files = {"files": ("x.nii.gz", gzip.compress(volume().to_bytes()))}
    answers = [server.form("PUT", "/session/", {}, files) for _ in range(MOST_SESSIONS + 5)]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) >= 5 and "try again later" in refused[0].json["detail"]
    for answer in answers:
        if answer.status == 200:
            assert server.ask("DELETE", f"/session/{answer.json['session_id']}").status == 200
    assert server.ask("GET", "/info/").status == 200


@pytest.mark.slow
def test_ten_thousand_sessions_at_once_from_twenty_people_leave_no_more_than_are_allowed(server):
    files = {"files": ("x.nii.gz", gzip.compress(volume().to_bytes()))}

    def ask(number):
        return server.form("PUT", "/session/", {"client_id": f"annotator {number % 20}"}, files)

    with ThreadPoolExecutor(20) as people:
        answers = list(people.map(ask, range(10_000)))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429} and statuses.count(200) <= MOST_SESSIONS
    for answer in answers:
        if answer.status == 200:
            assert server.ask("DELETE", f"/session/{answer.json['session_id']}").status == 200
    assert server.ask("GET", "/info/").status == 200


def test_the_log_names_people_and_views_but_neither_images_nor_queries(server):
    server.ask("GET", "/datastore/image?image=DOE_JOHN")
    lines = server.ask("GET", "/logs/?lines=50").body.decode()
    assert "GET image" in lines and "DOE_JOHN" not in lines and "?" not in lines


def test_a_host_that_others_reach_needs_people(studies, tmp_path):
    command = [sys.executable, "-m", "medseg", "label", "start", "--studies", str(studies.folder)]
    command += ["--bundles", "mm_gtv", "--host", "0.0.0.0", "--state", str(tmp_path / "state")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2 and "--users" in result.stderr
