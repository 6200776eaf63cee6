"""A mistyped option or command is answered in one line with the one that was meant."""

from __future__ import annotations

import os

import pytest

from medseg.cli.main import _parser, main
from medseg.cli.settings import settings_of
from medseg.cli.structures import tolerances
from medseg.errors import InputError


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("segment", "x", "--bundle", "mm_gtv", "-o", "o", "--devise", "cpu"), "--device"),
        (("segment", "x", "--bundle", "mm_gtv", "-o", "o", "--devise=cpu"), "--device"),
        (("convert", "a", "b", "--referense", "c"), "--reference"),
        (("segmnet", "x"), "segment"),
        (("segment", "x", "--bundle", "mm_gtv", "-o", "o", "--device", "cdua"), "cuda"),
    ],
)
def test_the_nearest_word_is_suggested(arguments, meant, capsys):
    assert f"did you mean {meant}?" in refused(capsys, *arguments)


@pytest.mark.parametrize("option", ["--xyzzy", "--device"])
def test_nothing_is_suggested_where_the_command_has_nothing_like_it(option, capsys):
    words = refused(capsys, "inspect", "x", option, "cpu")
    assert option in words and "did you mean" not in words


SEGMENT = ("segment", "x", "--bundle", "mm_gtv", "-o", "o")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "error: medseg: the following arguments are required: COMMAND"),
        (("segment", "x"), "error: medseg segment: the following arguments are required: --bundle"),
        ((*SEGMENT, "--ctv-mm", "x"), "error: medseg segment: argument --ctv-mm: invalid float value: 'x'"),
        (("inspect", "a", "b"), "error: medseg inspect: unrecognized arguments: b"),
        (("inspect", "a", "--\x1b[31m\n"), r"error: medseg inspect: unrecognized arguments: --\u001b[31m"),
    ],
)
def test_a_wrong_call_ends_in_one_line_that_names_the_command_and_its_help(arguments, words, capsys):
    line = refused(capsys, *arguments)
    assert line.startswith(words) and line.endswith("--help lists what there is)\n") and line.count("\n") == 1


def test_an_option_of_a_command_that_stands_before_it_is_told_its_place(capsys):
    assert "--debug goes behind the command" in refused(capsys, "--debug", "inspect", "x")


@pytest.mark.parametrize("second", ["--within=1,2,3,4,5,6", "--within=9,8,7,6,5,4"])
def test_an_option_of_one_value_is_not_taken_twice(second, capsys):
    line = refused(capsys, *SEGMENT, "--within=1,2,3,4,5,6", second)
    assert "argument --within: is given twice" in line


def test_what_is_named_by_its_value_is_not_taken_twice_either():
    with pytest.raises(InputError, match="min_volume_cc is set twice"):
        settings_of(["min_volume_cc=1", "min_volume_cc=2"])
    for texts in (["1", "2"], ["GTV=1", "GTV=1"]):
        with pytest.raises(InputError, match="given twice"):
            tolerances(texts)


@pytest.mark.parametrize("command", [("inspect", ""), ("segment", "x", "--bundle", "mm_gtv", "-o", "")])
def test_an_empty_path_is_not_the_current_folder(command, capsys):
    assert "is empty; expected a path" in refused(capsys, *command)


def test_a_path_that_no_system_can_follow_is_refused_by_name(capsys, tmp_path):
    os.symlink(tmp_path / "circle", tmp_path / "circle")
    assert "circle: " in refused(capsys, "segment", "x", "--bundle", "mm_gtv", "-o", str(tmp_path / "circle"))
    assert "File name too long" in refused(capsys, "inspect", "a" * 5000)


@pytest.mark.parametrize("joint", [" ", "="])
@pytest.mark.parametrize("option", ["--at", "--within"])
@pytest.mark.parametrize("value", ["-31,20,5", "-31.5,-20,5", "-.5,20,5", "-3e1,20,5,6,-7,8"])
def test_a_value_whose_first_number_is_negative_needs_no_equals_sign(value, option, joint):
    words = f"segment x --bundle mm_gtv -o o {option}{joint}{value} --device cpu".split(" ")
    found = getattr(_parser().parse_args(words), option[2:])
    assert found == ([value] if option == "--at" else value)


def test_several_points_with_negative_numbers_are_all_taken():
    words = (*SEGMENT, "--at", "-31,20,5", "--at", "-30,20,5", "--crop-to-body", "-1")
    options = _parser().parse_args(words)
    assert (options.at, options.crop_to_body) == (["-31,20,5", "-30,20,5"], "-1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "--device", "cpu"), "argument --at: expected one argument"),
        (("--at", "-x,20,5"), "argument --at: expected one argument"),
        (("-31,20,5",), "unrecognized arguments: -31,20,5"),
    ],
)
def test_an_option_is_no_value_and_a_point_without_its_option_is_not_ignored(words, said, capsys):
    assert said in refused(capsys, *SEGMENT, *words)
