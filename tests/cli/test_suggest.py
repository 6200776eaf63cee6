"""A mistyped option or command is answered with the one that was meant."""

from __future__ import annotations

import pytest

from medseg.cli.main import main


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("segment", "x", "--bundle", "ct_gtv", "-o", "o", "--devise", "cpu"), "--device"),
        (("segment", "x", "--bundle", "ct_gtv", "-o", "o", "--devise=cpu"), "--device"),
        (("convert", "a", "b", "--referense", "c"), "--reference"),
        (("segmnet", "x"), "segment"),
        (("segment", "x", "--bundle", "ct_gtv", "-o", "o", "--device", "cdua"), "cuda"),
    ],
)
def test_the_nearest_word_is_suggested(arguments, meant, capsys):
    assert f"did you mean {meant}?" in refused(capsys, *arguments)


@pytest.mark.parametrize("option", ["--xyzzy", "--device"])
def test_nothing_is_suggested_where_the_command_has_nothing_like_it(option, capsys):
    words = refused(capsys, "inspect", "x", option, "cpu")
    assert option in words and "did you mean" not in words
