"""``medseg node``: a DICOM node that contours what scanners send and sends the results on."""

from __future__ import annotations

import argparse
import importlib.util
import json

from medseg.cli.suggest import SuggestingParser, path_of
from medseg.cli.words import say, say_lines
from medseg.errors import InputError


def add_node(command: SuggestingParser):
    """Run a DICOM node: receives studies, contours those that its rules name, sends the results on."""
    verbs = command.add_subparsers(required=True, metavar="VERB")
    for name, add in (("start", _add_start), ("status", _add_status)):
        verb = verbs.add_parser(name, help=add.__doc__, description=add.__doc__, allow_abbrev=False)
        verb.add_argument("config", type=path_of, metavar="NODE.json", help="where it listens, and its rules")
        verb.set_defaults(run_verb=add(verb))

    def run(options) -> int:
        if importlib.util.find_spec("pynetdicom") is None:
            raise InputError("pynetdicom is not installed: pip install 'medseg[serve]'.")
        return options.run_verb(options)

    return run


def _add_start(verb: argparse.ArgumentParser):
    """Receive, contour and send on until Ctrl-C or SIGTERM; logs lines of JSON on standard error."""
    verb.add_argument("--dry-run", action="store_true", help="say what would happen, and do nothing")
    verb.add_argument(
        "--study", type=path_of, metavar="DICOM_DIR", help="with --dry-run: what would these files become"
    )
    verb.add_argument("--sender", default="", metavar="AE", help="with --study: if this AE title sent them")

    def run(options) -> int:
        from medseg.serve.dicom_node.config import check_bundles, read_config

        if (options.study or options.sender) and not options.dry_run:
            raise InputError("--study and --sender go with --dry-run.")
        config = read_config(options.config)
        check_bundles(config)
        if options.dry_run:
            from medseg.serve.dicom_node.report import dry_run

            say_lines(dry_run(config, options.study, options.sender))
            return 0
        from medseg.serve.dicom_node.supervise import run_node

        return run_node(config, options.config.resolve())

    return run


def _add_status(verb: argparse.ArgumentParser):
    """Say what the node holds, what is being contoured, and what could not be sent yet."""
    verb.add_argument("--json", action="store_true", help="print JSON for machines")

    def run(options) -> int:
        from medseg.serve.dicom_node.config import read_config
        from medseg.serve.dicom_node.report import status, status_lines

        found = status(read_config(options.config))
        if options.json:
            say(json.dumps(found, indent=1))
        else:
            say_lines(status_lines(found))
        return 0

    return run
