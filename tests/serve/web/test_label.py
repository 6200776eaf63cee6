"""MONAI Label's protocol beside the site: the real ``medseg serve --label``, with the site's accounts."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from label_server import Server, free_port

from medseg.cases.nifti import write_volume
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry

pytest.importorskip("whitenoise", reason="the web application needs medseg[serve]")

ROLES = {"ann": "user", "ben": "user", "rev": "reviewer", "adm": "administrator"}


ACCOUNTS = """
import json, sys
from pathlib import Path
from medseg.serve.web.run import ServeRequest, prepare, set_up_django
prepare(ServeRequest(Path(sys.argv[1]), bundles=("eye_lesion",)))
set_up_django()
from medseg.serve.web.accounts import new_account
print(json.dumps({name: new_account(name, role) for name, role in json.loads(sys.argv[2]).items()}))
"""
"""In one process, since each takes seconds to load Django."""


def command(folder, *arguments):
    return [sys.executable, "-m", "medseg", "serve", "--data", str(folder / "site"), *arguments]


@pytest.fixture(scope="module")
def phantom():
    return chiral_phantom(stack_geometry((20, 32, 36), gaps_mm=3.5, pixel_spacing_mm=(2.5, 2.5)))


@pytest.fixture(scope="module")
def site(tmp_path_factory, bright_bundle, phantom):
    """(server, {name: headers}): a site of four accounts over one NIfTI image "ct"."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "images").mkdir()
    write_volume(phantom.volume_hu, phantom.geometry, folder / "images" / "ct.nii.gz")
    accounts = {}
    made = subprocess.run(
        [sys.executable, "-c", ACCOUNTS, str(folder / "site"), json.dumps(ROLES)],
        capture_output=True,
        text=True,
        check=True,
    )
    for name, password in json.loads(made.stdout).items():
        mark = base64.b64encode(f"{name}:{password}".encode()).decode()
        accounts[name] = {"Authorization": f"Basic {mark}"}
    port = free_port()
    options = ["--port", str(port), "--bundles", f"{bright_bundle},eye_lesion"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command(folder, *options, "--label", str(folder / "images")), stdout=log, stderr=log
        )
    server = Server(process, port, folder / "site", folder / "log")
    try:
        _wait_until_up(server)
        yield server, accounts
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_up(server: Server) -> None:
    for _ in range(1200):
        try:
            if server.ask("GET", "/health").status == 200:
                return
        except OSError:
            assert server.process.poll() is None, server.log.read_text()
        time.sleep(0.1)
    raise AssertionError(server.log.read_text())


def test_accounts_of_the_site_have_their_roles_at_the_door_of_the_annotators(site):
    server, accounts = site
    assert server.ask("GET", "/info/").status == 401
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ann:wrong").decode()}
    assert server.ask("GET", "/info/", headers=wrong).status == 401
    found = {
        name: server.ask("GET", "/auth/token/valid", headers=headers).json["roles"]
        for name, headers in accounts.items()
    }
    # An administrator keeps accounts and sees nobody's work by that alone, as on the pages.
    assert found == {"ann": ["annotator"], "ben": ["annotator"], "rev": ["reviewer"], "adm": ["annotator"]}
    info = server.ask("GET", "/info/", headers=accounts["ann"]).json
    assert list(info["models"]) == ["bright"] and info["datastore"]["total"] == 1
    assert "eye_lesion" in server.log.read_text(), "the bundle that annotators cannot be served is named"


def test_pages_and_protocol_stand_side_by_side_and_share_the_log_in(site):
    server, accounts = site
    assert b"log-in" in server.ask("GET", "/").headers["location"].encode()
    name, password = base64.b64decode(accounts["ann"]["Authorization"][6:]).decode().split(":")
    token = server.form("POST", "/auth/token", {"username": name, "password": password}).json["access_token"]
    bearer = {"Authorization": f"bearer {token}"}
    assert server.ask("GET", "/auth/token/valid", headers=bearer).json["username"] == "ann"
    page = server.ask("GET", "/log-in/")
    cookie = page.headers["set-cookie"].partition(";")[0]
    form = page.body.decode().partition('csrfmiddlewaretoken" value="')[2].partition('"')[0]
    body = f"csrfmiddlewaretoken={form}&username={name}&password={password}"
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
    headers["Origin"] = f"http://127.0.0.1:{server.port}"
    entered = server.ask("POST", "/log-in/", body, headers)
    assert entered.status == 302, entered.body[:500]
    session = {"Cookie": f"{cookie}; {_session(entered.headers['set-cookie'])}"}
    assert server.ask("GET", "/auth/token/valid", headers=session).json["username"] == "ann"
    elsewhere = {**session, "Origin": "http://elsewhere.example"}
    assert server.ask("POST", "/activelearning/first", {}, elsewhere).status == 403


def _session(cookies: str) -> str:
    return next(part.strip() for part in cookies.replace(",", ";").split(";") if "sessionid=" in part)


@pytest.mark.slow
def test_the_sites_worker_contours_for_annotators_and_labels_belong_to_their_account(site, phantom):
    server, accounts = site
    params = {"params": json.dumps({"result_extension": ".nrrd", "client_id": "rev"})}
    asked = server.form("POST", "/infer/bright?image=ct&output=image", params, headers=accounts["ann"])
    assert asked.status == 200, asked.body
    values = np.frombuffer(asked.body.partition(b"\n\n")[2], dtype=np.uint8).reshape(phantom.geometry.shape)
    marker = phantom.masks["Marker"]
    assert 2 * (marker & (values > 0)).sum() / (marker.sum() + (values > 0).sum()) > 0.9
    fields = {"params": json.dumps({"label_info": [{"name": "GTV", "idx": 1}], "client_id": "rev"})}
    saved = server.form(
        "PUT",
        "/datastore/label?image=ct",
        fields,
        {"label": ("label.bin", values.tobytes())},
        accounts["ann"],
    ).json
    path = f"/datastore/label/info?label={saved['label']}"
    assert server.ask("GET", path, headers=accounts["ben"]).status == 404
    assert server.ask("GET", path, headers=accounts["rev"]).json["annotator"] == "ann"
