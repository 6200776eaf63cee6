"""OHIF itself, in a browser, on a real Orthanc: the build with the panel, which lies in a wheel.

    pip download --no-deps monailabel==0.8.5 && unzip -q monailabel-0.8.5*.whl -d wheel
    MEDSEG_MONAILABEL=wheel pytest tests/serve/monai_label/test_ohif.py

Without the wheel, Orthanc or Chromium the test is skipped. MEDSEG_PICTURES=DIR keeps the screenshots.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from label_server import start_server, stop_server
from orthanc_server import orthanc

from medseg.dicom import read_rtstruct, read_series
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

playwright = pytest.importorskip("playwright.sync_api", reason="drives the browser: medseg[dev]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WITHOUT_A_SCREEN = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

MASK = """() => {
  const {segmentationService, displaySetService} = window.services;
  const mask = segmentationService.getLabelmapVolume('1').voxelManager.getCompleteScalarDataArray();
  const image = window.cornerstone.cache.getVolumes().find(v => v.loadStatus?.loaded);
  const grey = image.voxelManager.getCompleteScalarDataArray();
  const found = {};
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) continue;
    const row = found[mask[i]] ??= {voxels: 0, darkest: Infinity};
    row.voxels++;
    row.darkest = Math.min(row.darkest, grey[i]);
  }
  const segments = segmentationService.getSegmentation('1').segments;
  return Object.fromEntries(Object.entries(found).map(([n, row]) => [segments[n].label, row]));
}"""
"""What lies in the viewer's label map, and the darkest grey value of its image below each segment."""


SHOW = """() => {
  const volume = window.services.segmentationService.getLabelmapVolume('1');
  const [width, height] = volume.dimensions, sum = [0, 0, 0];
  let count = 0;
  volume.voxelManager.getCompleteScalarDataArray().forEach((value, i) => {
    if (!value) return;
    count++;
    const place = [i % width, Math.floor(i / width) % height, Math.floor(i / width / height)];
    place.forEach((n, k) => sum[k] += n);
  });
  const at = volume.imageData.indexToWorld(sum.map(n => Math.round(n / count)));
  for (const engine of window.cornerstone.getRenderingEngines()) for (const view of engine.getViewports()) {
    const camera = view.getCamera(), normal = camera.viewPlaneNormal;
    const step = normal.reduce((t, x, k) => t + x * (at[k] - camera.focalPoint[k]), 0);
    const moved = point => point.map((x, k) => x + step * normal[k]);
    const [focalPoint, position] = [moved(camera.focalPoint), moved(camera.position)];
    view.setCamera({focalPoint, position, parallelScale: camera.parallelScale / 2});
    view.render();
  }
}"""
"""The slices through the middle of what was contoured, as somebody scrolls there."""

GREEN = """() => {
  const shown = document.querySelector('.viewport-element canvas, canvas.cornerstone-canvas');
  const pixels = shown.getContext('2d').getImageData(0, 0, shown.width, shown.height).data;
  let count = 0;
  for (let i = 0; i < pixels.length; i += 4) count += pixels[i + 1] - pixels[i] > 40 ? 1 : 0;
  return count;
}"""
"""Pixels of a coloured segment on the first view."""


@pytest.fixture(scope="module")
def ohif():
    """The folder of the build."""
    wheel = os.environ.get("MEDSEG_MONAILABEL")
    folder = Path(wheel or "") / "monailabel" / "endpoints" / "static" / "ohif"
    if not wheel or not folder.is_dir():
        pytest.skip(
            "the wheel of monailabel 0.8.5 is not here: set MEDSEG_MONAILABEL to where it is unpacked"
        )
    if CHROMIUM is None:
        pytest.skip("no Chromium (Debian: chromium)")
    return folder


