"""The command ``medseg audit``: options in, one function, lines out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from medseg.cli.settings import settings_of
from medseg.cli.suggest import path_of
from medseg.cli.words import add_trust, say
from medseg.errors import InputError

PRINTED = 10


def add_audit(command: argparse.ArgumentParser):
    """Rank training labels by suspected error, with the reason in words and millimetres."""
    command.add_argument(
        "bundle", nargs="?", metavar="BUNDLE", help="trained on folds of the data: a name or a folder"
    )
    command.add_argument(
        "--data", type=path_of, required=True, metavar="DIR", help="folder the datalist's paths start from"
    )
    command.add_argument(
        "--datalist",
        type=path_of,
        metavar="FILE",
        help="its training cases are audited; default: the bundle's",
    )
    command.add_argument(
        "-o",
        "--output",
        type=path_of,
        required=True,
        metavar="DIR",
        help="page, lists, folds; may be continued",
    )
    command.add_argument(
        "--predictions",
        type=path_of,
        metavar="DIR",
        help="instead of BUNDLE: out-of-fold DIR/<case>/<Structure>.nii.gz or .png",
    )
    command.add_argument(
        "--folds",
        type=int,
        default=3,
        metavar="K",
        help="default 3; 0: no training, the bundle's weights on new cases",
    )
    command.add_argument("--seed", type=int, default=0, help="of the draw of folds")
    command.add_argument(
        "--group", metavar="KEY", help="datalist key of annotator or centre: tells style from error"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="override a setting of train.json"
    )
    _add_choices(command)
    add_trust(command)
    command.add_argument("--json", action="store_true", help="print audit.json")

    def run(options) -> int:
        settings = settings_of(options.set)
        if options.bundle:
            from medseg.bundles.trust import trusted_bundle

            trusted_bundle(options.bundle, options.trust_bundle)  # before torch is loaded
        return _fix(options, settings) if options.fix or options.gold else _rank(options, settings)

    return run


def _add_choices(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--worst", type=int, default=30, metavar="N", help="so many are drawn and listed; default 30"
    )
    command.add_argument(
        "--least-score",
        type=float,
        default=0.5,
        metavar="S",
        help="only labels that score so much; default 0.5",
    )
    command.add_argument(
        "--fix",
        type=path_of,
        metavar="DIR",
        help="corrected labels, named as in the datalist: retrain and compare on --gold",
    )
    command.add_argument(
        "--gold", type=path_of, metavar="FILE", help='JSON whose list "gold" holds cases never trained on'
    )


def _rank(options, settings: dict) -> int:
    from medseg.audit.run import AuditRequest, audit

    request = AuditRequest(
        options.data.resolve(),
        options.output.resolve(),
        options.bundle,
        options.predictions and options.predictions.resolve(),
        options.datalist and options.datalist.resolve(),
        options.folds,
        options.seed,
        options.group,
        settings,
        options.worst,
        options.least_score,
    )
    content = audit(request, report=lambda line: say(line, file=sys.stderr))
    say(
        json.dumps(content, indent=1, ensure_ascii=False)
        if options.json
        else "\n".join(lines(content, options.output))
    )
    return 0


def _fix(options, settings: dict) -> int:
    if not (options.fix and options.gold and options.bundle) or options.predictions:
        raise InputError(
            "--fix DIR needs BUNDLE and --gold FILE (cases never trained on), and no --predictions."
        )
    from medseg.audit.fix import FixRequest, fix

    request = FixRequest(
        options.bundle,
        options.data.resolve(),
        options.output.resolve(),
        options.fix.resolve(),
        options.gold.resolve(),
        options.datalist and options.datalist.resolve(),
        settings,
    )
    content = fix(request, report=lambda line: say(line, file=sys.stderr))
    if options.json:
        say(json.dumps(content, indent=1))
        return 0
    say(
        f"{len(content['corrected'])} labels corrected, {len(content['rejected'])} cases rejected; Dice on "
        f"the gold set:"
    )
    for row in content["dice"]:
        change = f"{row['change']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        say(
            f"  {row['structure']:16} {row['before']:.3f} -> {row['after']:.3f}  {change}, {row['cases']} "
            f"cases"
        )
    return 0


def lines(content: dict, out: Path) -> list[str]:
    """What a person reads at the end: how many labels are suspected, and the worst of them."""
    findings = content["findings"]
    suspected = [row for row in findings if row["score"] >= 0.5]
    rows = [f"{content['labels']} labels of {content['cases']} cases; {len(suspected)} reach a score of 0.5"]
    rows += [
        f"{row['rank']:4} {row['score']:.3f}  {row['case']} {row['structure']}: {row['words']}"
        for row in findings[:PRINTED]
    ]
    rows += [
        f"style: {style['group']} {style['structure']}: {style['bias']:+.1f} {findings[0]['unit']} "
        f"({style['low']:+.1f} to {style['high']:+.1f}, {style['cases']} cases)"
        for style in content["styles"]
        if style["consistent"]
    ]
    page = out / "audit.html"
    return [*rows, f"{page if page.exists() else out / 'audit.csv'}", content["disclaimer"]]
