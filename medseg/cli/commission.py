"""``medseg commission``: is this installation sound, and do its contours agree with a clinic's plans?"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from medseg.cli.cohort import Bar
from medseg.cli.segment import add_request, request_of_options
from medseg.cli.suggest import path_of
from medseg.cli.words import add_trust, in_flags, say
from medseg.errors import InputError

SITE = "site"
OF_SITE = (
    *("plans", "roi_map", "limits", "baseline", "prefer", "workers", "trust_bundle", "allow", "set", "names"),
    *("format", "device", "engine", "within", "at", "series"),
    *("ctv_mm", "ptv_mm", "crop_to_body", "ctv_not_into"),
)
"""Options that say what is contoured and compared: of the installation none is taken."""


def add_commission(command: argparse.ArgumentParser):
    """Check this installation; or (site) compare automatic contours with a clinic's own plans."""
    command.usage = "medseg commission [site --plans DIR --bundle NAME --roi-map FILE] [-o DIR] [options]"
    command.add_argument(
        "what", nargs="?", choices=(SITE,), metavar="site", help="left out: the installation"
    )
    command.add_argument(
        "-o", "--output", type=path_of, metavar="DIR", help="for the page and its record; left out: only say"
    )
    command.add_argument("--json", action="store_true", help="print the record as JSON")
    command.add_argument(
        "--no-contouring", action="store_true", help="leave out the network's run, which takes a minute"
    )
    command.add_argument("--plans", type=path_of, metavar="DIR", help="of site: exports of plans, nested")
    command.add_argument("--bundle", metavar="NAME", help="of site: what contours them")
    command.add_argument(
        "--roi-map",
        type=path_of,
        metavar="FILE",
        help='of site: which ROI names of the plans are which structure: {"SpinalCord": ["cord.*"]}',
    )
    command.add_argument(
        "--limits", type=path_of, metavar="FILE", help='of site: action levels, {"*": {"surface_dsc": 0.9}}'
    )
    command.add_argument(
        "--baseline", type=path_of, metavar="FILE", help="of site: site.json of an earlier report, for drift"
    )
    command.add_argument(
        "--prefer",
        action="append",
        choices=("approved", "newest"),
        default=[],
        help="of site: which of several sets of one series; default: approved, then newest",
    )
    command.add_argument("--workers", type=int, default=1, metavar="N", help="of site: processes")
    add_request(command)
    add_trust(command)
    return _run


def _run(options) -> int:
    return _site(options) if options.what == SITE else _readiness(options)


def _readiness(options) -> int:
    from medseg.bundles.find import find_bundle
    from medseg.commission.checks import Finding
    from medseg.commission.readiness import check_readiness, write_readiness
    from medseg.files import make_folder

    _refuse(options, OF_SITE, "commission")

    bundles = [options.bundle] if options.bundle else []
    for name in bundles:
        find_bundle(name)
    out = options.output.resolve() if options.output else None
    if out:
        make_folder(out)

    def report(one: Finding) -> None:
        if not options.json:
            say(f"{one.state:8} {one.group}: {one.name}: {in_flags(one.words)}")

    record = check_readiness(bundles, not options.no_contouring, report)
    if out:
        page = write_readiness(record, out)
        say(f"-> {page}", file=sys.stderr)
    if options.json:
        say(json.dumps(record, indent=1))
    else:
        counts = ", ".join(f"{count} {state}" for state, count in record["counts"].items())
        say(f"{'ready' if record['ready'] else 'NOT READY'}: {counts}")
    return 0 if record["ready"] else 1


def _site(options) -> int:
    from medseg.bundles.many.engine import Workers
    from medseg.commission.site import CONTOURS, SiteRequest, validate_site
    from medseg.commission.site_page import write_site_page

    for name in ("plans", "bundle", "roi_map", "output"):
        if getattr(options, name) is None:
            raise InputError(f"medseg commission site: no --{name.replace('_', '-')} given.")
    _refuse(options, ("no_contouring", "format"), "commission site")
    out = options.output.resolve()
    options.format, options.output = "rtstruct", out / CONTOURS
    threads = max(1, (os.cpu_count() or 1) // max(options.workers, 1))
    with Bar(sys.stderr.isatty()) as bar:
        request = SiteRequest(
            request_of_options(options, options.plans.resolve()),
            options.roi_map,
            out,
            options.limits,
            tuple(options.prefer) or ("approved", "newest"),
            options.baseline,
            bar.tell,
        )
        record = validate_site(request, Workers(options.workers, threads), bar.report)
    page = write_site_page(record, out)
    asked = bool(record["limits"]["levels"] or record["limits"]["dose"])
    for note in record["passed_over"]:
        say(f"passed over: {in_flags(note)}", file=sys.stderr)
    for note in record["unjudged"]:
        say(f"not judged: {note}", file=sys.stderr)
    if options.json:
        say(json.dumps({key: record[key] for key in ("passed", "unjudged", "plans", "structures")}, indent=1))
    else:
        words = {
            None: "no structure that an action level could judge" if asked else "no action levels were fixed",
            True: "within all action levels that could be judged"
            if record["unjudged"]
            else "within all action levels",
            False: "beyond a level",
        }
        say(f"{record['plans']} plans: {words[record['passed']]} -> {page}")
    open_questions = record["not_done"] or record["unjudged"] or (asked and record["passed"] is None)
    return 1 if record["passed"] is False else 2 if open_questions else 0


def _refuse(options, names: Sequence[str], command: str) -> None:
    for name in names:
        if getattr(options, name) != options.parser.get_default(name):
            raise InputError(f"--{name.replace('_', '-')} does not go with medseg {command}.")