@pytest.fixture(scope="module")
def site(ohif, sides_bundle, program, tmp_path_factory):
    """(server, URL of Orthanc, StudyInstanceUID, the phantom, folder of its CT)."""
    folder = tmp_path_factory.mktemp("ohif")
    geometry = stack_geometry(
        (40, 96, 104), gaps_mm=2.5, pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(7, -20, 110)
    )
    phantom = chiral_phantom(geometry)
    write_series(phantom.volume_hu, phantom.geometry, folder / "CT", seed=0)
    files = [pydicom.dcmread(path) for path in sorted((folder / "CT").glob("*.dcm"))]
    with orthanc(folder / "orthanc", program("Orthanc")) as url:
        DICOMwebClient(url).store_instances(files)
        server = start_server(url, [sides_bundle], folder / "state", "--ohif", str(ohif))
        yield server, url, files[0].StudyInstanceUID, phantom, folder / "CT"
        stop_server(server)


@pytest.fixture
def page(site):
    """A page of a fresh browser; ``page.outside``: addresses it asked for that are not our server's."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=WITHOUT_A_SCREEN)
        page = browser.new_page(viewport={"width": 1400, "height": 800})
        page.set_default_timeout(120_000)  # a busy machine, and no graphics card
        own, page.outside = f"http://127.0.0.1:{site[0].port}/", []
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((own, "blob:", "data:")) else page.outside.append(request.url)
            ),
        )
        yield page
        browser.close()


def keep(page, name: str) -> None:
    folder = os.environ.get("MEDSEG_PICTURES")
    if folder:
        page.screenshot(path=Path(folder) / name)


@pytest.mark.slow
def test_ohif_contours_shows_and_submits_a_label(site, page, tmp_path):
    server, url, study, phantom, ct = site
    page.goto(f"http://127.0.0.1:{server.port}/ohif/monai-label?StudyInstanceUIDs={study}")
    page.fill("#monailabelServerURL", f"http://127.0.0.1:{server.port}/")
    page.click("text=Confirm and Hide")
    page.wait_for_function("window.cornerstone?.cache.getVolumes().some(v => v.loadStatus?.loaded)")
    page.click(".settingsTable .actionButton")
    page.wait_for_selector("#medseg-submit", state="visible")
    keep(page, "label_ohif_connected.png")
    page.click("#medseg-submit")
    page.wait_for_function("document.querySelector('#medseg-said').textContent.includes('nothing is drawn')")

    page.locator(".tab-content button", has_text="Run").first.click()
    page.wait_for_function(f"Object.keys(({MASK})()).length > 0")
    shown = page.evaluate(MASK)
    marker = phantom.masks["Marker"]
    assert list(shown) == ["Parotid_R"], "by its name, though it is neither the first nor the only label"
    assert shown["Parotid_R"]["darkest"] > 600, "on the bright voxels, so in the order of the viewer's slices"
    assert abs(shown["Parotid_R"]["voxels"] / marker.sum() - 1) < 0.1
    page.evaluate(SHOW)
    page.wait_for_function(f"({GREEN})() > 100")
    keep(page, "label_ohif_contoured.png")

    page.click("#medseg-submit")
    page.wait_for_function("document.querySelector('#medseg-said').textContent.startsWith('kept as')")
    keep(page, "label_ohif_submitted.png")
    version = page.inner_text("#medseg-said").removeprefix("kept as ")
    told = server.ask("GET", f"/datastore/label/info?label={version}").json
    assert list(told["label_names"]) == ["Parotid_R"] and told["origin"].startswith("sides")
    client = DICOMwebClient(url)
    rows = {
        row["00080060"]["Value"][0]: row["0020000E"]["Value"][0] for row in client.search_for_series(study)
    }
    assert {"CT", "RTSTRUCT", "SEG"} == set(rows)
    client.retrieve_series(study, rows["RTSTRUCT"])[0].save_as(tmp_path / "RS.dcm")
    read = read_rtstruct(tmp_path / "RS.dcm", read_series(ct))["Parotid_R"]
    assert read.sum() == shown["Parotid_R"]["voxels"] and not (read & ~(phantom.volume_hu > 600)).any()
    assert page.outside == []
