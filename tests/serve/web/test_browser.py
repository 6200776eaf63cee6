"""A real browser, from the log-in to the downloaded RTSTRUCT: sockets, scripts, and the site's own rules for
them."""

from __future__ import annotations

import io
import re
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


def enter(page, address, account) -> None:
    """Log in as a new user."""
    name, password = account()
    page.goto(address)
    page.fill("#id_username", name)
    page.fill("#id_password", password)
    page.keyboard.press("Enter")
    page.wait_for_selector("nav")


def test_from_the_log_in_to_the_same_rtstruct_as_medseg_segment(
    address, account, bright, ct_zip, work, tmp_path, page
):
    from medseg.bundles.cohort import segment
    from medseg.bundles.request import Request
    from medseg.dicom import read_rtstruct, read_series

    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        archive.extractall(tmp_path / "ct")

    enter(page, address, account)
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


def test_a_box_drawn_on_a_slice_is_where_the_bundle_looks(address, account, bright, ct_zip, work, page):
    from medseg.phantoms.series import stack_geometry

    geometry = stack_geometry((12, 32, 40), gaps_mm=1.5, pixel_spacing_mm=(1.5, 1.5))  # of ct_zip
    enter(page, address, account)
    page.goto(f"{address}/upload/")
    page.set_input_files("#files", {"name": "ct.zip", "mimeType": "application/zip", "buffer": ct_zip})
    page.click("form#upload > button")
    page.wait_for_url("**/studies/*/")
    page.click("text=Look at it")
    page.wait_for_selector("#tools:not([hidden])")

    def go_to(index: int) -> None:
        page.evaluate(
            "n => { const i = document.forms.slices.elements.index; i.value = n;"
            " i.dispatchEvent(new Event('input', {bubbles: true})); }",
            index,
        )

    page.locator("#slice").evaluate("image => image.decode()")
    box = page.locator("#drawn").bounding_box()
    corners = [(box["x"] + share * box["width"], box["y"] + share * box["height"]) for share in (0.25, 0.75)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=3)
    page.mouse.up()
    for index, button in ((5, "#first"), (7, "#last")):
        go_to(index)
        page.click(button)
    drawn = [
        float(page.input_value(f"[name=within_{side}]")) for side in ("x0", "x1", "y0", "y1", "z0", "z1")
    ]
    # A quarter and three quarters of 40 columns and 32 rows; slices 5 to 7, with half a voxel around.
    low = geometry.points_lps_mm(5, np.array([[7.5, 9.5]]))[0] - (0, 0, 0.75)
    high = geometry.points_lps_mm(7, np.array([[23.5, 29.5]]))[0] + (0, 0, 0.75)
    assert np.allclose(drawn, np.stack([low, high], 1).ravel(), atol=0.3)
    page.check(f'input[value="{bright}"]')
    page.click("text=Contour >> nth=-1")
    page.wait_for_url("**/jobs/*/")
    work()
    page.wait_for_selector("#slices")
    # Of the block, rows 8 to 19 and columns 10 to 29: 3 slices x 12 rows x 20 columns of 1.5 mm.
    assert "2.4 cc" in page.inner_text("main")
    assert page.complaints == []


def test_a_folder_that_is_dropped_is_uploaded_whole(address, account, ct_zip, tmp_path, page):
    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        archive.extractall(tmp_path / "patient" / "deep" / "ct")
    enter(page, address, account)
    page.goto(f"{address}/upload/")
    box = page.locator("#drop").bounding_box()
    place = {"x": box["x"] + 20, "y": box["y"] + 20}
    data = {"items": [], "files": [str(tmp_path / "patient")], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for what in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": what, **place, "data": data})
    page.wait_for_selector("#chosen:has-text('12 files')")
    page.click("form#upload > button")
    page.wait_for_url("**/studies/*/")
    assert "CT × 12" in page.inner_text("main") and page.complaints == []


def test_an_upload_that_was_cut_off_goes_on_where_it_stopped(address, account, ct_zip, tmp_path, page):
    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        archive.extractall(tmp_path)
    files = sorted(tmp_path.iterdir())
    sent: list[int] = []
    network = {"up": False}

    def pass_on(route) -> None:
        number = int(route.request.url.split("/")[-2])
        if network["up"] or number < 5:
            sent.append(number)
            route.continue_()

    page.route(re.compile(r"/uploads/[0-9a-f]{32}/\d+/\d+$"), pass_on)
    enter(page, address, account)
    page.goto(f"{address}/upload/")
    page.set_input_files("#files", files)
    with page.expect_request(re.compile(r"/uploads/[0-9a-f]{32}/5/0$")):  # which is never answered
        page.click("form#upload > button")
    page.goto(f"{address}/upload/")
    network["up"] = True
    page.set_input_files("#files", files)
    page.click("form#upload > button")
    page.wait_for_url("**/studies/*/")
    assert sent == list(range(12)) and "CT × 12" in page.inner_text("main")
