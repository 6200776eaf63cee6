"""The command line: exit codes, one error line, and nothing heavy loaded for --help."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from medseg.cli.main import COMMANDS, main
from medseg.cli.settings import settings_of
from medseg.errors import InputError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def ct(tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT")
    return tmp_path / "CT"


def test_segment_prints_a_line_per_case_and_exits_with_zero(capsys, ct, bright_bundle, tmp_path):
    code, out, err = run(
        capsys, "segment", ct, "--bundle", bright_bundle, "-o", tmp_path / "out", "--ptv-mm", "3"
    )
    assert code == 0
    assert out.startswith("CT: done: GTV 1.") and "PTV" in out
    assert (tmp_path / "out" / "CT" / "RS.dcm").is_file() and (tmp_path / "out" / "run.json").is_file()


def test_a_broken_series_ends_in_one_error_line_and_exit_code_two(capsys, ct, bright_bundle, tmp_path):
    (ct / "CT_0010.dcm").unlink()
    code, out, err = run(capsys, "segment", ct, "--bundle", bright_bundle, "-o", tmp_path / "out")
    assert code == 2
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1 and "missing" in err
    assert "Traceback" not in err


def test_ctrl_c_ends_in_one_line_and_the_code_that_shells_expect(capsys, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("medseg.workbench.inspect.inspect", interrupted)
    code, out, err = run(capsys, "inspect", tmp_path)
    assert code == 130 and out == "" and err.startswith("error: interrupted") and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "does/not/exist"),
        ("segment", "does/not/exist", "--bundle", "mm_gtv", "-o", "out"),
        ("bundles", "verify"),
        ("bundles", "verify", "nonsense"),
    ],
)
def test_bad_input_ends_in_exactly_one_line(capsys, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_json_output_is_json_alone(capsys, ct, bright_bundle, tmp_path):
    code, out, _ = run(capsys, "segment", ct, "--bundle", bright_bundle, "-o", tmp_path / "out", "--json")
    assert code == 0 and json.loads(out)["cases"][0]["status"] == "done"
    code, out, _ = run(capsys, "inspect", ct, "--json")
    assert code == 0 and json.loads(out)


def test_settings_are_values_and_never_expressions():
    assert settings_of(["min_volume_cc=2.5", "holes=xor", "within=null"]) == {
        "min_volume_cc": 2.5,
        "holes": "xor",
        "within": None,
    }
    for text in (
        "device=$__import__('os').system('true')",
        "network=@inferer",
        "network=%other.json#x",
        'holes="$1"',
        'spacing_mm=["$print(7)", 1, 1]',
        'run=[["@evaluator"]]',
        'network_def={"_target_": "os.system"}',
    ):
        with pytest.raises(InputError, match="expressions, references"):
            settings_of([text])
    with pytest.raises(InputError, match="ID=VALUE"):
        settings_of(["min_volume_cc"])


def test_a_fault_of_ours_exits_with_one_and_says_so(capsys, monkeypatch):
    monkeypatch.setattr("medseg.bundles.find.bundle_folders", lambda: 1 / 0)
    code, _, err = run(capsys, "bundles")
    assert code == 1 and "a fault in medseg" in err and "Traceback" not in err
    code, _, err = run(capsys, "bundles", "--debug")
    assert code == 1 and "Traceback" in err


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=lambda a: " ".join(a)
)
def test_help_loads_neither_torch_nor_pydicom(arguments):
    code = (
        f"import sys; from medseg.cli.main import main\ntry: main({arguments!r})\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'pydicom', 'monai'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_warning_reaches_the_terminal_and_a_failure_is_said_once(capsys, ct, bright_bundle, tmp_path):
    code, out, err = run(capsys, "segment", ct, "--bundle", bright_bundle, "-o", tmp_path / "out")
    assert code == 0 and "warning: CT: this bundle learned from crops" in err
    (ct / "CT_0010.dcm").unlink()
    code, out, err = run(capsys, "segment", ct, "--bundle", bright_bundle, "-o", tmp_path / "out")
    assert code == 2 and out == "" and err.startswith("error: CT: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("formats", "files"),
    [
        ("rtstruct, nifti", {"RS.dcm", "GTV.nii.gz"}),
        ("nifti,nifti", {"GTV.nii.gz"}),
        ("rtstruct,", None),
        ("", None),
    ],
)
def test_formats_may_hold_spaces_and_repeats_but_nothing_unknown(
    formats, files, capsys, ct, bright_bundle, tmp_path
):
    out = tmp_path / "out"
    code, _, err = run(capsys, "segment", ct, "--bundle", bright_bundle, "-o", out, "--format", formats)
    if files is None:
        assert code == 2 and err.startswith("error: format ''") and not out.exists()
    else:
        assert code == 0 and {path.name for path in (out / "CT").iterdir()} == {*files, "run.json"}


def test_what_the_operating_system_refuses_is_not_called_a_fault_of_medseg(
    capsys, ct, bright_bundle, tmp_path
):
    (tmp_path / "out").write_text("a file where the folder should be")
    code, out, err = run(capsys, "segment", ct, "--bundle", bright_bundle, "-o", tmp_path / "out")
    assert code == 2 and err.count("\n") == 1 and "fault in medseg" not in err


def test_a_name_after_bundles_list_is_not_ignored(capsys):
    code, out, err = run(capsys, "bundles", "list", "mm_gtv")
    assert code == 2 and out == "" and "medseg bundles verify mm_gtv" in err


BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}
"""As a user has it: words are held back, and a stream that takes none is met at the end."""


def test_a_reader_that_went_away_changes_neither_the_work_nor_the_exit_code():
    command = "import time; time.sleep(0.5); from medseg.cli.main import main; raise SystemExit(main())"
    child = subprocess.Popen(
        [sys.executable, "-c", command, "bundles"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=BUFFERED,
    )
    child.stdout.close()
    assert child.stderr.read() == b"" and child.wait() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_words_that_find_no_room_end_in_one_line_and_exit_code_two():
    command = [sys.executable, "-m", "medseg", "bundles"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=BUFFERED)
        assert done.returncode == 2 and done.stderr == "error: [Errno 28] No space left on device\n"
        again = [sys.executable, "-m", "medseg", "inspect", "nowhere"]
        assert subprocess.run(again, stderr=full, env=BUFFERED, check=False).returncode == 2
