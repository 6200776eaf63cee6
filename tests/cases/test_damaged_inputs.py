"""Faults of an input file are an InputError that names it, never another exception."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from medseg.audit.evidence import Evidence, load_evidence, save_evidence
from medseg.bundles.datalist import check_datalist
from medseg.bundles.record import case_line
from medseg.cases.mask_sources import modality, read_index
from medseg.cases.nifti import read_mask, write_mask
from medseg.errors import InputError
from medseg.phantoms.series import stack_geometry
from medseg.structures.aliases import load_aliases

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("structures.json", lambda path: read_index(path.parent)),
        ("datalist.json", lambda path: check_datalist(path, path.parent)),
        ("aliases.json", load_aliases),
    ],
)
def test_json_nested_a_hundred_thousand_deep(name, read, tmp_path):
    (tmp_path / name).write_text(DEEP)
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)


def test_dicom_nested_twenty_thousand_deep_has_no_modality(tmp_path):
    item = b"\x08\x00\x15\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    (tmp_path / "deep.dcm").write_bytes(b"\0" * 128 + b"DICM" + item * 20_000)
    assert modality(tmp_path / "deep.dcm") == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_nifti_whose_affine_is_no_place(value, tmp_path):
    geometry = stack_geometry((6, 20, 24))
    path = write_mask(np.ones(geometry.shape, bool), geometry, tmp_path / "m.nii")
    content = bytearray(path.read_bytes())
    content[280:328] = struct.pack("<12f", *[value] * 12)  # srow_x, srow_y, srow_z
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.nii: its affine holds (nan|inf|1e\+30)"):
        read_mask(path, geometry)


@pytest.mark.parametrize("kept", [0, 40, 300, -1])
def test_an_audits_prediction_that_is_cut_off(kept, tmp_path):
    label = np.ones((1, 4, 5, 6), dtype=bool)
    path = save_evidence(
        Evidence(
            case="c",
            names=("G",),
            label=label,
            known=np.ones(1, dtype=bool),
            probability=label.astype(np.float32),
            image=None,
            spacing=(1.0, 1.0, 1.0),
            unit="mm",
            affine_ras=np.eye(4),
            image_source="a",
            label_source="b",
        ),
        tmp_path,
    )
    assert load_evidence(path).case == "c"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=path.name):
        load_evidence(path)


def test_the_line_of_a_done_case_whose_record_lacks_its_summary():
    line = case_line({"case": "A", "status": "skipped", "folder": "x"})
    assert line == "A: skipped: its run.json has no summary -> x"
