"""Charts as SVG text for the pages: no script, the page's own colours, a title on every mark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 34
BINS = 36


@dataclass(frozen=True)
class Mark:
    """A point of a chart. ``bad``: drawn in the colour of what needs a look."""

    x: float
    y: float
    title: str
    bad: bool = False


@dataclass(frozen=True)
class Line:
    """A level across a chart, or between ``x`` positions; ``dashed`` for limits."""

    y: float
    title: str
    dashed: bool = False


def histogram(values: Sequence[float], marked: Sequence[tuple[float, str]], unit: str, log: bool) -> str:
    """Bars of how many values lie where, on a logarithmic axis where asked, and a tick for each marked value
    with its title. "" without a finite value."""
    known = np.array([value for value in values if math.isfinite(value) and (value > 0 or not log)])
    if not known.size:
        return ""
    width, height, base = 320, 54, 40
    low, high = float(known.min()), float(known.max())
    if low == high:
        low, high = (low * 0.9, high * 1.1) if low > 0 else (low - 1, high + 1)
    place = np.log if log else np.asarray
    edges = np.linspace(place(low), place(high), BINS + 1)
    counts = np.histogram(place(known), edges)[0]
    step = (width - 8) / BINS
    bars = [
        f'<rect x="{4 + index * step:.1f}" y="{base - 34 * count / counts.max():.1f}" '
        f'width="{step - 0.8:.1f}" height="{34 * count / counts.max():.1f}" class="bin"/>'
        for index, count in enumerate(counts)
        if count
    ]
    ticks = []
    for value, title in marked:
        if math.isfinite(value) and (value > 0 or not log):
            x = 4 + (float(place(value)) - edges[0]) / (edges[-1] - edges[0]) * (width - 8)
            ticks.append(f'<path class="flag" d="M{x:.1f} {base}v-38"><title>{escape(title)}</title></path>')
    words = [
        f'<text x="{x}" y="{height - 2}" text-anchor="{anchor}">{escape(text)}</text>'
        for x, anchor, text in (
            (4, "start", _number(low)),
            (width - 4, "end", f"{_number(high)} {unit}".strip()),
        )
    ]
    axis = f'<path class="axis" d="M4 {base}H{width - 4}"/>'
    return _svg(width, height, "".join([*bars, axis, *ticks, *words]), f"{len(known)} values")


def scatter(marks: Sequence[Mark], lines: Sequence[Line], x_words: str, y_words: str, label: str) -> str:
    """Points with horizontal lines: Bland-Altman plots and control charts. "" without a point."""
    known = [mark for mark in marks if math.isfinite(mark.x) and math.isfinite(mark.y)]
    levels = [line for line in lines if math.isfinite(line.y)]
    if not known:
        return ""
    x_low, x_high = _range([mark.x for mark in known])
    y_low, y_high = _range([mark.y for mark in known] + [line.y for line in levels])

    def x_of(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>']
    for value in _ticks(y_low, y_high):
        parts.append(f'<path class="grid" d="M{LEFT} {y_of(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text x="{LEFT - 5}" y="{y_of(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    for value in _ticks(x_low, x_high):
        parts.append(
            f'<text x="{x_of(value):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">'
            f"{_number(value)}</text>"
        )
    for line in levels:
        kind = "limit" if line.dashed else "level"
        parts.append(
            f'<path class="{kind}" d="M{LEFT} {y_of(line.y):.1f}H{WIDTH - RIGHT}">'
            f"<title>{escape(line.title)}</title></path>"
        )
    for mark in known:
        kind = "dot bad" if mark.bad else "dot"
        parts.append(
            f'<circle class="{kind}" cx="{x_of(mark.x):.1f}" cy="{y_of(mark.y):.1f}" r="4">'
            f"<title>{escape(mark.title)}</title></circle>"
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{escape(x_words)}</text>"
    )
    parts.append(
        f'<text transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_words)}</text>'
    )
    return _svg(WIDTH, HEIGHT, "".join(parts), label)


def _svg(width: int, height: int, content: str, label: str) -> str:
    return (
        f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}">'
        f"{content}</svg>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(low) * 0.1 or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers between."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - raw))
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:.4g}" if value else "0"
