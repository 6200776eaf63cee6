"""The ``medseg`` command: parse, call one function, print. Heavy modules load inside the commands, so --help
is quick."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import medseg
from medseg.cli.audit import add_audit
from medseg.cli.datalist import add_datalist
from medseg.cli.score import add_score
from medseg.cli.structures import add_compare, add_convert, add_margin
from medseg.cli.suggest import SuggestingParser
from medseg.cli.words import in_flags, merged
from medseg.errors import InputError, MedsegError, system_error_line
from medseg.files import no_empty_folders

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
        return options.run(options)
    except MedsegError as error:
        return _fail(options, str(error), 2)
    except KeyboardInterrupt:
        return _fail(
            options,
            "interrupted; what was finished is kept, nothing is half-written; run the same command again "
            "(medseg train with "
            "--resume)",
            INTERRUPTED,
        )
    except (
        BrokenPipeError
    ):  # the reader of our output went away (medseg inspect DIR | head): not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # no permission, no space, a file where a folder is wanted
        return _fail(options, system_error_line(error), 2)
    except Exception as error:
        return _fail(options, f"{type(error).__name__}: {error} (a fault in medseg; --debug shows where)", 1)


def _fail(options: argparse.Namespace, message: str, code: int) -> int:
    if options.debug:
        traceback.print_exc()
    print("error: " + in_flags(" ".join(message.split())), file=sys.stderr)
    return code


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
    command.add_argument("dir", type=Path, metavar="DIR")
    command.add_argument("--json", action="store_true", help="print JSON for machines")

    def run(options) -> int:
        from medseg.workbench.inspect import inspect, report_lines

        report = inspect(options.dir)
        print(json.dumps(report, indent=1) if options.json else "\n".join(report_lines(report)))
        return 0

    return run


def _add_segment(command: argparse.ArgumentParser):
    """Contour one case or a cohort with a bundle; writes RTSTRUCT, SEG, NIfTI, preview and run.json."""
    command.add_argument(
        "input",
        type=Path,
        metavar="INPUT",
        help="DICOM folder (nested, several patients), NIfTI, radiograph, or folder",
    )
    command.add_argument(
        "--bundle", required=True, metavar="NAME", help="a bundle's name (medseg bundles) or its folder"
    )
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="one folder per case is made in it"
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
    command.add_argument("--json", action="store_true", help="print the cohort's record as JSON")
    return _run_segment


def _run_segment(options) -> int:
    from medseg.bundles.cohort import segment
    from medseg.bundles.job import Request
    from medseg.bundles.record import case_line

    settings = _settings(options.set)
    for name, value in (("ctv_margin_mm", options.ctv_mm), ("ptv_margin_mm", options.ptv_mm)):
        if value is not None:
            settings[name] = value
    if options.crop_to_body is not None:
        settings["crop_to_body_mm"] = _crop_to_body_mm(options.crop_to_body)
    if options.ctv_not_into is not None:
        settings["ctv_not_into"] = [name.strip() for name in options.ctv_not_into.split(",")]
    request = Request(
        input=options.input.resolve(),
        bundle=options.bundle,
        output_dir=options.output.resolve(),
        formats=_formats(options.format),
        device=options.device,
        engine=options.engine,
        within=options.within,
        allow=tuple(options.allow),
        settings=settings,
    )

    def report(record: dict) -> None:
        for warning in merged(record.get("warnings", ()) if record["status"] != "skipped" else ()):
            print(f"warning: {record['case']}: {in_flags(warning)}", file=sys.stderr)
        if record["status"] == "failed":
            print(f"error: {record['case']}: {in_flags(record['error'])}", file=sys.stderr)
        elif not options.json:
            print(case_line(record))

    cohort = segment(request, report=report, progress=sys.stderr.isatty())
    for note in cohort["passed_over"]:
        print(f"passed over: {note}", file=sys.stderr)
    if options.json:
        print(json.dumps(cohort, indent=1))
    failed = [case for case in cohort["cases"] if case["status"] == "failed"]
    if not failed:
        return 0
    return 1 if any(case["fault"] == "medseg" for case in failed) else 2


def _crop_to_body_mm(text: str) -> float | None:
    if text == "no":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--crop-to-body {text}: expected mm, or no.") from None


def _settings(pairs: Sequence[str]) -> dict:
    """ID=VALUE words to a dict; a value is JSON where it can be, else text. Nothing is evaluated."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{pair!r}: expected ID=VALUE, as in min_volume_cc=2.")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
        _require_plain(pair, settings[key])
    return settings


def _require_plain(pair: str, value) -> None:
    """InputError for what MONAI would evaluate, look up or build, however deep in lists it stands."""
    if isinstance(value, list):
        for part in value:
            _require_plain(pair, part)
    elif isinstance(value, dict) or isinstance(value, str) and value.lstrip().startswith(("$", "@", "%")):
        raise InputError(
            f"{pair!r}: expressions, references and definitions are not taken from the command line; give a "
            f"plain value."
        )


