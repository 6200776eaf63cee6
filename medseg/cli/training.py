"""``medseg train`` and ``evaluate``: what is done with a bundle beside contouring."""

from __future__ import annotations

import argparse
import os
import sys

from medseg.cli.settings import settings_of
from medseg.cli.suggest import path_of
from medseg.cli.words import add_trust, say
from medseg.errors import BundleError, InputError, unusable
from medseg.files import no_empty_folders, own_folder, staging_folder


def add_train(command: argparse.ArgumentParser):
    """Train a bundle: python -m monai.bundle run training, with overrides that are checked by name."""
    _add_bundle_options(command, "where weights and checkpoints go; the bundle's own stay as they are")
    command.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        choices=("changed",),
        help="continue from DIR/last.pt; changed: with other cases, batch size, seed or learning rate",
    )
    command.add_argument(
        "--noisy",
        action="store_true",
        help="labels of uneven quality: weigh their losses (method qam_ocm; --set method=NAME for others)",
    )

    def run(options) -> int:
        if (options.output / "last.pt").exists() and not options.resume:
            raise InputError(
                f"{options.output} holds a training (last.pt) that would be overwritten; add --resume to go "
                "on with it, or name another folder."
            )
        out = str(options.output.resolve())
        settings = {"ckpt_dir": out, "output_dir": out, "resume": options.resume}
        if options.noisy:
            settings["method"] = "qam_ocm"
        with no_empty_folders(options.output), own_folder(options.output):
            code = _run_bundle(options, ["train"], "training", settings)
            if not (options.output / "last.pt").exists():
                raise BundleError(
                    f"nothing was trained: {options.output} has no last.pt; the settings of this call (rank, "
                    "run, train#handlers) left no training, or nobody to save it."
                )
        if not (options.output / "model.pt").exists():
            say(
                "note: no model.pt, since no validation was due in so few epochs; last.pt holds the weights "
                "(--set val_interval=1 validates every epoch).",
                file=sys.stderr,
            )
        return code

    return run


def add_evaluate(command: argparse.ArgumentParser):
    """Score a bundle's weights on the validation cases of a datalist; writes a row per case."""
    _add_bundle_options(command, "where the table of scores goes")
    command.add_argument(
        "--weights", type=path_of, metavar="DIR", help="folder with model.pt; default: the bundle's"
    )

    def run(options) -> int:
        settings = {"ckpt_dir": str(options.weights.resolve())} if options.weights else {}
        with own_folder(options.output), staging_folder(options.output) as staging:
            # MONAI writes its tables as they grow; here they appear whole.
            code = _run_bundle(
                options, ["train", "evaluate"], "run", {**settings, "output_dir": str(staging)}
            )
            for path in sorted(staging.iterdir()):
                os.replace(path, options.output / path.name)
        return code

    return run


def _add_bundle_options(command: argparse.ArgumentParser, output_help: str) -> None:
    command.add_argument("bundle", metavar="BUNDLE", help="a bundle's name (medseg bundles) or its folder")
    command.add_argument(
        "--data", type=path_of, required=True, metavar="DIR", help="folder the datalist's paths start from"
    )
    command.add_argument(
        "--datalist", type=path_of, metavar="FILE", help="MONAI datalist JSON; default: the bundle's own"
    )
    command.add_argument("-o", "--output", type=path_of, required=True, metavar="DIR", help=output_help)
    command.add_argument(
        "--variant", metavar="NAME", help="with what configs/NAME.json of the bundle changes, as source_unet"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="override a setting of the config"
    )
    add_trust(command)


OWN_OPTIONS = {
    "bundle_root": "BUNDLE",
    "ckpt_dir": "-o (of evaluate: --weights)",
    "datalist": "--datalist",
    "dataset_dir": "--data",
    "output_dir": "-o",
    "resume": "--resume",
}
"""Settings that options set; a second way would silently win over them."""


def _run_bundle(options, configs: list[str], run_id: str, settings: dict) -> int:
    from medseg.bundles.trust import trusted_bundle

    bundle = trusted_bundle(options.bundle, options.trust_bundle)
    if bundle.inference_only:
        raise InputError(
            f"bundle {bundle.name} was imported and has no training; medseg score compares its contours with "
            "yours, medseg bundles export nnunet-dataset writes data for nnU-Net."
        )
    if options.variant:
        configs = [*configs, bundle.require_variant(options.variant)]
    for path in filter(None, (options.data, options.datalist, getattr(options, "weights", None))):
        if not (path.is_file() or path.is_dir()):
            raise unusable(path)
    given = settings_of(options.set)
    for name in given:
        if name in OWN_OPTIONS:
            raise InputError(f"--set {name}: use {OWN_OPTIONS[name]} for it.")
    settings = {**settings, "dataset_dir": str(options.data.resolve()), **given}
    if options.datalist:
        settings["datalist"] = str(options.datalist.resolve())
    from medseg.bundles.config import run_config

    run_config(bundle, configs, run_id, settings)
    return 0
