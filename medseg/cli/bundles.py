"""``medseg bundles``: list and verify bundles, bring models in from elsewhere, take training data out."""

from __future__ import annotations

import argparse

from medseg.cli.suggest import SuggestingParser, path_of
from medseg.cli.words import add_trust, in_flags, say, say_lines
from medseg.errors import InputError, unusable


def add_bundles(command: SuggestingParser):
    """List the bundles, verify one, copy one with your weights, import a model, export for nnU-Net."""
    verbs = command.add_subparsers(metavar="VERB")
    for name, add in (
        ("list", _add_list),
        ("verify", _add_verify),
        ("copy", _add_copy),
        ("import", _add_import),
        ("export", _add_export),
    ):
        verb = verbs.add_parser(name, help=add.__doc__, description=add.__doc__, allow_abbrev=False)
        verb.set_defaults(run_verb=add(verb))
    command.set_defaults(run_verb=_list)
    return lambda options: options.run_verb(options)


def _add_list(verb: argparse.ArgumentParser):
    """List the bundles that come with medseg."""
    verb.add_argument("name", nargs="?", help=argparse.SUPPRESS)
    return _list


def _list(options) -> int:
    from medseg.bundles.find import bundle_folders, find_bundle

    name = getattr(options, "name", None)
    if name:
        raise InputError(f"bundles list takes no name; did you mean medseg bundles verify {name}?")

    for name in bundle_folders():
        bundle = find_bundle(name)
        untrained = "" if bundle.has_weights else " (no weights yet: medseg train)"
        say(f"{name:20} {bundle.version:8} {bundle.metadata.get('task', '')}{untrained}")
    return 0


def _add_verify(verb: argparse.ArgumentParser):
    """Check a bundle offline: files, metadata, code, weights."""
    verb.add_argument("name", metavar="NAME", nargs="?", help="of a bundle, or its folder")
    add_trust(verb)
    return _verify


def _verify(options) -> int:
    """Print a line per check; 0 when all were made and are good."""
    from medseg.bundles.find import find_bundle
    from medseg.bundles.trust import require_trusted

    if not options.name:
        raise InputError("bundles verify: name a bundle, as in medseg bundles verify mm_gtv.")
    bundle = find_bundle(options.name)
    if options.trust_bundle:
        require_trusted(bundle, options.trust_bundle)
    from medseg.bundles.verify import NOT_DONE, verify  # here, since it loads torch

    results = verify(bundle)
    for what, problem in results:
        state = "ok  " if problem is None else "skip" if problem == NOT_DONE else "FAIL"
        say(f"{state}  {what}" + ("" if problem is None else f": {in_flags(problem)}"))
    return 0 if all(problem is None for _, problem in results) else 2


def _add_copy(verb: SuggestingParser):
    """Make a bundle of your own of one with the weights of your training."""
    verb.add_argument("name", metavar="NAME", help="of a bundle, or its folder")
    verb.add_argument("--weights", type=path_of, required=True, metavar="FILE", help="RUN_DIR/model.pt")
    verb.add_argument("--variant", metavar="NAME", help="configs/NAME.json, as in their training")
    verb.add_argument(
        "--thresholds",
        type=path_of,
        metavar="FILE",
        help="of boxes: what medseg score writes",
    )
    verb.add_argument(
        "-o", "--output", type=path_of, required=True, metavar="BUNDLE", help="folder, which must be new"
    )

    def run(options) -> int:
        from medseg.bundles.copies import copy_bundle
        from medseg.bundles.find import find_bundle

        for path in filter(None, (options.weights, options.thresholds)):
            if not path.is_file():
                raise unusable(path)
        made = copy_bundle(
            find_bundle(options.name),
            options.output.resolve(),
            options.weights,
            options.variant,
            options.thresholds,
        )
        say(f"{made.folder}: {options.name} with weights {made.weights_sha256[:12]}")
        return 0

    return run


# ---- import ------------------------------------------------------------------------------------------------


def _add_import(verb: SuggestingParser):
    """Make a bundle of a model that you have; nothing is downloaded."""
    kinds = verb.add_subparsers(required=True, metavar="KIND")
    for name, add in (("nnunet", _add_nnunet), ("totalsegmentator", _add_totalsegmentator)):
        kind = kinds.add_parser(name, help=add.__doc__, description=add.__doc__, allow_abbrev=False)
        kind.set_defaults(run_import=add(kind))
    return lambda options: options.run_import(options)


