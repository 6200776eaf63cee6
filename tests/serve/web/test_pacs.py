"""Studies of an archive: searched and fetched from a real Orthanc, and nothing that leads elsewhere."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory, ct_zip):
    """The DICOMweb address of an Orthanc that holds the CT of ct_zip."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.is_file():
        pytest.skip("Orthanc with DICOMweb is not installed (Debian: orthanc orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    config = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": port,
        "DicomPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    process = subprocess.Popen([program, str(folder / "orthanc.json")], stderr=subprocess.DEVNULL)
    root = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{root}/system", timeout=2)
                break
            except OSError:
                time.sleep(0.1)
        urllib.request.urlopen(f"{root}/instances", ct_zip, timeout=60)  # Orthanc takes zips
        yield f"{root}/dicom-web"
    finally:
        process.terminate()
        process.wait(20)


def test_a_study_is_found_and_fetched_and_is_the_user_s(client, logged_in, site_says, orthanc):
    site_says(pacs=[{"name": "archive", "url": orthanc}])
    found = client.get("/pacs/", {"pacs": "archive", "date": "20000101-20991231"}).context["found"]
    assert len(found) == 1 and found[0]["instances"] == "12" and found[0]["modalities"] == "CT"
    answer = client.post("/pacs/fetch", {"pacs": "archive", "uid": found[0]["uid"], "title": "fetched"})
    page = client.get(answer.url).content.decode()
    assert "CT × 12" in page and "fetched" in page
    assert logged_in().get(answer.url).status_code == 404


def test_limits_hold_for_what_is_fetched_too(client, site_says, orthanc):
    from medseg.serve.web.models import Study

    site_says(pacs=[{"name": "archive", "url": orthanc}], max_files=5)
    uid = client.get("/pacs/", {"pacs": "archive", "date": "20000101-20991231"}).context["found"][0]["uid"]
    answer = client.post("/pacs/fetch", {"pacs": "archive", "uid": uid})
    assert answer.status_code == 400 and b"more than 5 files" in answer.content
    assert not Study.objects.filter(owner__username=client.username).exists()


@pytest.mark.parametrize("query", [{}, {"patient_id": "*"}, {"date": "yesterday"}, {"date": "20200101,1"}])
def test_a_search_for_everything_or_for_nonsense_is_refused(client, site_says, query):
    site_says(pacs=[{"name": "archive", "url": "http://127.0.0.1:9/dicom-web"}])
    answer = client.get("/pacs/", {"pacs": "archive", **query})
    assert "found" not in answer.context and answer.context["problem"]


def test_an_archive_that_sends_elsewhere_is_not_followed(client, site_says):
    asked = []

    class Redirects(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/inside")
            self.end_headers()

        def log_message(self, *words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Redirects)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        site_says(pacs=[{"name": "archive", "url": f"http://127.0.0.1:{server.server_port}/dicom-web"}])
        answer = client.get("/pacs/", {"pacs": "archive", "patient_id": "1"})
        assert "does not answer as it should" in answer.context["problem"]
        answer = client.post("/pacs/fetch", {"pacs": "archive", "uid": "1.2.3"})
        assert answer.status_code == 400
    finally:
        server.shutdown()
    assert len(asked) == 2 and all(path.startswith("/dicom-web/studies") for path in asked)
