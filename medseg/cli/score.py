"""``medseg score``: the command behind the scores of the model cards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from medseg.cli.suggest import path_of
from medseg.cli.words import add_trust, say
from medseg.errors import InputError, unusable


def add_score(command: argparse.ArgumentParser):
    """Contour cases as a user would and score what was written against the truth, with intervals."""
    command.add_argument("bundle", metavar="BUNDLE", help="a bundle's name (medseg bundles) or its folder")
    command.add_argument(
        "--data",
        type=path_of,
        required=True,
        metavar="DIR",
        help="where the datalist's paths begin; with --truth, a folder of one DICOM folder per patient",
    )
    command.add_argument(
        "-o", "--output", type=path_of, required=True, metavar="DIR", help="contours and scores go there"
    )
    command.add_argument("--section", default="test", metavar="NAME", help="of the datalist; default test")
    command.add_argument(
        "--datalist", type=path_of, metavar="FILE", help="MONAI datalist JSON; default: the bundle's own"
    )
    command.add_argument(
        "--truth",
        action="append",
        default=[],
        metavar="STRUCTURE=ROI",
        help="the ROI of each patient's structure set that is the truth of a structure",
    )
    command.add_argument(
        "--region-margins-mm",
        type=float,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="contour within a box around the truth, each side moved out by its own margin",
    )
    command.add_argument("--seed", type=int, default=0, help="of the margins")
    command.add_argument(
        "--tolerance",
        type=float,
        action="append",
        metavar="MM",
        help="of surface DSC, in mm (pixels on radiographs); default 2",
    )
    command.add_argument("--weights", type=path_of, metavar="FILE", help="other weights than the bundle's")
    command.add_argument(
        "--variant", metavar="NAME", help="with --weights: configs/NAME.json, as in their training"
    )
    command.add_argument(
        "--by",
        dest="strata",
        action="append",
        default=[],
        metavar="FIELD",
        help="score labels apart by a field of the datalist, such as sex or device; more than once for more",
    )
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add_trust(command)
    command.add_argument("--json", action="store_true", help="print every number as JSON")
    return _run


def _run(options) -> int:
    from medseg.bundles.trust import trusted_bundle

    bundle = trusted_bundle(options.bundle, options.trust_bundle)  # before torch is loaded
    from medseg.bundles.importers.card import note_scores
    from medseg.bundles.kinds import scorer_of
    from medseg.bundles.score_request import ScoreRequest
    from medseg.files import atomic_path

    score, tables = scorer_of(bundle)

    for path in filter(None, (options.data, options.datalist, options.weights)):
        if not (path.is_file() or path.is_dir()):
            raise unusable(path)
    request = ScoreRequest(
        bundle,
        options.data.resolve(),
        options.output.resolve(),
        section=options.section,
        datalist=options.datalist,
        truth=_truth(options.truth),
        region_margins_mm=options.region_margins_mm and tuple(options.region_margins_mm),
        seed=options.seed,
        tolerances=tuple(options.tolerance or (2.0,)),
        device=options.device,
        weights=options.weights,
        variant=options.variant,
        strata=tuple(dict.fromkeys(options.strata)),
    )
    scored = score(request, report=lambda line: say(f"error: {line}", file=sys.stderr))
    for name, text in (("scores.json", tables.as_json(scored)), ("scores.md", tables.in_words(scored))):
        with atomic_path(request.output_dir / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    note_scores(bundle, scored.images, tables.in_words(scored))
    say(tables.as_json(scored) if options.json else tables.in_words(scored))
    return 2 if scored.failed else 0


def _truth(texts: Sequence[str]) -> dict[str, str]:
    """{structure: ROI} of STRUCTURE=ROI words."""
    truth: dict[str, str] = {}
    for text in texts:
        structure, _, roi = text.partition("=")
        if not structure or not roi:
            raise InputError(f"--truth {text!r}: expected STRUCTURE=ROI, as in GTV=GTV_Mass_CT.")
        if structure in truth:
            raise InputError(f"--truth {text!r}: {structure} is given twice.")
        truth[structure] = roi
    return truth
