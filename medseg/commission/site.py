"""A clinic's own plans against automatic contours, as guidance asks for before such contours are used.

The plans are contoured by the bundle as ``medseg cohort`` does it, compared structure by structure, and told
on one page with the action levels that the user has fixed. Months later the same command with the first
record as ``baseline`` shows whether anything drifts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg.bundles.find import find_bundle
from medseg.bundles.many.engine import Workers
from medseg.bundles.many.run import Progress, run_cohort
from medseg.bundles.many.segment import Segment
from medseg.bundles.record import versions, write_record
from medseg.bundles.request import Request
from medseg.commission.judge import Judge
from medseg.commission.limits import Limits, read_limits
from medseg.commission.statistics import Control, control, group_of, is_within, summaries, unjudged
from medseg.errors import InputError
from medseg.files import load_json, make_folder, plain
from medseg.metrics import PATH_DEFINITION, SURFACE_DEFINITION
from medseg.reports.preview import DISCLAIMER
from medseg.structures.aliases import load_aliases

RECORD, PAGE = "site.json", "site.html"
CONTOURS, CASES = "contours", "cases"
WATCHED = ("surface_dsc", "volume_percent", "shift_mm")
"""What control charts follow."""

GUIDANCE = {
    "ESTRO and AAPM 2024": "Hurkmans C et al., A joint ESTRO and AAPM guideline for development, clinical "
    "validation and reporting of artificial intelligence models in radiation therapy, Radiother Oncol 2024; "
    "197:110345, doi 10.1016/j.radonc.2024.110345",
    "ESTRO 2020": "Vandewinckele L et al., Overview of artificial intelligence-based applications in "
    "radiotherapy: recommendations for implementation and quality assurance, Radiother Oncol 2020; "
    "153:55-66, doi 10.1016/j.radonc.2020.09.008",
}
"""Whose advice the report follows: validation on the clinic's own patients, geometry and dose, action levels
fixed before, routine checks after going live and after every change of scanner, protocol or model."""

DEFINITIONS = {
    "plan": "the clinic's structure set, which is taken for the truth; approved ones first, then the newest",
    "DSC": "2 |A and B| / (|A| + |B|) over voxels",
    "surface DSC": f"share of both surfaces within the structure's tolerance; {SURFACE_DEFINITION}",
    "HD95": "larger of the two directed 95th percentiles of surface distance, by area, in mm",
    "APL": f"{PATH_DEFINITION} than the tolerance, in mm",
    "volume": "automatic volume less that of the plan, in % of the plan's",
    "shift": "distance between the centres of mass, in mm",
    "limits of agreement": "mean difference of the volumes and 1.96 standard deviations to either side "
    "(Bland and Altman, Lancet 1986; 1:307-310)",
    "action level": "fixed by the user in a file; passed when the share of the cases that is given there "
    "(90 % unless it says otherwise) lies within it. A structure that was not contoured is within none",
    "control chart": "each case in the order of its images' dates; limits are 2.66 mean moving ranges to "
    "either side of the mean, of the baseline where one was given; a point beyond them is a reason to look",
    "dose": "each voxel by the planned dose at its centre (linear between grid points); the plan is that of "
    "the manual contours, so a difference says what the contours would report, not what they would cause",
}


@dataclass(frozen=True)
class SiteRequest:
    """``plans``: exports with images and structure sets (RTPLAN, RTDOSE) of many patients. ``contouring``: of
    the bundle over them; its input is ``plans``. ``roi_map``: a JSON file {structure of the bundle: patterns
    of ROI names}. ``limits``: a JSON file, see :func:`medseg.commission.limits.read_limits`. ``baseline``:
    the site.json of an earlier report."""

    contouring: Request
    roi_map: Path
    output_dir: Path
    limits: Path | None = None
    prefer: tuple[str, ...] = ("approved", "newest")
    baseline: Path | None = None
    tell: Callable[[Progress], None] = field(default=lambda progress: None, compare=False)


def validate_site(
    request: SiteRequest, workers: Workers, report: Callable[[dict[str, Any]], None] = lambda record: None
) -> dict[str, Any]:
    """Contour, compare, and give the record of the site, which is also OUT/site.json; the page is
    :func:`medseg.commission.site_page.write_site_page`'s. A run that is killed goes on at the next one.

    Raises InputError, before anything is contoured, for files that cannot be read as they should.
    """
    limits, roi_map = read_limits(request.limits), load_aliases(request.roi_map)
    _require_known(limits.structures(), roi_map, request.limits, f"{request.roi_map} has")
    baseline = read_baseline(request.baseline)
    bundle = find_bundle(request.contouring.bundle)
    make_folder(request.output_dir)
    contoured = run_cohort(Segment(request.contouring), workers, report, tell=request.tell)
    contours = _by_series(contoured["cases"], request.contouring.output_dir)
    if contours:
        names = [row["name"] for case in contoured["cases"] for row in case.get("structures") or []]
        _require_known(roi_map, dict.fromkeys(names), request.roi_map, f"{bundle.name} contours")
    judge = Judge(
        request.contouring.input,
        contours,
        request.output_dir / CASES,
        bundle.record(),
        roi_map,
        limits,
        request.prefer,
        bundle.modality or "CT",
    )
    judged = run_cohort(judge, workers, report, tell=request.tell)
    done = in_order([case for case in judged["cases"] if case["status"] == "done"])
    rows = summaries(done, limits)
    record = {
        "bundle": judge.record()["bundle"],
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "plans": len(done),
        "passed": _all_passed(rows),
        "unjudged": unjudged(rows, limits),
        "limits": limits.record(),
        "roi_map": judge.record()["roi_map"],
        "structures": rows,
        "control": charts(done, baseline),
        "cases": [_case_record(case, limits) for case in done],
        "not_done": [
            {key: case[key] for key in ("case", "status", "error")}
            for case in [*contoured["cases"], *judged["cases"]]
            if case["status"] != "done"
        ],
        "passed_over": list(dict.fromkeys([*contoured["passed_over"], *judged["passed_over"]])),
        "baseline": str(request.baseline) if request.baseline else None,
        "guidance": GUIDANCE,
        "versions": versions(),
        "disclaimer": DISCLAIMER,
    }
    record["passed_over"] += _not_drawn(roi_map, done) + changed_since(request.baseline, record)
    write_record(plain(record), request.output_dir / RECORD)
    return record


def _require_known(names: Iterable[str], known: Collection[str], path: Path | None, whose: str) -> None:
    """InputError for a structure in a file of the user's that nothing would ever be compared for."""
    for name in names:
        if name not in known:
            raise InputError(
                f"{path}: no structure {name!r}; {whose} {', '.join(known)}. Correct it or leave it out."
            )


