"""The commands on structures that are already drawn: convert, compare, margin. Each parses, calls one
function, prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence

from medseg.cli.suggest import path_of
from medseg.cli.words import in_flags, merged, say, say_lines
from medseg.errors import InputError


def add_convert(command: argparse.ArgumentParser):
    """Convert a structure set to NIfTI masks, masks to a structure set, or a series to NIfTI; the paths say
    which."""
    command.add_argument(
        "source", type=path_of, metavar="SOURCE", help="RS.dcm, SEG.dcm, folder of NIfTI masks, or CT folder"
    )
    command.add_argument(
        "out", type=path_of, metavar="OUT", help="folder for masks, OUT.dcm, or OUT.nii.gz for a CT"
    )
    _add_reference(command)
    command.add_argument(
        "--roi", action="append", default=[], metavar="NAME", help="only this structure; repeatable"
    )
    command.add_argument("--format", choices=("rtstruct", "seg"), default="rtstruct", help="of OUT.dcm")
    _add_holes(command)
    command.add_argument(
        "--simplify-mm", type=float, default=0.0, metavar="MM", help="thin vertices, moving no outline more"
    )
    command.add_argument(
        "--append-to", type=path_of, metavar="RS.dcm", help="keep the structures of this set and add to them"
    )
    _add_overwrite(command)
    command.add_argument("--json", action="store_true", help="print the record as JSON")
    return _run_convert


def _run_convert(options) -> int:
    from medseg.workbench.convert import Conversion, convert

    request = Conversion(
        options.source,
        options.out,
        _reference(options),
        tuple(options.roi),
        options.format,
        options.holes,
        options.simplify_mm,
        options.append_to,
        options.overwrite,
    )
    record = convert(request)
    _warn(record["warnings"])
    if options.json:
        say(json.dumps(record, indent=1))
        return 0
    say(f"{record['out']}: {record['direction']}")
    for row in record.get("structures", ()):
        cc = "unknown" if row["volume_cc"] is None else f"{row['volume_cc']:.2f} cc"
        say(f"  {row['name']:16} {cc:>14}{'  empty' if row['empty'] else ''}")
    return 0


def add_compare(command: argparse.ArgumentParser):
    """Compare two sets of contours: DSC, surface DSC, HD95, mean distance, added path length, volumes."""
    command.add_argument(
        "a",
        type=path_of,
        metavar="A",
        help="the reference: RS.dcm, SEG.dcm, a NIfTI mask or a folder of them",
    )
    command.add_argument("b", type=path_of, metavar="B", help="what is judged: the same kinds")
    _add_reference(command)
    command.add_argument(
        "--tolerance-mm",
        action="append",
        default=[],
        metavar="[NAME=]MM",
        help="of surface DSC and added path, default 2",
    )
    command.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="A=B",
        help="pair structure A with structure B; repeatable",
    )
    for kind, what in (
        ("json", "numbers and definitions"),
        ("csv", "a row per structure"),
        ("html", "table and pictures"),
    ):
        command.add_argument(
            f"--{kind}", type=path_of, metavar="FILE", help=f"write {what}; an existing file is replaced"
        )

    return _run_compare


def _run_compare(options) -> int:
    from medseg.workbench.compare import ComparisonRequest
    from medseg.workbench.comparison_outputs import ComparisonFiles, compare_to_files, table_lines

    tolerance_mm, tolerances_mm = tolerances(options.tolerance_mm)
    request = ComparisonRequest(
        options.a,
        options.b,
        _reference(options),
        tolerance_mm,
        tolerances_mm,
        tuple(options.map),
        pictures=options.html is not None,
    )
    comparison = compare_to_files(request, ComparisonFiles(options.json, options.csv, options.html))
    _warn(comparison.notices)
    say_lines(table_lines(comparison))
    return 0


def add_margin(command: argparse.ArgumentParser):
    """Make a structure of others by a margin, cropping or Boolean operations; writes a copy of the set with
    it."""
    command.add_argument("source", type=path_of, metavar="RS.dcm")
    command.add_argument(
        "out", type=path_of, metavar="OUT.dcm", help="the copy; RS.dcm itself stays as it is"
    )
    _add_reference(command)
    command.add_argument(
        "--from", dest="start", required=True, metavar="NAME", help="the structure to start from"
    )
    command.add_argument(
        "--to", dest="name", required=True, metavar="NAME", help="what the new structure is called"
    )
    command.add_argument(
        "--mm", metavar="MM", help="margin; negative shrinks; or left=7,right=5,anterior=5,… (others 0)"
    )
    command.add_argument(
        "--union", action="append", default=[], metavar="NAME", help="1: add this one; repeatable"
    )
    command.add_argument(
        "--intersect", action="append", default=[], metavar="NAME", help="2: keep what lies in this one too"
    )
    command.add_argument(
        "--minus",
        action="append",
        default=[],
        metavar="NAME[,MM]",
        help="4: take this one (and MM around it) away",
    )
    command.add_argument("--crop-to", metavar="NAME", help="5: keep what lies in this one")
    command.add_argument(
        "--crop-mm", type=float, default=0.0, metavar="MM", help="at least so far inside its surface"
    )
    _add_holes(command)
    _add_overwrite(command)
    command.add_argument("--json", action="store_true", help="print the record as JSON")
    command.epilog = "Steps go in the order of their numbers; the margin is step 3."
    return _run_margin


def _run_margin(options) -> int:
    from medseg.workbench.derive import Derivation, Recipe, derive_structure_set

    recipe = Recipe(
        options.start,
        _margin(options.mm),
        tuple(options.union),
        tuple(options.intersect),
        tuple(_minus(text) for text in options.minus),
        options.crop_to,
        options.crop_mm,
    )
    request = Derivation(
        options.source,
        options.out,
        _reference(options),
        options.name,
        recipe,
        options.holes,
        options.overwrite,
    )
    record = derive_structure_set(request)
    _warn(record["warnings"])
    if options.json:
        say(json.dumps(record, indent=1))
        return 0
    say(f"{record['out']}: {record['name']} = {record['recipe']}")
    for name, cc in record["volumes_cc"].items():
        say(f"  {name:16} {cc:10.2f} cc")
    return 0


# ---- options that several commands have, and their words ---------------------------------------------------


def _add_reference(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reference", type=path_of, metavar="CT_DIR", help="the images that the contours belong to"
    )
    command.add_argument("--series-uid", metavar="UID", help="which series, where the folder holds several")
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="FAULT",
        help="accept this fault of images or structure set",
    )


def _add_holes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--holes", choices=("keyhole", "nested", "xor"), default="keyhole", help="how holes are stored"
    )


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--overwrite", action="store_true", help="replace files that are there, never an APPROVED set"
    )


def _reference(options):
    from medseg.cases.mask_sources import Reference

    return Reference(options.reference, options.series_uid, tuple(options.allow))


def _warn(sentences: Iterable[str]) -> None:
    for sentence in merged(sentences):
        say(f"warning: {in_flags(sentence)}", file=sys.stderr)


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{what}: {text!r} is no number of mm.") from None


def tolerances(texts: Sequence[str]) -> tuple[float, dict[str, float]]:
    """(tolerance of all, tolerance of single structures) from "MM" and "NAME=MM" words; the name may hold
    "="."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if name.strip() in found:
            raise InputError(f"--tolerance-mm {text}: {name.strip() or 'that of all'} is given twice.")
        found[name.strip()] = _number(value, f"--tolerance-mm {text}")
    return found.pop("", 2.0), found


def _margin(text: str | None) -> float | dict[str, float]:
    """A number of mm, or a direction=mm list; 0 without one."""
    if text is None:
        return 0.0
    if "=" not in text:
        return _number(text, "--mm")
    margins_mm: dict[str, float] = {}
    for part in text.split(","):
        direction, _, value = part.partition("=")
        direction = direction.strip().lower()
        if direction in margins_mm:
            raise InputError(f"--mm {text}: {direction} is given twice.")
        margins_mm[direction] = _number(value, f"--mm {text}")
    return margins_mm


def _minus(text: str) -> tuple[str, float]:
    """(name, gap in mm) of NAME[,MM]; a name may hold commas, so only a number after the last one is a
    gap."""
    name, comma, value = text.rpartition(",")
    try:
        return (name.strip(), float(value)) if comma else (text.strip(), 0.0)
    except ValueError:
        return text.strip(), 0.0
