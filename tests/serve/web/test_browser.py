"""A real browser, from the log-in to the downloaded RTSTRUCT: sockets, scripts, and the site's own rules for
them."""

from __future__ import annotations

import io
import shutil
import threading
import zipfile

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="drives the browser: medseg[dev]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WITHOUT_A_SCREEN = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture
def address(site_dir, monkeypatch):
    """The site on a socket of the loopback."""
    from django.conf import settings
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application

    monkeypatch.setattr(settings, "ALLOWED_HOSTS", ["127.0.0.1", "testserver"])
    # Playwright keeps a loop in this thread, which Django takes for asynchronous code.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def page():
    """A page of a fresh browser; what its console complains of is in ``page.complaints``."""
    if CHROMIUM is None:
        pytest.skip("no Chromium (Debian: chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=WITHOUT_A_SCREEN)
        page = browser.new_page()
        page.set_default_timeout(60_000)  # a busy machine
        page.complaints = []
        page.on("console", lambda m: page.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        yield page
        browser.close()


def test_from_the_log_in_to_the_same_rtstruct_as_medseg_segment(
    address, account, bright, ct_zip, work, tmp_path, page
):
    from medseg.bundles.cohort import segment
    from medseg.bundles.request import Request
    from medseg.dicom import read_rtstruct, read_series

    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        archive.extractall(tmp_path / "ct")
    name, password = account()

    page.goto(address)
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.keyboard.press("Enter")
    page.click("nav >> text=Upload")
    page.fill("#title", "by a browser")
    page.set_input_files("#files", sorted((tmp_path / "ct").iterdir()))
    page.click("form#upload > button")
    page.wait_for_url("**/studies/*/")
    assert "CT × 12" in page.inner_text("main")

    page.check(f'input[value="{bright}"]')
    page.click("text=Contour >> nth=-1")
    page.wait_for_url("**/jobs/*/")
    assert "Position in the queue: 1" in page.inner_text("#words")
    work()
    page.wait_for_selector("#slices")  # the page's script notices by itself that the job is done
    before = page.get_attribute("#slice", "src")
    page.select_option("[name=axis]", "coronal")
    page.uncheck("[name=show]")
    assert page.get_attribute("#slice", "src") != before
    with page.expect_download() as download:
        page.click("text=RS.dcm")
    download.value.save_as(tmp_path / "RS.dcm")
    assert page.complaints == []  # above all none of the Content-Security-Policy

    segment(Request(tmp_path / "ct", bright, tmp_path / "out"))
    series = read_series(tmp_path / "ct")
    ours = read_rtstruct(tmp_path / "RS.dcm", series)
    theirs = read_rtstruct(tmp_path / "out" / "ct" / "RS.dcm", series)
    assert list(ours) == list(theirs) == ["GTV"]
    assert np.array_equal(ours["GTV"], theirs["GTV"]) and np.count_nonzero(ours["GTV"]) == 1440