def _not_drawn(roi_map: Iterable[str], cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each structure that no plan has: a pattern may be wrong."""
    drawn = {row["name"] for case in cases for row in case["structures"] if row.get("state") != "no plan"}
    return [
        f"{name}: no ROI of any plan fits it, so nothing is said of it"
        for name in roi_map
        if name not in drawn
    ]


def _by_series(cases: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, str]:
    """{SeriesInstanceUID: the folder of its contours} of what was contoured."""
    found = {}
    for case in cases:
        if case["status"] == "done":
            own = folder / case["case"]
            uid = load_json(own / "run.json")["input"].get("SeriesInstanceUID")
            if uid and (own / "RS.dcm").is_file():
                found[uid] = str(own)
    return found


def in_order(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By the date of the images; those without one come last, by name."""
    return sorted(cases, key=lambda case: (not case.get("date"), case.get("date", ""), case["case"]))


def _case_record(case: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    beyond = [row["name"] for row in case["structures"] if not is_within(row, limits)]
    return {**case, "group": group_of(case), "beyond": beyond}


def _all_passed(rows: Sequence[Mapping[str, Any]]) -> bool | None:
    known = [row["passed"] for row in rows if row["group"] == "all" and row["passed"] is not None]
    return all(known) if known else None


# ---- drift -------------------------------------------------------------------------------------------------


def charts(
    cases: Sequence[Mapping[str, Any]], baseline: Mapping[tuple[str, str], Control]
) -> list[dict[str, Any]]:
    """A control chart for each structure and watched number: {"structure", "number", "limits", "of_baseline",
    "points": [{"case", "date", "value", "beyond"}]}. Without a baseline the limits are of the points."""
    names = dict.fromkeys(row["name"] for case in cases for row in case["structures"])
    made = []
    for name in names:
        for number in WATCHED:
            points = [
                {"case": case["case"], "date": case.get("date", ""), "value": row[number]}
                for case in cases
                for row in case["structures"]
                if row["name"] == name and row.get(number) is not None
            ]
            known = baseline.get((name, number))
            levels = known or control([point["value"] for point in points])
            for point in points:
                point["beyond"] = levels is not None and levels.excludes(point["value"])
            made.append(
                {
                    "structure": name,
                    "number": number,
                    "limits": levels and levels._asdict(),
                    "of_baseline": known is not None,
                    "points": points,
                }
            )
    return made


def changed_since(path: Path | None, record: Mapping[str, Any]) -> list[str]:
    """Sentences about what is another one than in the earlier report at ``path``, whose limits then say
    little; [] without one."""
    if path is None:
        return []
    earlier = load_json(path)
    said = []
    for name in ("name", "version", "weights_sha256"):
        before, now = (str(one.get("bundle", {}).get(name, "not stated")) for one in (earlier, record))
        if before != now:
            said.append(f"the baseline's bundle has {name} {before}, this one {now}; make a new baseline")
    before, now = (one.get("limits", {}).get("tolerance_mm") for one in (earlier, record))
    if before != now:
        said.append(f"the baseline's tolerances are {before}, these {now}; make a new baseline")
    known = {case.get("group") for case in earlier.get("cases", ())}
    groups = dict.fromkeys(case["group"] for case in record["cases"])
    said += [f"images of {group} were not among the baseline's" for group in groups if group not in known]
    return said


def read_baseline(path: Path | None) -> dict[tuple[str, str], Control]:
    """The limits of an earlier report's control charts; {} without one. InputError for another file."""
    if path is None:
        return {}
    try:
        rows = load_json(path)["control"]
        return {(row["structure"], row["number"]): Control(**row["limits"]) for row in rows if row["limits"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the site.json of an earlier report; name that: `baseline`.") from error
