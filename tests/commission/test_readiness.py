"""A sound installation is ready, and one with a fault is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.cli.main import main
from medseg.commission import phantom as phantom_module
from medseg.commission.checks import Check, run_checks
from medseg.commission.contouring import contouring_checks
from medseg.commission.installation import CODECS, installation_checks
from medseg.commission.phantom import phantom_checks


def outcomes(checks, start=""):
    wanted = [check for check in checks if f"{check.group}: {check.name}".startswith(start)]
    return {finding.name: (finding.state, finding.words) for finding in run_checks(wanted, lambda one: None)}


def test_every_codec_of_this_installation_gives_pixels_back_as_they_were():
    assert {
        name: state for name, (state, _) in outcomes(installation_checks(), "Codecs").items()
    } == dict.fromkeys(CODECS, "pass")


@pytest.mark.parametrize("name", ["oblique", "uneven slices", "feet first"])
def test_the_phantom_comes_back_from_every_writer(name):
    found = outcomes(phantom_checks(), f"Phantom: {name}:")
    assert len(found) >= 4 and {state for state, _ in found.values()} == {"pass"}, found


def test_a_writer_that_moves_contours_by_a_voxel_is_found(monkeypatch):
    write = phantom_module.write_rtstruct

    def careless(masks, series, out, **options):
        return write({name: np.roll(mask, 1, axis=2) for name, mask in masks.items()}, series, out, **options)

    monkeypatch.setattr(phantom_module, "write_rtstruct", careless)
    found = outcomes(phantom_checks(), "Phantom: axial: RTSTRUCT")
    assert {state for state, _ in found.values()} == {"fail"}


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on():
    def broken():
        raise ImportError("no such library")

    checks = [Check("A", "one", broken), Check("A", "two", lambda: ("pass", "fine"))]
    assert outcomes(checks) == {"one": ("fail", "ImportError: no such library"), "two": ("pass", "fine")}


def test_damaged_weights_are_found(tmp_path, bright_bundle):
    import shutil

    copy = shutil.copytree(bright_bundle, tmp_path / "damaged")
    weights = copy / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:-40])
    assert outcomes(installation_checks((str(bright_bundle),)), "Weights")[str(bright_bundle)][0] == "pass"
    assert outcomes(installation_checks((str(copy),)), "Weights")[str(copy)][0] == "fail"


def test_the_command_writes_page_and_record_and_its_exit_code_tells(tmp_path, monkeypatch, capsys):
    from medseg.commission import readiness

    kept = [check for check in phantom_checks() if check.name == "axial: SEG"]
    monkeypatch.setattr(readiness, "phantom_checks", lambda: kept)
    monkeypatch.setattr(readiness, "installation_checks", lambda names: [])
    assert main(["commission", "--no-contouring", "-o", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ready"] is True
    record = json.loads((tmp_path / "out" / "commission.json").read_text())
    assert record["counts"]["pass"] == 1 and record["findings"][0]["words"].startswith("Dice 1.0000")
    page = (tmp_path / "out" / "commission.html").read_text()
    assert "ready" in page and "contouring was left out" in page and "<script" not in page
    monkeypatch.setattr(readiness, "phantom_checks", lambda: [Check("A", "b", lambda: ("fail", "seen"))])
    assert main(["commission", "--no-contouring"]) == 1
    assert "NOT READY" in capsys.readouterr().out
    assert main(["commission", "--plans", str(tmp_path)]) == 2
    (tmp_path / "file").write_text("somebody's")
    capsys.readouterr()
    for wrong in (["-o", str(tmp_path / "file")], ["--bundle", "no_such_bundle"]):
        assert main(["commission", "--no-contouring", *wrong]) == 2  # before any check
        told = capsys.readouterr()
        assert told.err.startswith("error: ") and told.err.count("\n") == 1 and not told.out


@pytest.mark.slow
def test_a_network_contours_the_phantom_twice_alike():
    found = outcomes(contouring_checks())
    assert {state for state, _ in found.values()} == {"pass"}, found
