"""The ``medseg`` command: parse, call one function, print. Heavy modules load inside the commands, so --help
is quick."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import medseg
from medseg.cli.audit import add_audit
from medseg.cli.datalist import add_datalist
from medseg.cli.label import add_label
from medseg.cli.node import add_node
from medseg.cli.records import add_records
from medseg.cli.score import add_score
from medseg.cli.serve import add_serve
from medseg.cli.settings import settings_of
from medseg.cli.structures import add_compare, add_convert, add_margin
from medseg.cli.suggest import SuggestingParser, path_of
from medseg.cli.training import add_bundles, add_evaluate, add_train
from medseg.cli.words import add_trust, in_flags, merged, say, say_lines, say_the_rest
from medseg.errors import InputError, MedsegError, printable, system_error_line

RESEARCH_USE = (
    "Research use only, not a medical device. Every contour must be reviewed by a qualified person."
)

INTERRUPTED = 130
"""What shells and schedulers take for Ctrl-C: 128 and the number of the signal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 our fault, 2 the input's or the caller's, 130
    interrupted (Ctrl-C)."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # file names may hold characters that the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _escaped(options.debug):
            code = options.run(options)
            say_the_rest()
            return code
    except MedsegError as error:
        return _fail(options, str(error), 2)
    except KeyboardInterrupt:
        return _fail(
            options,
            "interrupted; what was finished is kept, nothing is half-written; run the same command again "
            "(medseg train with --resume)",
            INTERRUPTED,
        )
    except OSError as error:  # no permission, no space, a file where a folder is wanted
        nameless = error.filename is None and error.strerror and getattr(options, "output", None)
        return _fail(
            options, f"{options.output}: {error.strerror}" if nameless else system_error_line(error), 2
        )
    except Exception as error:
        return _fail(options, f"{type(error).__name__}: {error} (a fault in medseg; --debug shows where)", 1)


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    if options.debug:
        traceback.print_exc()
    with suppress(OSError):  # standard error may be closed or full; the exit code still says it
        say("error: " + in_flags(" ".join(message.split())), file=sys.stderr)
    return code


@contextmanager
def _escaped(debug: bool) -> Iterator[None]:
    """Within the block what libraries warn of and log, with values of the files in it, reaches the terminal
    as :func:`say` would print it; tracebacks that they log only with ``debug``."""
    factory = logging.getLogRecordFactory()
    # Whoever handles them: a bundle configures its own log.
    logging.setLogRecordFactory(_TracedRecord if debug else _PrintableRecord)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", file=sys.stderr)
            yield
    finally:
        logging.setLogRecordFactory(factory)


