"""The commands as Python functions: found on the package, told apart by keywords, printed in a few lines."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

import medseg
from medseg.dicom import read_series, write_rtstruct, write_seg
from medseg.errors import InputError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series


@pytest.fixture
def set_on_series(tmp_path):
    """A folder with CT/ and RS.dcm, whose ROIs are Marker and Foot."""
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT")
    masks = {name: phantom.masks[name] for name in ("Marker", "Foot")}
    write_rtstruct(masks, read_series(tmp_path / "CT"), tmp_path / "RS.dcm")
    return tmp_path


def test_the_package_alone_loads_neither_torch_nor_pydicom():
    script = (
        "import sys, medseg; dir(medseg); print(sorted({'torch', 'pydicom', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", medseg.PUBLIC)
def test_every_public_name_is_a_function_with_a_docstring(name):
    function = getattr(medseg, name)
    assert inspect.isfunction(function) and len(inspect.getdoc(function).splitlines()) > 2
    assert name in dir(medseg)


def test_a_name_that_is_not_public_says_which_are():
    with pytest.raises(AttributeError, match="segmentation.*read_series"):
        _ = medseg.segmentation


def test_a_structure_set_becomes_masks_that_print_as_names(set_on_series):
    series = medseg.read_series(set_on_series / "CT")
    masks = medseg.read_rtstruct(set_on_series / "RS.dcm", series)
    shape = " x ".join(map(str, series.geometry.shape))
    assert repr(masks) == f"2 structures on {shape}: Marker, Foot"
    assert masks["Marker"].any() and masks["Marker"].dtype == bool


def test_a_conversion_takes_texts_and_prints_volumes(set_on_series):
    record = medseg.convert(
        str(set_on_series / "RS.dcm"), str(set_on_series / "masks"), str(set_on_series / "CT"), rois=("Foot",)
    )
    assert (set_on_series / "masks" / "Foot.nii.gz").is_file()
    cc = record["structures"][0]["volume_cc"]
    assert repr(record).splitlines()[1:] == [f"  Foot: {cc:.2f} cc"]


def test_a_set_compared_with_itself_agrees_and_prints_a_line_per_structure(set_on_series):
    path = set_on_series / "RS.dcm"
    comparison = medseg.compare(path, path, set_on_series / "CT", tolerance_mm=1.0)
    assert [row.dsc for row in comparison.agreements] == [1.0, 1.0]
    lines = repr(comparison).splitlines()
    assert len(lines) == 3 and "surface DSC 1.000 at 1 mm, HD95 0.00 mm" in lines[1]


def test_an_unknown_option_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(TypeError, match="'format'; expected some of formats, device"):
        medseg.segment(tmp_path, "mm_gtv", tmp_path / "out", format="rtstruct")
    with pytest.raises(TypeError, match="'reference'; expected some of rois"):
        medseg.convert("RS.dcm", "masks", reference="CT")


def test_a_cohort_record_prints_counts_and_reasons():
    from medseg.cli.python import Record

    done = {"case": "a", "status": "done", "folder": "out/a"}
    failed = {"case": "b", "status": "failed", "error": "one slice is missing", "folder": "out/b"}
    assert repr(Record(cases=[done, failed])).splitlines() == [
        "2 cases: 1 done, 1 failed",
        "  a: done: out/a",
        "  b: failed: one slice is missing",
    ]


@pytest.mark.parametrize("write", (write_rtstruct, write_seg))
def test_a_file_that_is_there_is_replaced_only_when_that_is_said(write, set_on_series):
    series = medseg.read_series(set_on_series / "CT")
    masks = {"Box": np.zeros(series.geometry.shape, bool)}
    masks["Box"][1:3, 4:8, 4:8] = True
    out = set_on_series / "mine.dcm"
    out.write_bytes(b"hours of work")
    with pytest.raises(InputError, match="mine.dcm: exists and is left as it is.*`overwrite`"):
        write(masks, series, out)
    assert out.read_bytes() == b"hours of work"
    write(masks, series, out, overwrite=True)
    assert out.read_bytes()[128:132] == b"DICM"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("segment", {"formats": "rtstruct"}),
        ("segment", {"allow": "missing_slice"}),
        ("convert", {"rois": "GTV"}),
        ("compare", {"pairs": "GTV=GTV"}),
    ],
)
def test_one_text_where_several_are_taken_is_not_taken_apart_into_letters(name, options):
    with pytest.raises(TypeError, match="expected several texts, as in"):
        getattr(medseg, name)("a", "b", "c", **options)
    with pytest.raises(TypeError, match="expected several names, as in"):
        medseg.read_series("a", allow="missing_slice")


def test_an_empty_path_is_not_the_current_folder_in_python_either():
    for call in (
        lambda: medseg.segment("", "mm_gtv", "out"),
        lambda: medseg.convert("RS.dcm", "", "CT"),
        lambda: medseg.compare("a", "b", ""),
    ):
        with pytest.raises(InputError, match="a path is empty"):
            call()


def test_a_folder_where_a_series_is_taken_is_answered_with_how_to_get_one(set_on_series):
    mask = np.zeros((3, 4, 4), bool)
    for call in (
        lambda: medseg.read_rtstruct(set_on_series / "RS.dcm", set_on_series / "CT"),
        lambda: medseg.read_rtstruct(medseg.read_series(set_on_series / "CT"), set_on_series / "RS.dcm"),
        lambda: medseg.write_rtstruct({"a": mask}, set_on_series / "CT", set_on_series / "new.dcm"),
    ):
        with pytest.raises(TypeError, match=r"where a Series is expected; read_series\(folder\)"):
            call()
    assert not (set_on_series / "new.dcm").exists()
