"""The demo does the main job on data it makes itself: it runs here as ``make demo`` runs it."""

import numpy as np
import pydicom
import pytest
from patient_series import CENTRE_LPS_MM, RADIUS_MM, ball, ct_geometry, write_patient

from medseg.cli.demo import demo
from medseg.errors import BundleError, InputError
from medseg.phantoms.thigh import Phantom


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


@pytest.fixture
def small_patient(monkeypatch):
    """The demo's phantom of three series, made small: a ball instead of a thigh."""

    def write(folder):
        geometry = ct_geometry()
        write_patient(folder)
        box = np.array([CENTRE_LPS_MM - RADIUS_MM - 6, CENTRE_LPS_MM + RADIUS_MM + 6])
        return Phantom(folder / "CT", folder / "truth", {"GTV": ball(geometry)}, geometry, box)

    monkeypatch.setattr("medseg.cli.demo.write_patient_phantom", write)


@pytest.mark.usefixtures("small_patient")
def test_the_demo_of_a_bundle_of_several_series_makes_them_and_finds_the_tumour(tmp_path, several_bundle):
    said = []
    demo(tmp_path / "out", said.append, name=str(several_bundle))
    text = "\n".join(said)
    assert "1. A CT, PET and MR phantom" in text and "(from CT + PT + MR)" in text
    # The bundle cuts the PET, whose voxels are 4 mm, at half of the ball's uptake.
    assert float(text.split("Dice ")[1].split(",")[0]) > 0.9
    assert (tmp_path / "out" / "contours" / "phantom" / "RS.dcm").is_file()


def test_a_demo_that_has_nowhere_to_write_says_so_before_it_begins(tmp_path):
    (tmp_path / "file").write_text("mine")
    said = []
    with pytest.raises(InputError, match="file is a file; expected a folder"):
        demo(tmp_path / "file", report=said.append)
    assert said == []


def test_a_demo_of_a_bundle_that_contours_no_gtv_on_ct_is_refused_before_it_begins(tmp_path):
    for name in ("cxr_anatomy", "ct_head_neck"):
        with pytest.raises(BundleError, match=f"bundle {name} contours no GTV on CT"):
            demo(tmp_path / "out", print, name=name)
    assert not (tmp_path / "out").exists()
