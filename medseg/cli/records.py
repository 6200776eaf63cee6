"""``medseg records``: headers of an archive as a table, and images paired with records of the same person."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from medseg.cli.suggest import SuggestingParser, path_of
from medseg.cli.words import say, say_lines
from medseg.errors import InputError


def add_records(command: SuggestingParser):
    """Pair image studies with records of the same person (DEXA) within a time window; headers as a table."""
    verbs = command.add_subparsers(required=True, metavar="VERB")
    for name, add in (("headers", _add_headers), ("pair", _add_pair)):
        verb = verbs.add_parser(name, help=add.__doc__, description=add.__doc__, allow_abbrev=False)
        verb.set_defaults(run_verb=add(verb))
    return lambda options: options.run_verb(options)


def _add_headers(verb: argparse.ArgumentParser):
    """Write chosen header fields of every DICOM file below a folder as CSV or Parquet."""
    verb.add_argument("dicom_dir", type=path_of, metavar="DICOM_DIR")
    verb.add_argument("out", type=path_of, metavar="OUT", help="a name that ends in .csv or .parquet")
    verb.add_argument(
        "--fields",
        metavar="KEYWORD,…",
        help="DICOM keywords; default: ids, date, side, view, device, no names",
    )

    def run(options) -> int:
        from medseg.workbench.headers import FIELDS, write_headers

        fields = FIELDS if options.fields is None else tuple(_words(options.fields))
        report = write_headers(options.dicom_dir, options.out, fields, sys.stderr.isatty())
        say(f"{options.out}: {report['files']} files")
        for reason, count in report["passed_over"].items():
            say(f"passed over: {count} files: {reason}", file=sys.stderr)
        return 0

    return run


def _add_pair(verb: argparse.ArgumentParser):
    """Write a datalist of images with the nearest record's label, and what was left out and why."""
    verb.add_argument(
        "images", type=path_of, metavar="IMAGES", help="a DICOM folder, or a table of records headers"
    )
    verb.add_argument(
        "records", metavar="RECORDS", help="CSV, Excel or Parquet file, or the URL of a database"
    )
    verb.add_argument("-o", "--output", type=path_of, required=True, metavar="OUT.json")
    verb.add_argument(
        "--record-columns",
        required=True,
        metavar="NAME=COLUMN,…",
        help="patient, date and t_score or bmd; also side, implant, and to carry along age, sex, height_cm, "
        "weight_kg, device, view (and bmd beside t_score): what RECORDS calls them",
    )
    verb.add_argument(
        "--image-columns",
        metavar="NAME=COLUMN,…",
        help="of a table: patient, date, image, side, implant; default: as records headers writes them",
    )
    verb.add_argument("--sql-table", metavar="NAME", help="table or view (SCHEMA.NAME) of the database")
    verb.add_argument("--days", type=int, default=183, help="at most between image and record; default 183")
    labels = ("osteoporosis", "who", "t_score", "bmd")
    verb.add_argument(
        "--label", choices=labels, default=labels[0], help="default osteoporosis: T at most -2.5"
    )
    verb.add_argument(
        "--reference", metavar="NAME|MEAN,SD", help="T-scores from BMD: nhanes3_femoral_neck, or g/cm2"
    )
    verb.add_argument("--test-from", metavar="DATE", help="images from that day on test, 2022-01-01")
    verb.add_argument(
        "--validation", type=float, default=0.2, metavar="SHARE", help="of the patients; default 0.2"
    )
    verb.add_argument("--seed", type=int, default=0, help="of the draw of patients")
    verb.add_argument("--hash-key", type=path_of, metavar="FILE", help="hash patient ids with this secret")
    verb.add_argument(
        "--shift-dates", action="store_true", help="move each patient's dates, as the key decides"
    )
    verb.add_argument("--json", action="store_true", help="print the report as JSON")
    return _run_pair


def _run_pair(options) -> int:
    from medseg.workbench.record_pairs import HEADER_COLUMNS, PairRequest, pair

    request = PairRequest(
        images=options.images,
        records=options.records,
        out=options.output,
        record_columns=_columns(options.record_columns, "--record-columns"),
        image_columns=HEADER_COLUMNS
        if options.image_columns is None
        else _columns(options.image_columns, "--image-columns"),
        sql_table=options.sql_table,
        most_days=options.days,
        label=options.label,
        reference=_reference(options.reference),
        test_from=_day(options.test_from),
        validation=options.validation,
        seed=options.seed,
        hash_key=_key(options.hash_key),
        shift_dates=options.shift_dates,
    )
    report = pair(request, sys.stderr.isatty())
    if options.json:
        say(json.dumps(report, indent=1))
        return 0
    counts = (
        f"{name} {said['images']} ({said['patients']} patients)" for name, said in report["sections"].items()
    )
    lines = [f"{options.output}: {report['paired']} of {report['images']} images paired; {', '.join(counts)}"]
    lines += [f"left out: {count} images: {reason}" for reason, count in report["left_out"].items()]
    if report["records_without_figure"]:
        lines.append(f"records without a figure: {report['records_without_figure']} of {report['records']}")
    say_lines(lines)
    return 0


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",")]


def _columns(text: str, option: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in _words(text)]
    if not all(name and column for name, _, column in pairs):
        raise InputError(f"{option} {text!r}: expected NAME=COLUMN,…, as in patient=pid,date=exam_date.")
    return {name: column for name, _, column in pairs}


def _reference(text: str | None) -> str | tuple[float, float] | None:
    if text is None or "," not in text:
        return text
    try:
        mean, deviation = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--reference {text}: expected MEAN,SD in g/cm2, as in 0.858,0.120.") from None
    if not (mean > 0 and deviation > 0):
        raise InputError(f"--reference {text}: expected a mean and an SD above 0.")
    return mean, deviation


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise InputError(f"--test-from {text}: expected a day as 2022-01-01.") from None


def _key(path: Path | None) -> bytes | None:
    if path is None:
        return None
    key = path.read_bytes().strip()
    if len(key) < 16:
        raise InputError(
            f"{path} holds {len(key)} bytes; expected a secret of 16 or more (openssl rand -hex 32)."
        )
    return key
