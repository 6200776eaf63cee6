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

import medseg
from medseg.cli.audit import add_audit
from medseg.cli.bundles import add_bundles
from medseg.cli.cohort import add_cohort
from medseg.cli.commission import add_commission
from medseg.cli.datalist import add_datalist
from medseg.cli.label import add_label
from medseg.cli.node import add_node
from medseg.cli.records import add_records
from medseg.cli.score import add_score
from medseg.cli.segment import add_segment
from medseg.cli.serve import add_serve
from medseg.cli.structures import add_compare, add_convert, add_margin
from medseg.cli.suggest import SuggestingParser, path_of
from medseg.cli.training import add_evaluate, add_train
from medseg.cli.words import in_flags, say, say_lines, say_the_rest
from medseg.errors import MedsegError, printable, system_error_line

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
def _escaped(debug: bool = False) -> Iterator[None]:
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
    "segment": add_segment,
    "cohort": add_cohort,
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
    "commission": add_commission,
    "node": add_node,
    "serve": add_serve,
}
