"""What comes from a file reaches the terminal as text: no control characters, no patient, one line each."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.cli.main import _escaped, main
from medseg.cli.words import say, say_lines
from medseg.dicom import read_series
from medseg.dicom.images.scan import find_series
from medseg.errors import InputError, printable
from medseg.phantoms.series import stack_geometry, write_series
from medseg.workbench.inspect import inspect, report_lines

STEERING = "\x1b[2J\x1b]0;owned\x07\u202e\x9b31m"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def steering_series(tmp_path) -> Path:
    """A series whose description clears the screen, names the window and turns the line round."""
    for file in write_series(np.zeros((3, 16, 16)), stack_geometry((3, 16, 16)), tmp_path / "CT"):
        header = pydicom.dcmread(file)
        header.SpecificCharacterSet = "ISO_IR 192"
        header.SeriesDescription = STEERING + "\nPatient 4711"
        header.save_as(file)
    return tmp_path / "CT"


def test_control_and_direction_characters_become_their_numbers_and_all_else_stays():
    assert printable("肺 Ä\t\n\x1b[2J") == "肺 Ä\t\n\\u001b[2J"
    assert printable("a\nb\rc", keep="") == "a\\u000ab\\u000dc"
    assert printable("\x7f\x9b\u2028\u202e\u2066") == "\\u007f\\u009b\\u2028\\u202e\\u2066"


def test_json_stays_the_same_json():
    value = {"name": STEERING + "\n"}
    text = printable(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value and not re.search("[\x00-\x1f\x7f-\x9f\u202e]", text)


def test_a_report_has_a_line_for_a_line_whatever_a_description_holds(steering_series):
    lines = report_lines(inspect(steering_series))
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", "".join(lines))
    assert [line.startswith("Patient") for line in lines if "Patient" in line] == [True, False]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_inspect_and_error_lines_print_no_control_characters(options, steering_series, tmp_path, capsys):
    assert main(["inspect", f"{steering_series}", *options]) == 0
    (steering_series / "CT_0002.dcm").unlink()
    (steering_series / "CT_0001.dcm").rename(steering_series / "a\x1b[2J.dcm")
    main(["convert", f"{steering_series}", f"{tmp_path / 'out.nii.gz'}"])
    captured = capsys.readouterr()
    assert "\\u001b[2J" in captured.out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", captured.out + captured.err)


def test_what_libraries_warn_of_and_log_is_escaped_too(capsys):
    before = logging.getLogRecordFactory()
    with _escaped():
        warnings.warn(f"Invalid value {STEERING}", stacklevel=1)
        logging.getLogger("pydicom.nobody").warning("odd %s", STEERING)
    said = capsys.readouterr().err
    assert said.startswith("warning: Invalid value \\u001b[2J") and "\x1b" not in said
    assert logging.getLogRecordFactory() is before


@pytest.mark.parametrize("debug", [False, True])
def test_lines_of_a_log_that_a_bundle_configures_are_escaped_and_tracebacks_are_for_debug(debug):
    """``medseg train`` logs through the handlers of the bundle's own logging.conf."""
    stream = io.StringIO()
    logger = logging.Logger("engine")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
    logger.addHandler(handler)
    with _escaped(debug):
        logger.info("case %s of %d", STEERING, 3)
        try:
            raise ValueError(STEERING)
        except ValueError:
            logger.exception("failed")
    text = stream.getvalue()
    assert "\x1b" not in text and text.count("\\u001b[2J") == 1 + debug
    assert "failed" in text and ("Traceback" in text and "ValueError" in text) == debug


def test_lines_stay_lines(capsys):
    say("two\nlines")
    say_lines(["one\nline"])
    assert capsys.readouterr().out == "two\nlines\none\\u000aline\n"


def test_every_command_prints_through_say():
    for path in sorted((ROOT / "medseg" / "cli").glob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        printed = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
        assert len(printed) == (1 if path.name == "words.py" else 0), path.name


# ---- no patient where nobody asked for one -----------------------------------------------------------------


@pytest.fixture
def mixed_patients(tmp_path) -> Path:
    """A series of six slices, three of them of another patient."""
    files = write_series(np.zeros((6, 16, 16)), stack_geometry((6, 16, 16)), tmp_path / "CT")
    for file in sorted(files)[3:]:
        header = pydicom.dcmread(file)
        header.PatientID, header.PatientName = "Meier-4711", "Meier^Anna"
        header.save_as(file)
    return tmp_path / "CT"


def test_slices_of_two_patients_are_refused_without_naming_either(mixed_patients):
    with pytest.raises(InputError, match="2 different values of PatientID") as refusal:
        read_series(mixed_patients)
    assert "Meier" not in str(refusal.value) and "PHANTOM" not in str(refusal.value)


def test_a_refused_case_leaves_no_patient_in_run_json_or_on_the_terminal(
    mixed_patients, bright_bundle, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(["segment", f"{mixed_patients}", "--bundle", f"{bright_bundle}", "-o", f"{out}"]) == 2
    captured = capsys.readouterr()
    texts = [path.read_text() for path in out.rglob("run.json")] + [captured.out, captured.err]
    assert len(texts) == 4 and all("PatientID" in text for text in (*texts[:2], captured.err))
    assert not any("Meier" in text or "PHANTOM" in text for text in texts)


def test_a_series_and_what_it_is_made_of_print_short_and_without_names(tmp_path):
    write_series(np.zeros((3, 16, 12)), stack_geometry((3, 16, 12)), tmp_path / "CT")
    series = read_series(tmp_path / "CT")
    assert repr(series) == f"Series(CT, 3 slices of 16 x 12, {series.series_instance_uid})" == str(series)
    found = find_series(tmp_path / "CT")
    for thing in (series, found, *found.series.values(), *series.records):
        assert "PHANTOM" not in repr(thing) + str(thing)
