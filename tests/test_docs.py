"""The documentation says what the program does: commands parse, code runs, links lead somewhere."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from medseg.cli.main import _parser, main
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import MedsegWarning
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series
from medseg.phantoms.several import write_companions

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "monai_bundles").glob("*/docs/README.md")]
)

SCRIPTS = sorted(
    path for path in (ROOT / "tools").rglob("*.py") if 'if __name__ == "__main__":' in path.read_text()
)
"""The tools that are commands; what lies beside them is imported by them."""


def commands(page):
    """The ``medseg …`` lines of a page's code blocks, with continued lines joined."""
    for block in re.findall(r"```(?:\w*)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("medseg ") and "…" not in line:
                yield line.strip()


def tool_commands(page):
    """The ``python tools/…`` commands of a page, in code blocks or between backticks, without comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for found in re.findall(r"python (tools/[^`\n]+)", text):
        yield found.split(" #")[0].strip()


@pytest.fixture
def parse(monkeypatch):
    """A function that starts a script with these words and stops it once it has understood them."""

    class Parsed(Exception):
        pass

    def parse_args(parser, *arguments):
        original(parser, *arguments)
        raise Parsed

    original = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)

    def run(script: Path, *words: str) -> None:
        """Raises SystemExit for words that the script refuses, and for --help."""
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [str(script.parent), *sys.path])
            patch.setattr(sys, "argv", [str(script), *words])
            try:
                runpy.run_path(str(script), run_name="__main__")
            except Parsed:
                return
            finally:  # two folders may each have a module of one name
                for name, module in list(sys.modules.items()):
                    if str(getattr(module, "__file__", None)).startswith(str(ROOT / "tools")):
                        del sys.modules[name]
        raise AssertionError(f"{script}: reads no arguments")

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_medseg_command_of_a_page_parses(page):
    for command in commands(page):
        words = shlex.split(command, comments=True)[1:]
        try:
            _parser().parse_args(words)
        except SystemExit as error:
            assert error.code == 0, f"{command}: does not parse"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_tool_of_a_page_takes_the_words_that_the_page_gives_it(page, parse):
    for command in tool_commands(page):
        path, *words = shlex.split(command)
        assert (ROOT / path).is_file(), command
        try:
            parse(ROOT / path, *words)
        except SystemExit as error:
            raise AssertionError(f"{command}: does not parse") from error


def test_a_tool_command_that_does_not_parse_would_be_seen(parse):
    with pytest.raises(SystemExit):
        parse(ROOT / "tools" / "export_rtstruct.py", "CT_DIR", "MASK_DIR", "--no-such-option")
    assert sum(len(list(tool_commands(page))) for page in PAGES) > 30


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: str(script.relative_to(ROOT / "tools")))
def test_every_tool_explains_itself(script, parse, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(script, "--help")
    assert stop.value.code == 0 and "usage: " in capsys.readouterr().out


def test_every_tool_that_is_named_anywhere_exists():
    places = [path for folder in ("medseg", "tools", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in [*PAGES, *places, ROOT / "Makefile"]:
        for name in re.findall(r"\btools/[\w/]+\.py", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_command_and_option_stands_in_the_reference():
    text = (ROOT / "docs" / "reference" / "command_line.md").read_text(encoding="utf-8")
    for name, command in commands_of(_parser()):
        assert f"## medseg {name}\n" in text
        section = text.split(f"## medseg {name}\n")[1].split("\n## ")[0]
        for action in command._actions:
            for option in action.option_strings:
                assert option in section, f"medseg {name} {option}: run python tools/docs/make_docs.py"


def commands_of(parser, words=""):
    """(name, parser) of every command and of their verbs, "records" and "records pair"."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield f"{words}{name}", command
                yield from commands_of(command, f"{words}{name} ")


def test_the_commands_of_compare_and_margin_run_in_their_order(tmp_path, monkeypatch, capsys):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT")
    masks = {
        "GTV": phantom.masks["Marker"],
        "BODY": phantom.volume_hu > -500,
        "SpinalCord": phantom.masks["Foot"],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        write_rtstruct(masks, read_series(tmp_path / "CT"), tmp_path / "RS.dcm")
    monkeypatch.chdir(tmp_path)
    lines = list(commands(ROOT / "docs" / "how_to" / "compare_and_margin.md"))
    assert len(lines) == 10
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, f"{line}: {capsys.readouterr().err}"
    for name in (
        "RS_ptv.dcm",
        "RS_ring.dcm",
        "comparison.html",
        "masks/SpinalCord.nii.gz",
        "SEG.dcm",
        "ct.nii.gz",
    ):
        assert (tmp_path / name).is_file(), name


def test_the_python_page_runs_as_it_stands(tmp_path, monkeypatch):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT")
    write_companions(tmp_path, phantom.geometry, np.abs(phantom.volume_hu) / 200, phantom.volume_hu)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 8
    namespace: dict = {}
    for block in blocks:
        # The page's reader has a patient; this phantom is none, which the bundle's gate notices.
        block = block.replace("within=", 'allow=("out_of_distribution",), within=')
        exec(compile(block, "docs/reference/python.md", "exec"), namespace)
    assert (tmp_path / "RS.dcm").is_file() and (tmp_path / "lungs.dcm").is_file()
    assert namespace["record"]["cases"][0]["status"] == "done"
    assert namespace["covered"].any() and namespace["mr_to_ct"].shape == (4, 4)
    assert namespace["image"].shape == namespace["item"]["label"].shape[1:]
    by_monai = read_rtstruct(tmp_path / "from_monai" / "patient_1" / "RS.dcm", namespace["series"])
    assert (by_monai["GTV"] == namespace["masks"]["GTV"]).all()
