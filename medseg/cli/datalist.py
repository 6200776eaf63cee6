"""``medseg datalist``: clinic exports in, a MONAI datalist and a report of what was left out."""

from __future__ import annotations

import argparse

from medseg.cli.suggest import path_of
from medseg.cli.words import say_lines
from medseg.errors import InputError


def add_datalist(command: argparse.ArgumentParser):
    """List clinic exports (CT and RTSTRUCT mixed) as training and validation cases, and what was left out."""
    command.add_argument("export_dir", type=path_of, metavar="EXPORT_DIR")
    command.add_argument(
        "rois", type=path_of, metavar="ROIS.json", help='which ROI names mean what: {"GTV": ["gtv.*"]}'
    )
    command.add_argument("out", type=path_of, metavar="OUT.json", help="the MONAI datalist")
    command.add_argument(
        "--validation",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the patients that validate; default 0.2",
    )
    command.add_argument("--seed", type=int, default=0, help="of the draw of patients")
    command.add_argument("--modality", default="CT", help="of the series; default CT")
    command.add_argument(
        "--prefer",
        action="append",
        choices=("approved", "newest"),
        default=[],
        help="which of several sets of one series to take; may be given twice, in order",
    )
    command.add_argument(
        "--boxes", action="store_true", help="boxes around the ROIs, LPS mm, for detectors, instead of masks"
    )
    command.add_argument("--report", type=path_of, metavar="FILE", help="write the report as JSON too")
    return _run


def _run(options) -> int:
    from medseg.workbench.clinic_datalist import DatalistRequest, make_datalist, report_lines

    request = DatalistRequest(
        options.export_dir,
        options.rois,
        options.out,
        options.validation,
        options.seed,
        options.modality,
        tuple(options.prefer),
        options.report,
        options.boxes,
    )
    report = make_datalist(request)
    say_lines(report_lines(report))
    if report.failure:
        raise InputError(report.failure)
    return 0
