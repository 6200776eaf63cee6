"""The HTML page of a comparison. Referee: headless Chromium, where it is installed."""

from __future__ import annotations

import base64
import io
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from medseg.phantoms.series import stack_geometry
from medseg.reports.pictures import draw_pair
from medseg.workbench.compare import Agreement, Comparison, measure
from medseg.workbench.comparison_outputs import write_html

EVIL = "<script>document.title='broken in'</script>"


def masks(shape=(10, 30, 36)):
    reference, other = (np.zeros(shape, dtype=bool) for _ in range(2))
    reference[3:8, 8:20, 6:16] = True
    reference[5, 12:14, 9:12] = False
    other[3:7, 8:20, 8:18] = True
    return reference, other


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    geometry = stack_geometry((10, 30, 36), gaps_mm=3.0, pixel_spacing_mm=(1.5, 1.25))
    reference, other = masks()
    volume = np.linspace(-200, 300, reference.size).reshape(reference.shape)
    row = Agreement(
        EVIL,
        "GTV",
        pictures=draw_pair(reference, other, geometry, volume),
        **measure(reference, other, geometry, 2.0),
    )
    good = replace(row, name="Good", other_name="Good", surface_dsc=0.99)
    comparison = Comparison(
        "a&b.dcm", "b.dcm", "grid", (good, row), {EVIL: 1.0}, {"New": 2.0}, (f"odd: {EVIL}",)
    )
    out = tmp_path_factory.mktemp("page") / "c.html"
    write_html(comparison, out)
    return out


def test_names_from_files_cannot_become_markup_and_nothing_comes_from_elsewhere(page):
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text and "a&amp;b.dcm" in text
    assert not re.search(r"(?:src|href)=\"(?!#|data:image/png;base64,)", text) and "http://" not in text
    assert "default-src 'none'" in text and "Research use only" in text


def test_a_tolerance_is_shown_as_it_was_given(tmp_path):
    reference, other = masks()
    geometry = stack_geometry(reference.shape, gaps_mm=3.0, pixel_spacing_mm=(1.5, 1.25))
    row = Agreement("GTV", "GTV", **measure(reference, other, geometry, 0.25))
    write_html(Comparison("a", "b", "grid", (row,), {}, {}, ()), tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<td>0.25</td>" in text and "at 0.25 mm" in text


def test_pictures_decode_and_have_the_proportions_of_the_patient(page):
    from PIL import Image

    figures = re.findall(
        r'viewBox="0 0 ([\d.]+) ([\d.]+)">\s*<image[^>]*base64,([^"]+)"', page.read_text(encoding="utf-8")
    )
    assert len(figures) == 8  # four planes of two structures
    for width_mm, height_mm, png in figures:
        image = Image.open(io.BytesIO(base64.b64decode(png)))
        image.load()
        pixel_mm = float(width_mm) / image.width, float(height_mm) / image.height
        assert pixel_mm == pytest.approx((1.25, 1.5)) or pixel_mm[1] == pytest.approx(3.0)


def test_a_browser_shows_the_worst_structure_first_with_all_rows(page, program, tmp_path):
    command = [
        program("chromium"),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    shown = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    body = shown.stdout
    assert body.count('<tr class="pair">') == 2 and body.count('<tr class="only">') == 2
    assert "<title>Comparison of contours</title>" in body
    assert body.index("&lt;script&gt;document") < body.index(">Good</a>")
    assert len(re.findall(r"<svg ", body)) == 8 and body.count("</figure>") == 8
    picture = tmp_path / "page.png"
    subprocess.run(
        [*command, f"--screenshot={picture}", "--window-size=1280,1600", page.as_uri()],
        capture_output=True,
        check=True,
        timeout=120,
    )
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    for colour in ((0x38, 0xB6, 0xFF), (0xFF, 0x9E, 0x1B)):  # both outlines are there to be seen
        assert (np.abs(pixels.astype(int) - colour).max(axis=1) < 12).sum() > 200
