"""The demo does the main job on data it makes itself: it runs here as ``make demo`` runs it."""

import pydicom
import pytest

from medseg.cli.demo import demo
from medseg.errors import InputError


def test_the_demo_contours_its_phantom_and_says_how_well(tmp_path):
    said = []
    demo(tmp_path / "out", report=said.append)
    text = "\n".join(said)
    dice = float(text.split("Dice ")[1].split(",")[0])
    assert 0.8 < dice < 1.0
    results = tmp_path / "out" / "contours" / "CT"
    made = {path.name for path in results.iterdir()}
    assert {"RS.dcm", "SEG.dcm", "GTV.nii.gz", "CTV.nii.gz", "PTV.nii.gz", "preview.png", "run.json"} <= made
    assert pydicom.dcmread(results / "RS.dcm").ApprovalStatus == "UNAPPROVED"


def test_a_demo_that_has_nowhere_to_write_says_so_before_it_begins(tmp_path):
    (tmp_path / "file").write_text("mine")
    said = []
    with pytest.raises(InputError, match="file is a file; expected a folder"):
        demo(tmp_path / "file", report=said.append)
    assert said == []
