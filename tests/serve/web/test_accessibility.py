"""WCAG 2 AA, as far as a machine can tell: contrast, names of controls, texts for pictures, headings."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

CSS = Path(__file__).resolve().parents[3] / "medseg" / "serve" / "web" / "static" / "web" / "site.css"


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def palettes() -> list[dict[str, str]]:
    """The colours of the light page, and of the dark one."""
    found = re.findall(r":root \{([^}]*)\}", CSS.read_text())
    assert len(found) == 2
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block)) for block in found]


def test_contrast_is_computed_as_wcag_says():
    assert contrast("#000", "#fff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the well-known near miss


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
def test_every_text_stands_out_from_what_it_stands_on(palette):
    for text in ("ink", "soft", "accent", "bad", "warn", "good"):
        for ground in ("page", "card"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    assert contrast(palette["on-accent"], palette["accent"]) >= 4.5
    assert contrast(palette["focus"], palette["page"]) >= 2.5  # a ring of three pixels
    assert contrast("#ffffff", "#8c1d18") >= 4.5  # the research notice


class Page(HTMLParser):
    """What a page says of its controls, pictures and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.language, self.headings, self.labels = "", [], set()
        self.controls, self.pictures, self.ids, self.depth = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.ids += [known["id"]] if "id" in known else []
        if tag == "html":
            self.language = known.get("lang", "")
        elif tag == "label":
            self.labels.add(known.get("for"))
            self.depth += 1
        elif tag in ("input", "select", "textarea") and known.get("type") != "hidden":
            self.controls.append((known, self.depth > 0))
        elif tag in ("canvas", "progress", "meter"):
            self.controls.append((known, False))
        elif tag == "img":
            self.pictures.append(known)
        elif re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        self.depth -= tag == "label"


@pytest.mark.parametrize(
    "which", ["/", "/upload/", "/trail/", "/compare/", "/password/", "study", "job", "/log-in/"]
)
def test_a_page_can_be_read_and_used_without_seeing_it(finished, which):
    from django.test import Client

    client, job = finished
    study = f"/studies/{client.get(job).context['study'].id}/"
    address = {"study": study, "job": job}.get(which, which)
    answer = (Client() if which == "/log-in/" else client).get(address)
    assert answer.status_code == 200
    page = Page(answer.content.decode())
    assert page.language == "en"
    for control, inside_a_label in page.controls:
        named = inside_a_label or control.get("id") in page.labels or control.get("aria-label")
        assert named, control
    assert all("alt" in picture for picture in page.pictures)
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert 'href="#main"' in answer.content.decode() and "main" in page.ids
