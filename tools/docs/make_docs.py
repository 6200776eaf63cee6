"""Write the parts of the documentation that a command prints: run it after a change of the command line or
the weights.

    python tools/docs/make_docs.py              command line reference, README's demo output, docs/pictures/
    python tools/docs/make_docs.py --no-demo    only the command line reference
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from medseg.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
COMMAND_LINE = ROOT / "docs" / "reference" / "command_line.md"


def medseg(*arguments: str, cwd: Path = ROOT) -> str:
    """What ``medseg ARGUMENTS`` prints, on a terminal of 100 columns. Raises CalledProcessError when it
    fails."""
    code = "import sys; from medseg.cli.main import main; sys.exit(main())"
    environment = {"COLUMNS": "100", "PATH": "", "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", code, *arguments]
    return subprocess.run(run, cwd=cwd, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout


def command_line_reference() -> str:
    """The page: every command's help text."""
    lines = [
        "# Command line",
        "",
        "Written by `python tools/docs/make_docs.py` from the help texts; a test compares them.",
        "",
        "Exit codes: 0 done; 1 a fault in medseg; 2 the input's or the caller's; 130 interrupted (Ctrl-C). "
        "Errors are one line on standard error;",
        "`--debug` adds the traceback. Progress bars go to standard error, and only on a terminal.",
        "",
    ]
    for name in COMMANDS:
        for words in (name, *verbs_of(name)):
            lines += [f"## medseg {words}", "", "```", medseg(*words.split(), "--help").rstrip(), "```", ""]
    return "\n".join(lines)


def verbs_of(name: str) -> list[str]:
    """A command with its verbs, as in records pair and bundles import nnunet; most have none."""
    command = argparse.ArgumentParser()
    COMMANDS[name](command)
    return [f"{name} {words}" for words in _verbs(command)]


def _verbs(command: argparse.ArgumentParser) -> list[str]:
    found = []
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, parser in action.choices.items():
                found += [verb, *(f"{verb} {words}" for words in _verbs(parser))]
    return found


def demo_output(picture: Path) -> str:
    """What ``medseg demo`` prints; its preview is copied to ``picture``."""
    with tempfile.TemporaryDirectory() as folder:
        text = medseg("demo", "-o", "demo_output", cwd=Path(folder))
        preview = next(Path(folder).rglob("preview.png"))
        picture.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(preview, picture)
    return text


def replace_block(text: str, marker: str, content: str) -> str:
    """``text`` with what stands between ``<!-- marker -->`` and ``<!-- end -->`` replaced."""
    pattern = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"error: no block '<!-- {marker} --> … <!-- end -->' in the text.")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-demo", action="store_true")
    options = parser.parse_args()
    COMMAND_LINE.write_text(command_line_reference(), encoding="utf-8")
    if not options.no_demo:
        output = demo_output(ROOT / "docs" / "pictures" / "demo_preview.png")
        page = replace_block(
            README.read_text(encoding="utf-8"), "demo output", f"```\n{output.rstrip()}\n```"
        )
        README.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
