"""site.html: the clinic's validation on one page that can be printed and signed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.commission.judge import binary_mask, opened
from medseg.commission.limits import unit
from medseg.commission.site import DEFINITIONS, GUIDANCE, PAGE
from medseg.commission.statistics import NUMBERS
from medseg.reports.charts import Line, Mark, scatter
from medseg.reports.page import write_page
from medseg.reports.pictures import draw_pair

CALLED = {
    "dsc": "DSC",
    "surface_dsc": "surface DSC",
    "hd95_mm": "HD95",
    "mean_surface_distance_mm": "mean distance",
    "added_path_length_mm": "APL",
    "volume_percent": "volume",
    "shift_mm": "shift",
}
MOST_PICTURES = 6


def write_site_page(record: Mapping[str, Any], folder: Path) -> Path:
    """Write FOLDER/site.html of :func:`medseg.commission.site.validate_site`'s record, atomically; its path.
    Reads the images of the worst cases again to draw them."""
    values = {
        "record": record,
        "rows": record["structures"],
        "called": CALLED,
        "shown": NUMBERS,
        "unit": unit,
        "bland_altman": _bland_altman(record),
        "control": [_control(chart) for chart in record["control"] if chart["points"]],
        "worst": _worst(record),
        "dose": _dose_rows(record),
        "guidance": GUIDANCE,
    }
    notices = [*(f"Not judged: {words}" for words in record["unjudged"]), *record["passed_over"]]
    notices += [f"{case['case']}: {words}" for case in record["cases"] for words in case["warnings"]]
    write_page("site.html", folder / PAGE, **values, notices=notices, definitions=DEFINITIONS)
    return folder / PAGE


def _bland_altman(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each structure the difference of the volumes over their mean, with the limits of agreement."""
    made = []
    for row in record["structures"]:
        if row["group"] != "all" or not row["n"]:
            continue
        marks = [
            Mark(
                (own["reference_cc"] + own["other_cc"]) / 2,
                own["other_cc"] - own["reference_cc"],
                f"{case['case']}: plan {own['reference_cc']:.1f} cc, automatic {own['other_cc']:.1f} cc",
                row["structure"] in case["beyond"],
            )
            for case in record["cases"]
            for own in case["structures"]
            if own["name"] == row["structure"] and "dsc" in own
        ]
        bias = row["bias_cc"]
        lines = [Line(0.0, "no difference")]
        lines += (
            [Line(bias["mean"], f"mean difference {bias['mean']:.2f} cc")] if bias["mean"] is not None else []
        )
        for side in ("low", "high"):
            if bias[side] is not None:
                lines.append(Line(bias[side], f"limit of agreement {bias[side]:.2f} cc", dashed=True))
        words = ("mean of both volumes (cc)", "automatic - plan (cc)")
        made.append({"structure": row["structure"], "chart": scatter(marks, lines, *words, row["structure"])})
    return made


def _control(chart: Mapping[str, Any]) -> dict[str, Any]:
    called, number = CALLED[chart["number"]], chart["number"]
    marks = [
        Mark(
            index,
            point["value"],
            f"{point['case']}, {_day(point['date'])}: {point['value']:.3g}",
            point["beyond"],
        )
        for index, point in enumerate(chart["points"], 1)
    ]
    lines, levels = [], chart["limits"]
    if levels:
        of = "of the baseline" if chart["of_baseline"] else "of these cases"
        lines.append(Line(levels["centre"], f"mean {of} {levels['centre']:.3g}"))
        for side in ("low", "high"):
            lines.append(Line(levels[side], f"control limit {of} {levels[side]:.3g}", dashed=True))
    y_words = f"{called} ({unit(number)})" if unit(number) else called
    title = f"{chart['structure']}: {called}"
    beyond = sum(point["beyond"] for point in chart["points"])
    drawn = scatter(marks, lines, "cases by date of their images", y_words, title)
    return {
        "title": title,
        "chart": drawn,
        "beyond": beyond,
        "limits": levels,
        "baseline": chart["of_baseline"],
    }


def _day(date: str) -> str:
    return f"{date[:4]}-{date[4:6]}-{date[6:8]}" if len(date) >= 8 else "no date"


def _dose_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Structure by structure and case by case, the dose of both contours."""
    return [
        {
            "case": case["case"],
            "structure": row["name"],
            "number": number,
            "unit": unit(number),
            "plan": pair[0],
            "automatic": pair[1],
            "difference": None if pair[1] is None else pair[1] - pair[0],
            "beyond": _beyond(record["limits"]["dose"], row["name"], number, pair),
        }
        for case in record["cases"]
        for row in case["structures"]
        for number, pair in (row.get("dose") or {}).items()
        if pair[0] is not None
    ]


def short(value: float) -> str:
    """Three figures, and whole numbers from a hundred on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _beyond(
    levels: Mapping[str, Mapping[str, float]], name: str, number: str, pair: Sequence[float | None]
) -> bool:
    level = {**levels.get("*", {}), **levels.get(name, {})}.get(number)
    return level is not None and (pair[1] is None or abs(pair[1] - pair[0]) > level)


def _worst(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The structures that agree least, drawn: (surface DSC, then DSC)."""
    rows = [
        (row["surface_dsc"] if row["surface_dsc"] is not None else row["dsc"] or 0.0, case, row)
        for case in record["cases"]
        for row in case["structures"]
        if row.get("state") in ("both", "other empty")
    ]
    shown = []
    for _, case, row in sorted(rows, key=lambda one: one[0])[:MOST_PICTURES]:
        series, plan, automatic, _ = opened(case)
        masks = [binary_mask(plan, row["roi"]), binary_mask(automatic, row["name"])]
        pictures = draw_pair(*masks, series.geometry, series.volume(), series.modality)
        words = ", ".join(
            f"{CALLED[number]} {short(row[number])}{' ' + unit(number) if unit(number) else ''}"
            for number in NUMBERS
            if row.get(number) is not None and math.isfinite(row[number])
        )
        shown.append(
            {"name": f"{case['case']}: {row['name']} ({row['roi']})", "words": words, "pictures": pictures}
        )
    return shown
