"""Is this installation fit to be commissioned? All checks, one page, one record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg.bundles.record import versions
from medseg.commission.checks import FAIL, PASS, SKIP, Finding, run_checks
from medseg.commission.contouring import contouring_checks
from medseg.commission.installation import installation_checks
from medseg.commission.phantom import phantom_checks
from medseg.files import make_folder, write_json
from medseg.reports.page import write_page
from medseg.reports.preview import DISCLAIMER

PAGE, RECORD = "commission.html", "commission.json"

DEFINITIONS = {
    "pass": "what was expected was found",
    "fail": "it was not; the words say what was seen. One of these, and the installation is not ready",
    "skipped": "what the check needs is not installed here, and medseg works without it",
    "told": "a figure without a limit: compare it with that of the day of commissioning",
    "phantom": "a ball of 7 mm radius, an L and what is left of the body around it, known by formula; "
    "written in each orientation and way, and read back. Expected: every voxel as it was (Dice 1), the "
    "ball's volume within 3 % of 4/3 pi r^3 and its centre within 0.5 mm",
    "contouring": "the shipped weights on a phantom of a thigh whose tumour is known; twice, and the same",
}


def check_readiness(
    bundles: Sequence[str] = (), contour: bool = True, report: Callable[[Finding], None] = lambda one: None
) -> dict[str, Any]:
    """Run every check; the record: {"ready", "counts", "versions", "date", "findings"}. ``bundles``: whose
    weights are read, all shipped ones when empty. ``contour``: false leaves out the network's run, which
    takes a minute."""
    checks = [*installation_checks(tuple(bundles)), *phantom_checks()]
    findings = run_checks([*checks, *(contouring_checks() if contour else [])], report)
    states = [finding.state for finding in findings]
    return {
        "ready": FAIL not in states,
        "counts": {state: states.count(state) for state in dict.fromkeys((PASS, FAIL, SKIP, *states))},
        "contoured": contour,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
        "findings": [asdict(finding) for finding in findings],
        "disclaimer": DISCLAIMER,
    }


def write_readiness(record: dict[str, Any], folder: Path) -> Path:
    """Write FOLDER/commission.html and commission.json, each atomically; the page's path."""
    make_folder(folder)
    groups: dict[str, list[dict[str, Any]]] = {}
    for finding in record["findings"]:
        groups.setdefault(finding["group"], []).append(finding)
    values = {key: record[key] for key in ("ready", "counts", "date", "versions", "contoured")}
    write_page("commission.html", folder / PAGE, **values, groups=groups, notices=[], definitions=DEFINITIONS)
    write_json(record, folder / RECORD)
    return folder / PAGE
