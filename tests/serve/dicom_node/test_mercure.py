"""mercure starts medseg with two folders and a task, and finds DICOM results or a line that says why not."""

from __future__ import annotations

import json

import pydicom
import pytest
from chiral_cases import chiral_series

from medseg.errors import InputError, MedsegError
from medseg.serve.dicom_node.mercure import main, run_module


@pytest.fixture
def task(tmp_path):
    """A function that writes the task with these settings; returns (in, out)."""
    chiral_series(tmp_path / "ct")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for path in (tmp_path / "ct").iterdir():  # mercure's names
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        name = f"{dataset.SeriesInstanceUID}#{dataset.SOPInstanceUID}"
        path.rename(tmp_path / "in" / f"{name}.dcm")
        (tmp_path / "in" / f"{name}.tags").write_text("{}")

    def write(settings):
        content = {"id": "1", "info": {}, "process": {"module_name": "medseg", "settings": settings}}
        (tmp_path / "in" / "task.json").write_text(json.dumps(content))
        return tmp_path / "in", tmp_path / "out"

    return write


def test_a_task_gives_a_structure_set_on_its_own_series(bright_bundle, task, monkeypatch):
    source, out = task({"bundle": str(bright_bundle), "formats": ["rtstruct", "seg"]})
    monkeypatch.setenv("MERCURE_IN_DIR", str(source))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(out))
    assert main() == 0
    assert sorted(path.name for path in out.iterdir()) == ["1_RS.dcm", "1_SEG.dcm", "result.json"]
    series = {path.name.split("#")[0] for path in source.glob("*.dcm")}
    frame = pydicom.dcmread(out / "1_RS.dcm").ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    assert {row.SeriesInstanceUID for row in study.RTReferencedSeriesSequence} == series
    assert json.loads((out / "result.json").read_text())["cases"][0]["status"] == "done"


def test_settings_that_cannot_be_meant_are_refused(task, tmp_path):
    for settings, words in (
        ({}, "name no `bundle`"),
        ({"bundle": "ct_head_neck", "format": ["seg"]}, "unknown setting 'format'"),
        ({"bundle": "ct_head_neck", "formats": "seg"}, "expected a list"),
        ([], "name no `bundle`"),
    ):
        with pytest.raises(InputError, match=words):
            run_module(*task(settings))
    (tmp_path / "in" / "task.json").unlink()
    with pytest.raises(InputError, match="no settings under process/settings"):
        run_module(tmp_path / "in", tmp_path / "out")


def test_a_case_that_fails_fails_the_task_with_its_reason(bright_bundle, task):
    source, out = task({"bundle": str(bright_bundle)})
    sorted(source.glob("*.dcm"))[12].unlink()
    with pytest.raises(MedsegError, match="missing"):
        run_module(source, out)
    assert json.loads((out / "result.json").read_text())["cases"][0]["status"] == "failed"
    assert list(out.glob("*.dcm")) == []


def test_without_mercures_folders_the_command_says_so(monkeypatch, capsys):
    monkeypatch.delenv("MERCURE_IN_DIR", raising=False)
    assert main() == 2
    assert capsys.readouterr().err == "error: MERCURE_IN_DIR is not set; mercure sets it for its modules.\n"
