"""Reports as single HTML files that need nothing else: one style, one template environment, whole or not at
all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jinja2

from medseg.files import atomic_path

# Every text that comes from a file passes through Jinja's escaping; a value that a page forgets is an error.
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
)

GENERATOR = '<meta name="generator" content="medseg">'
"""Stands at the head of every page: what tells one of ours from somebody else's."""


def write_page(template: str, out: Path, **values: Any) -> None:
    """Fill a template of this folder, which extends base.html, with ``values`` and write it, atomically."""
    page = _ENVIRONMENT.get_template(template).render(generator=GENERATOR, **values)
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def format_number(value: float, digits: int) -> str:
    """A number with so many decimals, ∞, or a dash where there is none."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


_ENVIRONMENT.filters["number"] = format_number
