"""``medseg cohort``: one piece of work with thousands of cases, on many workers."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.cli.segment import add_request, exit_code, request_of_options
from medseg.cli.structures import tolerances
from medseg.cli.suggest import path_of
from medseg.cli.words import add_trust, in_flags, say
from medseg.errors import InputError

if TYPE_CHECKING:
    from medseg.bundles.many.plan import Verb
    from medseg.bundles.many.run import Progress

DEFAULT = "segment"


def add_cohort(command: argparse.ArgumentParser):
    """Do one piece of work with many patients: contour, convert, compare or list them, on many workers."""
    command.usage = "medseg cohort [segment|convert|compare|datalist] INPUT [MORE] -o DIR [options]"
    command.add_argument(
        "words",
        nargs="+",
        metavar="[VERB] INPUT [MORE]",
        help="segment (the default), convert: a folder, a DICOMweb URL or what fsspec reads (s3://…); "
        "compare REFERENCE_DIR OTHER_DIR; datalist EXPORT_DIR ROIS.json",
    )
    command.add_argument("--bundle", metavar="NAME", help="of segment: a bundle's name or folder")
    command.add_argument(
        "-o",
        "--output",
        type=path_of,
        required=True,
        metavar="DIR",
        help="where everything goes; run again with the same one to continue",
    )
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default 1")
    command.add_argument(
        "--ray", metavar="ADDRESS", help="workers on a Ray cluster; local: one that is started for this run"
    )
    command.add_argument(
        "--gpus-per-worker", type=float, default=0.0, metavar="SHARE", help=".5: two workers share a GPU"
    )
    command.add_argument("--memory-gb", type=float, metavar="GB", help="fail a case that needs more")
    command.add_argument("--threads", type=int, metavar="N", help="of the processor for each worker")
    command.add_argument(
        "--retry", action="store_true", help="also what was set aside because it killed its worker"
    )
    add_request(command)
    add_trust(command)
    command.add_argument("--roi", action="append", default=[], metavar="NAME", help="of convert: only this")
    command.add_argument(
        "--prefer",
        action="append",
        choices=("approved", "newest"),
        default=[],
        help="of convert, compare, datalist: which of several sets of one series; in order",
    )
    command.add_argument(
        "--tolerance-mm", action="append", default=[], metavar="[NAME=]MM", help="of compare; default 2"
    )
    command.add_argument(
        "--map", action="append", default=[], metavar="A=B", help="of compare: pair A with B"
    )
    command.add_argument("--validation", type=float, metavar="SHARE", help="of datalist; default 0.2")
    command.add_argument("--json", action="store_true", help="print the run's record as JSON")
    command.set_defaults(input=None)
    return _run


def _run(options) -> int:
    from medseg.bundles.many.engine import LocalEngine, Workers
    from medseg.bundles.many.outputs import write_outputs
    from medseg.bundles.many.run import run_cohort

    name, verb, title = _verb(options)
    threads = options.threads or max(1, (os.cpu_count() or 1) // max(options.workers, 1))
    workers = Workers(options.workers, threads, options.memory_gb, options.gpus_per_worker)
    start: Callable[..., Any] = LocalEngine
    if options.ray:
        from medseg.bundles.many.ray_engine import RayEngine

        start = partial(RayEngine, address=options.ray)
    with Bar(sys.stderr.isatty()) as bar:
        result = run_cohort(verb, workers, bar.report, retry=options.retry, tell=bar.tell, start=start)
    notes = verb.end(result["cases"]) + write_outputs(result, title, verb.output_dir)
    for note in [*result["passed_over"], *notes]:
        say(f"passed over: {in_flags(note)}", file=sys.stderr)
    if options.json:
        say(json.dumps({**result, "cases": len(result["cases"])}, indent=1))
    else:
        say(_summary(name, result, verb.output_dir))
    return exit_code(result["cases"])


def _verb(options) -> tuple[str, Verb, str]:
    """(the verb's name, what it does, what the page calls it). InputError for words and options that do not
    go together."""
    named = options.words[0] in VERBS
    name, words = (options.words[0], options.words[1:]) if named else (DEFAULT, options.words)
    make, count = VERBS[name]
    if len(words) != count:
        raise InputError(f"medseg cohort {name}: {len(words)} paths given; expected {count}.")
    own = {flag for flag, verbs in OWN.items() if name not in verbs}
    for flag in sorted(own):
        if getattr(options, flag) != options.parser.get_default(flag):
            option = "--" + flag.replace("_", "-")
            raise InputError(f"{option} does not go with medseg cohort {name}.")
    verb, title = make(options, words)
    return name, verb, title


def _segment(options, words: Sequence[str]) -> tuple[Verb, str]:
    from medseg.bundles.many.addresses import is_address
    from medseg.bundles.many.segment import Segment

    if options.bundle is None:
        raise InputError("medseg cohort segment: no bundle given: `bundle`.")
    if is_address(words[0]):
        request = request_of_options(options, Path(words[0]))
        return Segment(request, words[0]), _called(request)
    request = request_of_options(options, path_of(words[0]).resolve())
    return Segment(request), _called(request)


def _called(request) -> str:
    return f"{request.bundle.name} {request.bundle.version}"


def _convert(options, words: Sequence[str]) -> tuple[Verb, str]:
    from medseg.bundles.many.sets import Convert

    verb = Convert(
        path_of(words[0]).resolve(),
        options.output.resolve(),
        options.format or "nifti",
        tuple(options.roi),
        tuple(options.prefer),
        tuple(options.allow),
    )
    return verb, "none: converted"


def _compare(options, words: Sequence[str]) -> tuple[Verb, str]:
    from medseg.bundles.many.sets import Compare

    reference, other = (path_of(word).resolve() for word in words)
    tolerance_mm, tolerances_mm = tolerances(options.tolerance_mm)
    verb = Compare(
        reference,
        other,
        options.output.resolve(),
        tolerance_mm,
        tolerances_mm,
        tuple(options.map),
        tuple(options.prefer),
    )
    return verb, f"none: {other} compared with {reference}"


def _datalist(options, words: Sequence[str]) -> tuple[Verb, str]:
    from medseg.bundles.many.datalist import Datalist

    share = 0.2 if options.validation is None else options.validation
    verb = Datalist(
        path_of(words[0]).resolve(),
        path_of(words[1]).resolve(),
        options.output.resolve(),
        share,
        tuple(options.prefer),
    )
    return verb, "none: listed for training"


VERBS: dict[str, tuple[Callable, int]] = {
    "segment": (_segment, 1),
    "convert": (_convert, 1),
    "compare": (_compare, 2),
    "datalist": (_datalist, 2),
}
"""{verb: (what makes it of the options and the paths, how many paths)}."""

OWN = {
    "bundle": ("segment",),
    "format": ("segment", "convert"),
    "allow": ("segment", "convert"),
    "within": ("segment",),
    "at": ("segment",),
    "series": ("segment",),
    "set": ("segment",),
    "ctv_mm": ("segment",),
    "ptv_mm": ("segment",),
    "crop_to_body": ("segment",),
    "ctv_not_into": ("segment",),
    "trust_bundle": ("segment",),
    "device": ("segment",),
    "engine": ("segment",),
    "names": ("segment",),
    "roi": ("convert",),
    "prefer": ("convert", "compare", "datalist"),
    "tolerance_mm": ("compare",),
    "map": ("compare",),
    "validation": ("datalist",),
}
"""{option: the verbs that it belongs to}; the others take all verbs."""


# ---- words -------------------------------------------------------------------------------------------------


def _summary(name: str, result: dict[str, Any], folder: Path) -> str:
    statuses = [case["status"] for case in result["cases"]]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
    again = len(statuses) - result["newly_run"]
    before = f", {again} of them by an earlier run" if again else ""
    return f"{name}: {counts}{before}, in {timedelta(seconds=round(result['seconds']))} -> {folder}"


class Bar:
    """The progress bar, on standard error and only on a terminal: cases, their rate, when the end comes."""

    def __init__(self, shown: bool) -> None:
        self.shown, self.bar = shown, None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def tell(self, progress: Progress) -> None:
        from tqdm import tqdm

        if not self.shown:
            return
        if self.bar is None:
            self.bar = tqdm(total=progress.total, unit="case", dynamic_ncols=True, file=sys.stderr)
        self.bar.n = progress.ended
        left_s = progress.remaining_s
        end = "" if left_s is None else f"ends {datetime.now() + timedelta(seconds=left_s):%d %b %H:%M}, "
        words = f"{end}{progress.cases_per_hour:.0f} an hour, {progress.failed} not done"
        self.bar.set_postfix_str(words, refresh=True)

    def report(self, record: dict[str, Any]) -> None:
        """Say what was not done, above the bar."""
        from tqdm import tqdm

        if record["status"] != "done":
            with tqdm.external_write_mode(file=sys.stderr):
                say(f"error: {record['case']}: {in_flags(record['error'])}", file=sys.stderr)
