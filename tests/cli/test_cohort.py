"""`medseg cohort` says what it did, and what does not go together."""

from __future__ import annotations

import json

import pytest
from chiral_cases import chiral_series

from medseg.cli.main import main
from medseg.dicom import read_series, write_rtstruct


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    phantom = chiral_series(folder / "p0" / "CT")
    write_rtstruct({"L": phantom.masks["L"]}, read_series(folder / "p0" / "CT"), folder / "p0" / "RS.dcm")
    return folder


def run(*words):
    return main(["cohort", *map(str, words)])


def test_an_archive_is_converted_and_the_second_run_says_that_it_was_done(archive, tmp_path, capsys):
    assert run("convert", archive, "-o", tmp_path / "out", "--roi", "L") == 0
    assert "convert: 1 done, in 0:00" in capsys.readouterr().out
    assert (tmp_path / "out" / "p0_CT" / "masks" / "L.nii.gz").is_file()
    assert run("convert", archive, "-o", tmp_path / "out", "--roi", "L", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["cases"], record["newly_run"], record["files_opened"]) == (1, 0, 0)


def test_a_failed_case_is_told_and_decides_the_exit_code(archive, tmp_path, capsys):
    assert run("convert", archive, "-o", tmp_path / "out", "--roi", "Heart") == 2
    told = capsys.readouterr()
    assert "error: p0_CT: " in told.err and "no structure 'Heart'" in told.err and "1 failed" in told.out


@pytest.mark.parametrize(
    "words, said",
    [
        (["in"], "no bundle given: --bundle"),
        (["convert", "in", "--bundle", "mm_gtv"], "--bundle does not go with medseg cohort convert"),
        (["in", "--bundle", "mm_gtv", "--roi", "L"], "--roi does not go with medseg cohort segment"),
        (["compare", "in"], "1 paths given; expected 2"),
        (["convert", "in", "--workers", "0"], "expected at least 1"),
        (["convert", "in", "--format", "png"], "expected one of nifti, seg"),
        (["convert", "in", "--device", "cuda"], "--device does not go with medseg cohort convert"),
        (["compare", "in", "in", "--tolerance-mm", "-2"], "tolerance -2.0 mm: expected 0 or more"),
    ],
)
def test_words_that_do_not_go_together_are_refused_in_one_line(words, said, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    words = [tmp_path / word if word == "in" else word for word in words]
    assert run(*words, "-o", tmp_path / "out") == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1