class _PrintableRecord(logging.LogRecord):
    """MONAI logs the traceback of a training that ends, and so of every wrong call that it notices."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.exc_info = None

    def getMessage(self) -> str:
        return printable(super().getMessage())


class _TracedRecord(_PrintableRecord):
    def __init__(self, *args, **kwargs) -> None:
        logging.LogRecord.__init__(self, *args, **kwargs)
        if self.exc_info:
            self.exc_text = printable(logging.Formatter().formatException(self.exc_info))


def _parser() -> argparse.ArgumentParser:
    parser = SuggestingParser(prog="medseg", description=f"Medical images to contours. {RESEARCH_USE}")
    parser.add_argument("--version", action="version", version=f"medseg {medseg.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add in COMMANDS.items():
        summary = add.__doc__
        command = commands.add_parser(
            name, help=summary, description=f"{summary} {RESEARCH_USE}", allow_abbrev=False
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(run=add(command), parser=command)
    return parser


# ---- one function per command: adds its options, returns what runs it --------------------------------------


def _add_inspect(command: argparse.ArgumentParser):
    """Say what series and structure sets a folder holds, and what is wrong with them."""
    command.add_argument("dir", type=path_of, metavar="DIR")
    command.add_argument("--json", action="store_true", help="print JSON for machines")

    def run(options) -> int:
        from medseg.workbench.inspect import inspect, report_lines

        report = inspect(options.dir)
        if options.json:
            say(json.dumps(report, indent=1))
        else:
            say_lines(map(in_flags, report_lines(report)))
        return 0

    return run


def _add_segment(command: argparse.ArgumentParser):
    """Contour one case or a cohort with a bundle; writes RTSTRUCT, SEG, NIfTI, preview and run.json."""
    command.add_argument(
        "input",
        type=path_of,
        metavar="INPUT",
        nargs="?",
        help="DICOM folder (nested, several patients), NIfTI, radiograph, or folder",
    )
    command.add_argument(
        "--bundle", required=True, metavar="NAME", help="a bundle's name (medseg bundles) or its folder"
    )
    command.add_argument(
        "-o", "--output", type=path_of, required=True, metavar="DIR", help="one folder per case is made in it"
    )
    command.add_argument(
        "--format",
        default=None,
        metavar="LIST",
        help="of rtstruct,seg,nifti,preview; default rtstruct,preview; of a radiograph png,nifti,seg,preview",
    )
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    engines, meaning = (
        ("auto", "torch", "openvino"),
        "auto: openvino on a processor where it is installed, else torch",
    )
    command.add_argument("--engine", default="auto", choices=engines, help=meaning)
    command.add_argument(
        "--within",
        metavar="REGION",
        help="contour only there: x0,x1,y0,y1,z0,z1 in LPS mm, RS.dcm:ROI, or RS.dcm:ROI+10: 10 mm around it",
    )
    command.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="X,Y,Z",
        help="a point inside the tumour instead of a region, LPS mm; again: the region holds all of them",
    )
    command.add_argument(
        "--series",
        nargs="+",
        action="extend",
        default=[],
        metavar="MODALITY=WHAT",
        help="for a bundle of several series: a UID in INPUT, a folder or file, or none; also REG=FILE",
    )
    _add_targets(command)
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="FAULT",
        help="accept this fault of a series, or an image that is out_of_distribution, with a warning",
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="override a setting of inference.json"
    )
    add_trust(command)
    command.add_argument("--json", action="store_true", help="print the cohort's record as JSON")
    return _run_segment


def _add_targets(command: argparse.ArgumentParser) -> None:
    """The options for structures that are made of the contoured ones."""
    command.add_argument("--ctv-mm", type=float, metavar="MM", help="add a CTV: the GTV and this margin")
    command.add_argument(
        "--ptv-mm", type=float, metavar="MM", help="add a PTV: the CTV (GTV without one) and this margin"
    )
    command.add_argument(
        "--crop-to-body",
        metavar="MM",
        help="CTV and PTV end so far inside the patient on a CT, default 0; no: let them reach into the air",
    )
    command.add_argument(
        "--ctv-not-into", metavar="NAME,…", help="the CTV keeps out of these: structures, or RS.dcm:ROI"
    )


def _run_segment(options) -> int:
    from medseg.bundles.trust import trusted_bundle

    # Before torch is loaded: a mistyped bundle, one that may not run, and what else a request may say wrong.
    bundle = trusted_bundle(options.bundle, options.trust_bundle)
    from medseg.bundles.request import Request

    settings = settings_of(options.set)
    for name, value in (("ctv_margin_mm", options.ctv_mm), ("ptv_margin_mm", options.ptv_mm)):
        if value is not None:
            settings[name] = value
    if options.crop_to_body is not None:
        settings["crop_to_body_mm"] = _crop_to_body_mm(options.crop_to_body)
    if options.ctv_not_into is not None:
        settings["ctv_not_into"] = _names(options.ctv_not_into, "--ctv-not-into")
    request = Request(
        input=None if options.input is None else options.input.resolve(),
        bundle=bundle,
        output_dir=options.output.resolve(),
        formats=_formats(options.format),
        device=options.device,
        engine=options.engine,
        within=options.within,
        allow=tuple(options.allow),
        settings=settings,
        series=_series(options.series),
        at=tuple(map(_point, options.at)),
    )
    from medseg.bundles.cohort import segment
    from medseg.bundles.record import case_line

    def report(record: dict) -> None:
        if record["status"] == "waiting":
            say(case_line(record), file=sys.stderr)
            return
        for warning in merged(record.get("warnings", ()) if record["status"] != "skipped" else ()):
            say(f"warning: {record['case']}: {in_flags(warning)}", file=sys.stderr)
        if record["status"] == "failed":
            say(f"error: {record['case']}: {in_flags(record['error'])}", file=sys.stderr)
        elif not options.json:
            say(case_line(record))

    cohort = segment(request, report=report, progress=sys.stderr.isatty())
    for note in cohort["passed_over"]:
        say(f"passed over: {note}", file=sys.stderr)
    if options.json:
        say(json.dumps(cohort, indent=1))
    failed = [case for case in cohort["cases"] if case["status"] == "failed"]
    if not failed:
        return 0
    return 1 if any(case["fault"] == "medseg" for case in failed) else 2


def _point(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise InputError(f"--at {text}: expected a point x,y,z in LPS mm.") from None


def _crop_to_body_mm(text: str) -> float | None:
    if text == "no":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--crop-to-body {text}: expected mm, or no.") from None


def _series(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """MODALITY=WHAT words; paths are made absolute, so that run.json tells where they are."""
    chosen = []
    for pair in pairs:
        modality, equals, what = pair.partition("=")
        if not equals or not modality or not what:
            raise InputError(f"--series {pair}: expected MODALITY=WHAT, as in PT=/path/PET or MR=none.")
        chosen.append((modality.upper(), str(Path(what).resolve()) if Path(what).exists() else what))
    return tuple(chosen)


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"{option} {text!r}: a name is empty; expected names with commas between them.")
    return names


def _formats(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(name.strip() for name in text.split(","))


def _add_demo(command: argparse.ArgumentParser):
    """Do the main job on a CT phantom that it makes itself, and compare with the phantom's truth."""
    command.add_argument("-o", "--output", type=path_of, default=path_of("medseg_demo"), metavar="DIR")
    command.add_argument(
        "--bundle",
        metavar="NAME",
        help="one that contours a GTV, with all series that it takes: mm_gtv on CT, PET and MR; left out: "
        "mm_gtv on a CT alone",
    )

    def run(options) -> int:
        from medseg.cli.demo import demo

        demo(options.output.resolve(), print, sys.stderr.isatty(), options.bundle)
        return 0

    return run


COMMANDS = {
    "inspect": _add_inspect,
    "segment": _add_segment,
    "convert": add_convert,
    "compare": add_compare,
    "margin": add_margin,
    "datalist": add_datalist,
    "records": add_records,
    "train": add_train,
    "evaluate": add_evaluate,
    "score": add_score,
    "audit": add_audit,
    "bundles": add_bundles,
    "label": add_label,
    "demo": _add_demo,
    "node": add_node,
    "serve": add_serve,
}