def _formats(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(name.strip() for name in text.split(","))


def _add_train(command: argparse.ArgumentParser):
    """Train a bundle: python -m monai.bundle run training, with overrides that are checked by name."""
    _add_bundle_options(command, "where weights and checkpoints go; the bundle's own stay as they are")
    command.add_argument("--resume", action="store_true", help="continue from DIR/last.pt")

    def run(options) -> int:
        if (options.output / "last.pt").exists() and not options.resume:
            raise InputError(
                f"{options.output} holds a training (last.pt) that would be overwritten; add --resume to go "
                f"on with it, or "
                "name another folder."
            )
        out = str(options.output.resolve())
        settings = {"ckpt_dir": out, "output_dir": out, "resume": options.resume}
        code = _run_bundle(options, ["train"], "training", settings)
        if not (options.output / "model.pt").exists():
            print(
                "note: no model.pt, since no validation was due in so few epochs; last.pt holds the weights "
                "(--set val_interval=1 validates every epoch).",
                file=sys.stderr,
            )
        return code

    return run


def _add_evaluate(command: argparse.ArgumentParser):
    """Score a bundle's weights on the validation cases of a datalist; writes a row per case."""
    _add_bundle_options(command, "where the table of scores goes")
    command.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder with model.pt; default: the bundle's"
    )

    def run(options) -> int:
        settings = {"output_dir": str(options.output.resolve())}
        if options.weights:
            settings["ckpt_dir"] = str(options.weights.resolve())
        return _run_bundle(options, ["train", "evaluate"], "run", settings)

    return run


def _add_bundle_options(command: argparse.ArgumentParser, output_help: str) -> None:
    command.add_argument("bundle", metavar="BUNDLE", help="a bundle's name (medseg bundles) or its folder")
    command.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder the datalist's paths start from"
    )
    command.add_argument(
        "--datalist", type=Path, metavar="FILE", help="MONAI datalist JSON; default: the bundle's own"
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help=output_help)
    command.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="override a setting of the config"
    )


def _run_bundle(options, configs: list[str], run_id: str, settings: dict) -> int:
    from medseg.bundles.config import run_config
    from medseg.bundles.find import find_bundle

    for path in filter(None, (options.data, options.datalist, getattr(options, "weights", None))):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder.")
    settings = {**settings, "dataset_dir": str(options.data.resolve()), **_settings(options.set)}
    if options.datalist:
        settings["datalist"] = str(options.datalist.resolve())
    with no_empty_folders(options.output):
        options.output.mkdir(parents=True, exist_ok=True)
        run_config(find_bundle(options.bundle), configs, run_id, settings)
    return 0


def _add_audit(command: argparse.ArgumentParser):
    """Rank training labels by suspected error, with the reason in words and millimetres."""
    return add_audit(command, _settings)


def _add_bundles(command: argparse.ArgumentParser):
    """List the bundles, or verify one of them offline."""
    command.add_argument("action", nargs="?", choices=("list", "verify"), default="list")
    command.add_argument("name", nargs="?", metavar="NAME")

    def run(options) -> int:
        from medseg.bundles.find import bundle_folders, find_bundle
        from medseg.bundles.verify import verify

        if options.action == "list":
            if options.name:
                raise InputError(
                    f"bundles list takes no name; did you mean medseg bundles verify {options.name}?"
                )
            for name in bundle_folders():
                bundle = find_bundle(name)
                print(f"{name:20} {bundle.version:8} {bundle.metadata.get('task', '')}")
            return 0
        if not options.name:
            raise InputError("bundles verify: name a bundle, as in medseg bundles verify ct_gtv.")
        results = verify(find_bundle(options.name))
        for what, problem in results:
            print(
                f"{'ok  ' if problem is None else 'FAIL'}  {what}{'' if problem is None else ': ' + problem}"
            )
        return 0 if all(problem is None for _, problem in results) else 2

    return run


def _add_demo(command: argparse.ArgumentParser):
    """Do the main job on a CT phantom that it makes itself, and compare with the phantom's truth."""
    command.add_argument("-o", "--output", type=Path, default=Path("medseg_demo"), metavar="DIR")

    def run(options) -> int:
        from medseg.cli.demo import demo

        demo(options.output.resolve(), report=print, progress=sys.stderr.isatty())
        return 0

    return run


COMMANDS = {
    "inspect": _add_inspect,
    "segment": _add_segment,
    "convert": add_convert,
    "compare": add_compare,
    "margin": add_margin,
    "datalist": add_datalist,
    "train": _add_train,
    "evaluate": _add_evaluate,
    "score": add_score,
    "audit": _add_audit,
    "bundles": _add_bundles,
    "demo": _add_demo,
}
