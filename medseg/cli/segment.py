"""``medseg segment``: cases in, contours, boxes or labels out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.cli.settings import settings_of
from medseg.cli.suggest import path_of
from medseg.cli.words import add_trust, in_flags, merged, say
from medseg.errors import InputError

if TYPE_CHECKING:
    from medseg.bundles.request import Request


def add_segment(command: argparse.ArgumentParser):
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
    add_request(command)
    add_trust(command)
    command.add_argument("--json", action="store_true", help="print the cohort's record as JSON")
    return _run_segment


def add_request(command: argparse.ArgumentParser) -> None:
    """The options that say what is done with a case."""
    command.add_argument(
        "--format",
        default=None,
        metavar="LIST",
        help="of rtstruct,seg,nifti,preview; default rtstruct,preview; of a radiograph "
        "png,nifti,seg,preview; of boxes json,csv,preview,sr, on CT rtstruct; of labels json,preview,sr",
    )
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    command.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "torch", "openvino", "openvino-bf16"),
        help="auto: what the bundle says; where it says nothing, openvino on a processor where it is "
        "installed, else torch; openvino-bf16: in bfloat16, faster and less exact",
    )
    _add_where(command)
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
    command.add_argument(
        "--names",
        type=path_of,
        metavar="CSV",
        help="for a bundle of MONAI's zoo: label,name[,type,colour] of its labels, by name or number",
    )


def _add_where(command: argparse.ArgumentParser) -> None:
    """The options for where to look, and in which series."""
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


def request_of_options(options, source: Path | None) -> Request:
    """The Request of a command's options, for ``source``. InputError and BundleError as it says."""
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
    if options.names is not None:
        from medseg.bundles.importers.names import read_names

        settings["structure_names"] = read_names(options.names)
    return Request(
        input=source,
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


def _run_segment(options) -> int:
    request = request_of_options(options, None if options.input is None else options.input.resolve())
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
        say(f"passed over: {in_flags(note)}", file=sys.stderr)
    if options.json:
        say(json.dumps(cohort, indent=1))
    return exit_code(cohort["cases"])


def exit_code(cases: Sequence[Mapping[str, Any]]) -> int:
    """0 when none of the cases failed, 1 when one did by a fault of medseg, else 2."""
    faults = {case["fault"] for case in cases if case.get("fault")}
    return 1 if "medseg" in faults else 2 if faults else 0


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
