"""convert, compare and margin from the command line: what they print, their exit codes, and their Python
twins."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import pytest

from medseg.cli.main import main
from medseg.cli.structures import _margin, _minus, tolerances
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import InputError, MedsegWarning
from medseg.metrics import dice
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series
from medseg.shapes.margins import expand


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """CT and RS.dcm with GTV (a ball) and Body."""
    folder = tmp_path_factory.mktemp("case")
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, folder / "CT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        masks = {"GTV": phantom.masks["Marker"], "Body": phantom.volume_hu > -500}
        write_rtstruct(masks, read_series(folder / "CT"), folder / "RS.dcm")
    return folder


def test_margin_then_compare_then_convert(capsys, folder, tmp_path):
    out = tmp_path / "out.dcm"
    code, text, err = run(
        capsys,
        "margin",
        folder / "RS.dcm",
        out,
        "--reference",
        folder / "CT",
        "--from",
        "GTV",
        "--to",
        "PTV",
        "--mm",
        "5",
        "--crop-to",
        "Body",
        "--crop-mm",
        "3",
    )
    assert (code, err) == (0, "") and text.splitlines()[0] == f"{out}: PTV = GTV + 5 mm, inside Body by 3 mm"
    series = read_series(folder / "CT")
    masks = read_rtstruct(out, series)
    assert list(masks) == ["GTV", "Body", "PTV"]
    grown, body = (expand(masks[name], series.geometry, mm) for name, mm in (("GTV", 5.0), ("Body", -3.0)))
    assert dice(masks["PTV"], (grown >= 0.5) & (body >= 0.5)) > 0.97

    code, text, err = run(
        capsys,
        "compare",
        folder / "RS.dcm",
        out,
        "--reference",
        folder / "CT",
        "--tolerance-mm",
        "1",
        "--tolerance-mm",
        "GTV=3",
        "--json",
        tmp_path / "c.json",
        "--csv",
        tmp_path / "c.csv",
        "--html",
        tmp_path / "c.html",
    )
    assert (code, err) == (0, "") and "PTV               only in the other" in text
    report = json.loads((tmp_path / "c.json").read_text())
    assert {row["name"]: row["tolerance_mm"] for row in report["structures"]} == {"GTV": 3.0, "Body": 1.0}
    assert (tmp_path / "c.csv").is_file() and (tmp_path / "c.html").read_text().startswith("<!doctype html>")

    code, text, err = run(
        capsys, "convert", out, tmp_path / "masks", "--reference", folder / "CT", "--roi", "PTV", "--json"
    )
    assert code == 0 and [row["name"] for row in json.loads(text)["structures"]] == ["PTV"]
    code, text, _ = run(capsys, "convert", folder / "CT", tmp_path / "ct.nii.gz")
    assert code == 0 and text.strip() == f"{tmp_path / 'ct.nii.gz'}: series to NIfTI"


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "RS.dcm", "nowhere", "--reference", "CT"),
        ("compare", "RS.dcm", "RS.dcm"),
        ("compare", "RS.dcm", "RS.dcm", "--reference", "CT", "--tolerance-mm", "two"),
        ("convert", "RS.dcm", "masks"),
        ("convert", "RS.dcm", "masks", "--reference", "CT", "--allow", "anything"),
        ("margin", "RS.dcm", "out.dcm", "--reference", "CT", "--from", "GTV", "--to", "PTV", "--mm", "left"),
        ("margin", "RS.dcm", "out.dcm", "--reference", "CT", "--from", "GTV", "--to", "PTV", "--mm", "up=5"),
        (
            "margin",
            "RS.dcm",
            "out.dcm",
            "--reference",
            "CT",
            "--from",
            "GTV",
            "--to",
            "PTV",
            "--crop-mm",
            "5",
        ),
        ("margin", "RS.dcm", "out.dcm", "--reference", "CT", "--from", "GTV", "--to", "PTV"),
        ("margin", "RS.dcm", "RS.dcm", "--reference", "CT", "--from", "GTV", "--to", "PTV", "--mm", "5"),
    ],
)
def test_what_cannot_be_done_ends_in_one_line_and_leaves_nothing(words, capsys, folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_the_words_of_options_become_numbers():
    assert _margin(None) == 0.0 and _margin("-3.5") == -3.5
    assert _margin("Left=7, right=5,superior=10") == {"left": 7.0, "right": 5.0, "superior": 10.0}
    assert (
        _minus("Cord") == ("Cord", 0.0)
        and _minus("Cord,3") == ("Cord", 3.0)
        and _minus("1,SUV") == ("1,SUV", 0.0)
    )
    assert tolerances([]) == (2.0, {}) and tolerances(["1", "a=b=3"]) == (1.0, {"a=b": 3.0})
    with pytest.raises(InputError, match="given twice"):
        _margin("left=1,left=2")


def test_comparing_loads_neither_torch_nor_monai_nor_matplotlib(folder):
    words = ["compare", str(folder / "RS.dcm"), str(folder / "RS.dcm"), "--reference", str(folder / "CT")]
    code = (
        f"import sys; from medseg.cli.main import main\nassert main({words!r}) == 0\n"
        "print({'torch', 'monai', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"