def _add_output_and_names(kind: argparse.ArgumentParser) -> None:
    kind.add_argument(
        "-o", "--output", type=path_of, required=True, metavar="BUNDLE", help="folder, which must be new"
    )
    kind.add_argument(
        "--names", type=path_of, metavar="CSV", help="label,name[,type,colour]; no name: leave it out"
    )


def _add_nnunet(kind: argparse.ArgumentParser):
    """An nnU-Net v2 folder: plans.json, dataset.json and the folds' checkpoint_final.pth."""
    kind.add_argument("model", type=path_of, metavar="MODEL_FOLDER")
    _add_output_and_names(kind)
    kind.add_argument("--configuration", metavar="NAME", help="2d, 3d_fullres, 3d_cascade_fullres …")
    kind.add_argument("--folds", metavar="LIST", help="such as 0,1,2,3,4 or all; default: all there are")
    kind.add_argument(
        "--modalities", metavar="LIST", help="CT, MR or PT of every channel, where its name is none"
    )
    kind.add_argument("--postprocessing", type=path_of, metavar="FILE", help="nnU-Net's postprocessing.json")

    def run(options) -> int:
        from medseg.bundles.importers.nnunet import NnunetRequest, import_nnunet

        request = NnunetRequest(
            options.model,
            options.output,
            options.configuration,
            None if options.folds is None else _words(options.folds),
            options.names,
            _words(options.modalities),
            options.postprocessing,
        )
        return _imported(import_nnunet(request))

    return run


def _add_totalsegmentator(kind: argparse.ArgumentParser):
    """The weights of one task of TotalSegmentator, with names after TG-263."""
    kind.add_argument("weights", type=path_of, metavar="WEIGHTS_DIR", help="holds Dataset291_… and so on")
    _add_output_and_names(kind)
    kind.add_argument("--task", default="total", metavar="NAME", help="default total")
    kind.add_argument("--resolution", metavar="MM", help="1.5mm, 3mm or 6mm of total; default: the finest")

    def run(options) -> int:
        from medseg.bundles.importers.totalsegmentator import TotalSegmentatorRequest, import_totalsegmentator

        request = TotalSegmentatorRequest(
            options.weights, options.output, options.task, options.resolution, options.names
        )
        return _imported(import_totalsegmentator(request))

    return run


def _imported(bundle) -> int:
    """Say what a bundle of an import is."""
    about = bundle.metadata["imported"]
    say(f"{bundle.folder}: {bundle.metadata['name']}")
    say(f"  contours: {', '.join(_names(bundle))}")
    say(f"  licence of the weights: {about['licence']}")
    for remark in about["remarks"]:
        say(f"  note: {remark}")
    say("  not evaluated by medseg: medseg score compares it with contours of your own")
    return 0


def _names(bundle) -> list[str]:
    return list(
        dict.fromkeys(bundle.metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    )


def _words(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


# ---- export ------------------------------------------------------------------------------------------------


def _add_export(verb: SuggestingParser):
    """Write training data for other tools."""
    kinds = verb.add_subparsers(required=True, metavar="KIND")
    add = _add_nnunet_dataset
    kind = kinds.add_parser("nnunet-dataset", help=add.__doc__, description=add.__doc__, allow_abbrev=False)
    kind.set_defaults(run_export=add(kind))
    return lambda options: options.run_export(options)


def _add_nnunet_dataset(kind: argparse.ArgumentParser):
    """Images and contours of a datalist as a raw data set of nnU-Net v2, with folds grouped by patient."""
    kind.add_argument("datalist", type=path_of, metavar="DATALIST", help="made by medseg datalist")
    kind.add_argument("--data", type=path_of, required=True, metavar="DIR", help="where its paths begin")
    kind.add_argument(
        "-o",
        "--output",
        type=path_of,
        required=True,
        metavar="DIR",
        help="DatasetNNN_Name, which must be new",
    )
    kind.add_argument("--folds", type=int, default=5, metavar="N", help="default 5")
    kind.add_argument("--seed", type=int, default=0, help="of the draw of patients")

    def run(options) -> int:
        from medseg.bundles.importers.nnunet_dataset import DatasetRequest, export_dataset

        request = DatasetRequest(options.datalist, options.data, options.output, options.folds, options.seed)
        say_lines(export_dataset(request))
        return 0

    return run
