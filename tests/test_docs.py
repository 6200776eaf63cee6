"""The documentation says what the program does: commands parse, code runs, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import pytest

from medseg.cli.main import COMMANDS, _parser, main
from medseg.dicom import read_series, write_rtstruct
from medseg.errors import MedsegWarning
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "monai_bundles").glob("*/docs/README.md")]
)


def commands(page):
    """The ``medseg …`` lines of a page's code blocks, with continued lines joined."""
    for block in re.findall(r"```(?:\w*)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("medseg ") and "…" not in line:
                yield line.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_medseg_command_of_a_page_parses(page):
    for command in commands(page):
        words = shlex.split(command.split("#")[0])[1:]
        try:
            _parser().parse_args(words)
        except SystemExit as error:
            assert error.code == 0, f"{command}: does not parse"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_command_and_option_stands_in_the_reference():
    text = (ROOT / "docs" / "reference" / "command_line.md").read_text(encoding="utf-8")
    subparsers = next(
        action for action in _parser()._actions if action.choices and "segment" in action.choices
    )
    for name in COMMANDS:
        assert f"## medseg {name}\n" in text
        section = text.split(f"## medseg {name}\n")[1].split("\n## ")[0]
        for action in subparsers.choices[name]._actions:
            for option in action.option_strings:
                assert option in section, f"medseg {name} {option}: run python tools/docs/make_docs.py"


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
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "docs/reference/python.md", "exec"), namespace)
    assert (tmp_path / "RS.dcm").is_file() and (tmp_path / "lungs.dcm").is_file()
    assert namespace["record"]["cases"][0]["status"] == "done"
