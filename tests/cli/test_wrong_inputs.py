"""What a newcomer points a command at by mistake is called what it is, in one line."""

from __future__ import annotations

import ast
import configparser
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

import medseg.__main__
from medseg.cases.nifti import write_mask
from medseg.cli.main import main
from medseg.dicom import write_rtstruct, write_seg

ROOT = Path(__file__).resolve().parents[2]
RTPLAN_CLASS_UID = "1.2.840.10008.5.1.4.1.1.481.5"


@pytest.fixture(scope="module")
def files(folder, series, phantom, tmp_path_factory) -> Path:
    """A folder with RS.dcm, SEG.dcm and RP.dcm of the phantom."""
    out = tmp_path_factory.mktemp("objects")
    masks = {"GTV": phantom.volume_hu > 600}
    write_rtstruct(masks, series, out / "RS.dcm")
    write_seg(masks, series, out / "SEG.dcm")
    plan = pydicom.dcmread(out / "RS.dcm")
    plan.SOPClassUID = plan.file_meta.MediaStorageSOPClassUID = RTPLAN_CLASS_UID
    plan.Modality = "RTPLAN"
    plan.save_as(out / "RP.dcm")
    return out


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """A function that runs a command, which has to be refused in one line and leave nothing: that line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main([str(word) for word in arguments]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and sorted(tmp_path.rglob("*")) == before, errors
        return errors[0]

    return run


@pytest.fixture
def forbid(monkeypatch):
    """A function that lets the system refuse to open a file or to list a folder, whoever runs the tests."""

    def forbidden(path: Path) -> None:
        for owner, name in (("builtins", "open"), ("os", "scandir")):
            real = getattr(__import__(owner), name)

            def refusing(what=".", *arguments, real=real, **options):
                if str(what) == str(path):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(what))
                return real(what, *arguments, **options)

            monkeypatch.setattr(f"{owner}.{name}", refusing)

    return forbidden


NO_PERMISSION = "cannot be read (Permission denied)"


def test_a_file_without_permission_is_not_called_damaged(files, folder, refused, forbid, capsys):
    path = files / "RS.dcm"
    forbid(path)
    for arguments in (
        ("convert", path, "masks", "--reference", folder),
        ("compare", path, path, "--reference", folder),
        ("margin", path, "out.dcm", "--reference", folder, "--from", "GTV", "--to", "PTV", "--mm", 5),
        ("segment", path, "--bundle", "ct_head_neck", "-o", "out"),
        ("segment", path, "--bundle", "cxr_anatomy", "-o", "out"),
    ):
        line = refused(*arguments)
        assert NO_PERMISSION in line and "damaged" not in line and "export" not in line
    assert main(["inspect", str(path)]) == 0
    assert f"! {path}: {NO_PERMISSION}" in capsys.readouterr().out


def test_a_slice_and_a_folder_without_permission_are_no_hole_without_a_word(
    folder, refused, forbid, capsys, tmp_path
):
    unseen = sorted(folder.iterdir())[4]
    forbid(unseen)
    line = refused("convert", folder, tmp_path / "out.nii.gz")
    assert f"could not be read and may be a slice: {unseen.name}: {NO_PERMISSION}." in line
    assert line.endswith("To accept it: --allow broken_file and --allow missing_slice.")
    forbid(folder)
    line = refused("segment", folder, "--bundle", "ct_head_neck", "-o", tmp_path / "out")
    assert "the folder cannot be read (Permission denied)" in line
    line = refused("segment", folder, "--bundle", "cxr_anatomy", "-o", tmp_path / "out")
    assert "the folder cannot be read (Permission denied)" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not an image at all", "neither the DICM mark"), (b"", "it is empty (0 bytes)")],
    ids=["text", "empty"],
)
@pytest.mark.parametrize("name", ["slice.dcm", "slice"])
def test_a_file_that_is_no_dicom_is_not_called_damaged(content, words, name, folder, files, refused):
    path = files / name
    path.write_bytes(content)
    for arguments in (
        ("convert", path, "masks", "--reference", folder),
        ("convert", path, "out.nii.gz"),
        ("compare", files / "RS.dcm", path, "--reference", folder),
    ):
        line = refused(*arguments)
        assert f"{name}: no DICOM file, {words}" in line and "damaged" not in line
    line = refused("segment", path, "--bundle", "ct_head_neck", "-o", "out")
    assert "no CT series and no NIfTI file found; it is" in line and "damaged" not in line
    path.unlink()


def test_a_device_is_called_a_device(folder, files, refused):
    for arguments in (
        ("inspect", os.devnull),
        ("convert", os.devnull, "masks", "--reference", folder),
        ("compare", files / "RS.dcm", os.devnull, "--reference", folder),
        ("segment", os.devnull, "--bundle", "ct_head_neck", "-o", "out"),
        ("segment", os.devnull, "--bundle", "cxr_anatomy", "-o", "out"),
        ("train", "ct_head_neck", "--data", os.devnull, "-o", "out"),
        ("audit", "ct_head_neck", "--data", os.devnull, "-o", "out"),
        ("score", "ct_head_neck", "--data", os.devnull, "-o", "out"),
    ):
        assert f"{os.devnull}: is a device; expected " in refused(*arguments)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("RS.dcm", "RT Structure Set (RTSTRUCT)"),
        ("SEG.dcm", "Segmentation Storage (SEG)"),
        ("RP.dcm", "RT Plan Storage (RTPLAN)"),
    ],
)
def test_what_is_no_image_is_named_with_its_modality_and_what_was_expected(name, kind, files, refused):
    line = refused("segment", files / name, "--bundle", "ct_head_neck", "-o", "out")
    assert f"{name}: no CT series and no NIfTI file found; it is: {kind}." in line
    line = refused("segment", files / name, "--bundle", "mm_gtv", "-o", "out")
    assert "no series of CT or PT or MR found" in line and kind in line


def test_inspect_says_how_a_fault_is_accepted_as_the_option(files, folder, capsys, tmp_path):
    for file in sorted(folder.iterdir())[:5] + sorted(folder.iterdir())[6:]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert main(["inspect", str(tmp_path)]) == 0
    assert "(can be accepted: --allow missing_slice)" in capsys.readouterr().out


def test_margins_beyond_the_limit_are_refused_before_anything_is_read(files, folder, refused):
    start = ("margin", files / "RS.dcm", "out.dcm", "--reference", "/nowhere", "--from", "GTV", "--to", "PTV")
    for options in (("--mm", "1e9"), ("--mm", "left=400"), ("--minus", "GTV,301"), ("--mm", "-500")):
        assert "at most 300 mm are made" in refused(*start, *options)
    line = refused("segment", folder, "--bundle", "ct_head_neck", "-o", "out", "--ptv-mm", "400")
    assert "at most 300 mm are made" in line or "ptv_margin_mm" in line


@pytest.mark.parametrize("name", ["o.txt", "scores.csv", "OUT.DCM", "case.nii.gz"])
def test_a_folder_is_not_made_under_the_name_of_a_file(name, folder, refused):
    for arguments in (
        ("segment", folder, "--bundle", "ct_head_neck"),
        ("train", "ct_head_neck", "--data", folder),
        ("demo",),
    ):
        line = refused(*arguments, "-o", name)
        assert f"{name} is named as a file; a folder is written: leave out {Path(name).suffix}" in line


def test_a_folder_with_a_dot_in_its_name_may_be_written(tmp_path):
    from medseg.files import make_folder

    for name in ("v1.2", "2026.11.26", "Doe.J"):
        make_folder(tmp_path / name)
        assert (tmp_path / name).is_dir()
    (tmp_path / "old.txt").mkdir()
    make_folder(tmp_path / "old.txt")  # somebody wanted it so


def test_a_nifti_file_beside_the_slices_does_not_make_masks_of_a_ct(
    files, folder, series, refused, tmp_path, capsys
):
    both = tmp_path / "both"
    both.mkdir()
    for file in folder.iterdir():
        (both / file.name).write_bytes(file.read_bytes())
    write_mask(np.ones(series.geometry.shape, dtype=bool), series.geometry, both / "other.nii.gz")
    for arguments in (
        ("convert", both, "out.dcm", "--reference", folder),
        ("compare", files / "RS.dcm", both, "--reference", folder),
    ):
        assert "holds images and the NIfTI file other.nii.gz beside them" in refused(*arguments)
    assert main(["convert", str(both), str(tmp_path / "ct.nii.gz")]) == 0
    assert "series to NIfTI" in capsys.readouterr().out


# ---- Ctrl-C before the command line is loaded --------------------------------------------------------------


def test_ctrl_c_while_the_command_line_is_being_loaded_is_one_line(tmp_path):
    # The first module that the command line needs presses it.
    (tmp_path / "argparse.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "medseg", "bundles"]

    def with_ctrl_c():  # which shells take from what they start in the background, and so from these tests
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, preexec_fn=with_ctrl_c
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "error: interrupted before anything was done\n"


def test_nothing_is_loaded_before_ctrl_c_is_guarded():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    script = setup["options.entry_points"]["console_scripts"].strip()
    assert script == "medseg = medseg.__main__:start" and callable(medseg.__main__.start)
    for path in (ROOT / "medseg" / "__main__.py", ROOT / "medseg" / "__init__.py"):
        on_top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import)]
        loaded_by_python_itself = {"os", "sys"}
        assert {name.name for node in on_top for name in node.names} <= loaded_by_python_itself
