"""Slices of a reduced copy, as the server draws them: outlines, boxes and a PET over the image."""

from __future__ import annotations

import io

import numpy as np

from medseg.errors import InputError
from medseg.reports.pictures import LUNG_WINDOW_HU, WINDOW_HU
from medseg.serve.web.viewing import View
from medseg.shapes.outlines import mask_polygons

DRAWN_PIXELS = 640
"""Of a slice's longer side, as the server draws it."""

WINDOWS = {"soft tissue": WINDOW_HU, "lung": LUNG_WINDOW_HU, "bone": (-450.0, 1550.0), "brain": (0.0, 80.0)}
"""Lowest and highest HU shown; "whole" stands for the image's own range."""

LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""Of each plane: what lies at its left, right, top and bottom."""

AXES = tuple(LETTERS)

BOX_COLOUR = (255, 158, 27)


def slice_png(view: View, axis: str, index: int, window: str, hidden: set[int], fused: bool = False) -> bytes:
    """One slice as PNG with the outlines of the structures that are not ``hidden`` (by their number), and the
    boxes that it cuts; index 0 is the lowest. ``fused``: with the PET over it, where there is one. InputError
    for an axis, index or window that there is not."""
    from PIL import Image, ImageDraw

    if axis not in AXES or not 0 <= index < view.about["shape"][AXES.index(axis)]:
        raise InputError("no such slice.")
    number = AXES.index(axis)
    low, high = _window(view, window)
    plane = np.asarray(view.volume.take(index, number), dtype=np.float32)
    grey = (np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    row_mm, column_mm = (view.about["spacing_mm"][other] for other in range(3) if other != number)
    upwards = number > 0  # rows then run to Superior, which is drawn upwards
    size_mm = (plane.shape[1] * column_mm, plane.shape[0] * row_mm)
    scale = DRAWN_PIXELS / max(size_mm)
    size = tuple(max(1, round(mm * scale)) for mm in size_mm)
    image = Image.fromarray(grey[::-1] if upwards else grey).resize(size, Image.Resampling.BILINEAR)
    image = image.convert("RGB")
    if fused and view.about["fused"]:
        pet = np.asarray(view.fused.take(index, number))
        image = _coloured(image, pet[::-1] if upwards else pet)
    draw = ImageDraw.Draw(image)
    for place, colour in enumerate(view.about["colours"]):
        if place in hidden:
            continue
        mask = np.asarray(view.masks[place].take(index, number), dtype=bool)
        mask = mask[::-1] if upwards else mask
        factor = np.array([size[0] / mask.shape[1], size[1] / mask.shape[0]])
        for polygon in mask_polygons(mask):
            for ring in (polygon.exterior, *polygon.holes):
                points = (np.asarray(ring)[:, ::-1] + 0.5) * factor
                draw.line([tuple(point) for point in [*points, points[0]]], fill=tuple(colour), width=2)
    for box in view.about["boxes"]:
        _draw_box(draw, box, view, number, index, size)
    _letters(draw, LETTERS[axis], size)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _coloured(image, share: np.ndarray):
    """The slice with the PET over it, clear where it is 0."""
    from matplotlib import colormaps
    from PIL import Image

    strong = Image.fromarray(share).resize(image.size, Image.Resampling.BILINEAR)
    part = np.asarray(strong, dtype=np.float32)[..., None] / 255
    colours = colormaps["hot"](part[..., 0])[..., :3] * 255
    weight = 0.6 * np.sqrt(part)
    return Image.fromarray((np.asarray(image) * (1 - weight) + colours * weight).astype(np.uint8))


def _draw_box(draw, box: dict, view: View, number: int, index: int, size: tuple[int, ...]) -> None:
    """One box where it meets the slice, with its class and score."""
    if not box["low"][number] - 0.5 <= index <= box["high"][number] + 0.5:
        return
    rows, columns = (other for other in range(3) if other != number)
    height, width = view.about["shape"][rows], view.about["shape"][columns]
    ends = [[box[end][axis] + 0.5 for axis in (columns, rows)] for end in ("low", "high")]
    (left, top), (right, bottom) = ends
    if number > 0:
        top, bottom = height - bottom, height - top
    across, down = size[0] / width, size[1] / height
    place = (left * across, top * down, right * across, bottom * down)
    draw.rectangle(place, outline=BOX_COLOUR, width=2)
    words = f"{box['class']} {box['score']:.2f}"
    style = {"anchor": "lb", "font_size": 14, "stroke_width": 1, "stroke_fill": "black"}
    draw.text(place[:2], words, fill=BOX_COLOUR, **style)


def _letters(draw, letters: str, size: tuple[int, ...]) -> None:
    """Which way left, right, top and bottom of the slice lie in the patient."""
    width, height = size
    places = (
        (8, height / 2, "lm"),
        (width - 8, height / 2, "rm"),
        (width / 2, 6, "mt"),
        (width / 2, height - 6, "mb"),
    )
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        draw.text(
            (x, y), letter, fill="gold", anchor=anchor, font_size=18, stroke_width=1, stroke_fill="black"
        )


def _window(view: View, window: str) -> tuple[float, float]:
    if window == "whole":
        low, high = view.about["range"]
        return low, high
    if window not in WINDOWS:
        raise InputError(f"window {window!r}; expected one of {', '.join(WINDOWS)} or whole.")
    return WINDOWS[window]


def middle_of_box(view: View, box: dict, axis: str) -> int:
    """The slice through the middle of one of the view's boxes."""
    number = AXES.index(axis)
    index = round((box["low"][number] + box["high"][number]) / 2)
    return min(max(index, 0), view.about["shape"][number] - 1)


def middle(view: View, axis: str) -> int:
    """The slice that shows most of the structures, or the middle of the best box, or of the image."""
    number = AXES.index(axis)
    if view.about["boxes"]:
        return middle_of_box(view, view.about["boxes"][0], axis)
    others = tuple(other + 1 for other in range(3) if other != number)
    if not view.masks.size or not view.masks.any():
        return view.about["shape"][number] // 2
    return int(view.masks.any(axis=0).sum(axis=tuple(other - 1 for other in others)).argmax())
