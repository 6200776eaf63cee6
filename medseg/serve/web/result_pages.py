"""What a result's page shows, by the kind of the result and of the image; never by the bundle's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.contrib.staticfiles import finders
from django.http import HttpRequest
from django.urls import reverse

from medseg.cases.find import folder_name
from medseg.serve.web.models import Job
from medseg.serve.web.screening import screening_of
from medseg.serve.web.slices import AXES, WINDOWS, middle, middle_of_box
from medseg.serve.web.viewing import SUV_WINDOW, View, view_of
from medseg.structures.structure import fixed_colour_rgb

VIEWER = "web/vendor/niivue.js"
"""Comes from npm at build time (npm/README.md); the pages do without it when it is not there."""


MAP = "map.png"
"""Where the network looked, of a result of labels."""


def has_viewer() -> bool:
    return finders.find(VIEWER) is not None


def has_file(record: Mapping[str, Any], name: str) -> bool:
    """Whether the run record lists a file of that name."""
    return any(row["file"] == name for row in record.get("outputs", ()))


def kind_of_record(record: Mapping[str, Any]) -> str:
    """ "structures", "boxes" or "labels": which part the record has."""
    return next((kind for kind in ("structures", "boxes", "labels") if kind in record), "")


def is_volume(record: Mapping[str, Any]) -> bool:
    return "shape_slices_rows_columns" in record.get("geometry", {})


def picture_kind(record: Mapping[str, Any]) -> str:
    """ "photograph" or "radiograph": only a photograph's record says whether it has colours."""
    return "photograph" if "colour" in record.get("input", {}) else "radiograph"


def page_of(job: Job, folder: Path, record: Mapping[str, Any], request: HttpRequest) -> dict[str, Any]:
    """The template's values: tables, picture, slices, files."""
    kind = kind_of_record(record)
    values: dict[str, Any] = {
        "kind": kind,
        "files": [row for row in record.get("outputs", ())],
        "preview": has_file(record, "preview.png"),
        "record_rows": record_rows(record),
        "warnings": record.get("warnings", ()),
    }
    if record.get("status") != "done":
        return values | {"failed": record.get("error", "")}
    if is_volume(record):
        values |= _volume_values(folder, record, request)
    elif kind:
        values |= _picture_values(job, folder, record)
    if kind == "labels":
        values |= {"labels": _labels(record["labels"]), "screening": screening_of(job.bundle)}
    if kind == "boxes":
        values["boxes"] = _boxes(record, values)
    return values


def record_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The run record in words: what made this result."""
    bundle, options = record.get("bundle", {}), record.get("options", {})
    within = Path(options["within"]).name if options.get("within") else ""
    rows = [
        ("Bundle", f"{bundle.get('name', '')} {bundle.get('version', '')}".strip()),
        ("Weights (SHA-256)", bundle.get("weights_sha256", "")),
        ("Region", within),
        ("Settings", ", ".join(f"{key} = {value}" for key, value in options.get("settings", {}).items())),
        ("Device", f"{record.get('device', '')}, {record.get('engine', '')}".strip(", ")),
        ("Started", record.get("started", "")),
        ("Seconds", f"{record.get('seconds', '')}"),
        ("Versions", ", ".join(f"{name} {found}" for name, found in record.get("versions", {}).items())),
    ]
    return [(name, text) for name, text in rows if text]


# ---- volumes -----------------------------------------------------------------------------------------------


def _volume_values(folder: Path, record: Mapping[str, Any], request: HttpRequest) -> dict[str, Any]:
    view = view_of(folder, record)
    asked = slice_asked(request, view)
    sizes = {row["name"]: row for row in record.get("structures", ())}
    structures = [
        {"number": number, "name": name, "class": f"c{number % 12}", "row": sizes.get(name, {})}
        for number, name in enumerate(view.about["names"])
    ]
    for one in structures:
        one["colour"] = "#{:02x}{:02x}{:02x}".format(*view.about["colours"][one["number"]])
        one["shown"] = one["number"] not in asked["hidden"]
    return {
        **slices_values(view, asked),
        "shown_structures": structures,
        "has_viewer": has_viewer(),
        "suv_window": SUV_WINDOW,
        "slice_of_box": [middle_of_box(view, box, "axial") for box in view.about["boxes"]],
    }


def slices_values(view: View, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the form of slices needs (:mod:`medseg.serve.web.slices`)."""
    presets = [(name, *ends) for name, ends in WINDOWS.items()] if view.about["is_ct"] else []
    return {
        "view": view.about,
        "axes": AXES,
        "windows": [*presets, ("whole", *view.about["range"])],
        "asked": asked,
        "last": view.about["shape"][AXES.index(asked["axis"])] - 1,
        "middles": {axis: middle(view, axis) for axis in AXES},
        "counts": dict(zip(AXES, view.about["shape"], strict=True)),
    }


def slice_asked(request: HttpRequest, view) -> dict[str, Any]:
    """Which slice a form, or the page's script, asks for; what makes no sense becomes the usual."""
    said = request.GET
    axis = said.get("axis", "axial")
    axis = axis if axis in AXES else "axial"
    last = view.about["shape"][AXES.index(axis)] - 1
    index = said.get("index", "")
    usual = "soft tissue" if view.about["is_ct"] else "whole"
    window = said.get("window", usual)
    window = window if window in (*WINDOWS, "whole") else usual
    count = len(view.about["names"])
    shown = {int(text) for text in said.getlist("show") if text.isdecimal()}
    hidden = set(range(count)) - shown if "chosen" in said else set()
    number = min(int(index), last) if index.isdecimal() and len(index) < 6 else middle(view, axis)
    fused = "fused" in said or "chosen" not in said
    return {"axis": axis, "index": number, "window": window, "hidden": hidden, "fused": fused}


# ---- pictures ----------------------------------------------------------------------------------------------


def _picture_values(job: Job, folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    layers = []
    for row in record.get("structures", ()):
        file = f"{folder_name(row['name'])}.png"
        if (folder / file).is_file():
            layers.append(
                {
                    "name": row["name"],
                    "url": reverse("overlay", args=[job.id, folder.name, file]),
                    "colour": "#{:02x}{:02x}{:02x}".format(*fixed_colour_rgb(row["name"])),
                    "row": row,
                }
            )
    heat = reverse("overlay", args=[job.id, folder.name, MAP]) if has_file(record, MAP) else ""
    return {"picture": reverse("picture", args=[job.id, folder.name]), "layers": layers, "heat": heat}


def _labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Probabilities and values as (class or name, what is said, its calibrated interval or None), and the
    remark."""
    intervals = labels.get("intervals", {})
    chances, values = (
        [(name, value, intervals.get(name)) for name, value in labels[what].items()]
        for what in ("probabilities", "values")
    )
    said = {"values": values, "remark": labels.get("remark", "")}
    return {"probabilities": chances, "has_intervals": bool(intervals), **said}


def _boxes(record: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Boxes with what an SVG over the picture needs (x, y, width, height in pixels) or, of a volume, the
    slice through the middle of each."""
    found = []
    for number, row in enumerate(record["boxes"]["found"]):
        low, high = row["low"], row["high"]
        place = {"slice": values["slice_of_box"][number]} if "slice_of_box" in values else {}
        if len(low) == 2:
            place = {"x": low[1], "y": low[0], "width": high[1] - low[1], "height": high[0] - low[0]}
        found.append({**row, **place})
    shape = record.get("geometry", {}).get("shape_rows_columns")
    return {"unit": record["boxes"]["unit"], "found": found, "shape": shape}
