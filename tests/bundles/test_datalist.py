"""Datalists are checked before a training starts: files, keys, and no patient on both sides."""

from __future__ import annotations

import json

import pytest

from medseg.bundles.datalist import check_datalist
from medseg.cli.main import main
from medseg.errors import InputError


def listed(tmp_path, training, validation):
    for case in (*training, *validation):
        for key in ("image", "label"):
            (tmp_path / case[key]).write_bytes(b"")
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"training": training, "validation": validation}))
    return path


def case(name, **more):
    return {"image": f"{name}_ct.nii.gz", "label": f"{name}_gtv.nii.gz", "case_id": name, **more}


def test_a_patient_grouped_list_whose_files_exist_is_accepted(tmp_path):
    check_datalist(listed(tmp_path, [case("A"), case("B")], [case("C")]), tmp_path)


def test_one_series_of_a_folder_is_a_file_that_exists(tmp_path):
    (tmp_path / "CT").mkdir()
    series = [case(name, image="CT#1.2.3") for name in "AB"]
    for name in "AB":
        (tmp_path / f"{name}_gtv.nii.gz").touch()
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"training": series[:1], "validation": series[1:]}))
    check_datalist(path, tmp_path)
    path.write_text(json.dumps({"training": series[:1], "validation": [case("B", image="PT#1.2.3")]}))
    with pytest.raises(InputError, match="1 files"):
        check_datalist(path, tmp_path)


def test_a_patient_on_both_sides_is_refused(tmp_path):
    with pytest.raises(InputError, match="A in training and validation"):
        check_datalist(listed(tmp_path, [case("A"), case("B")], [case("A")]), tmp_path)
    scans = listed(tmp_path, [case("scan1", patient_id="P7")], [case("scan2", patient_id="P7")])
    with pytest.raises(InputError, match="P7 in training and validation"):
        check_datalist(scans, tmp_path)


def test_a_case_that_is_listed_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="two cases of training are called 'A'"):
        check_datalist(listed(tmp_path, [case("A"), case("A")], [case("B")]), tmp_path)


def test_missing_files_keys_and_sections_are_named(tmp_path):
    path = listed(tmp_path, [case("A")], [case("B")])
    (tmp_path / "B_gtv.nii.gz").unlink()
    with pytest.raises(InputError, match="1 files of list.json are not there, the first B_gtv.nii.gz"):
        check_datalist(path, tmp_path)
    with pytest.raises(InputError, match="case 0 of training has no text under case_id"):
        check_datalist(
            listed(tmp_path, [{"image": "A_ct.nii.gz", "label": "A_gtv.nii.gz"}], [case("B")]), tmp_path
        )
    with pytest.raises(InputError, match="no list of cases 'validation'"):
        check_datalist(listed(tmp_path, [case("A")], []), tmp_path)
    path.write_text("not json")
    with pytest.raises(InputError, match="not a readable JSON datalist"):
        check_datalist(path, tmp_path)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_empty_data_folder_ends_in_one_line(command, capsys, tmp_path):
    (tmp_path / "data").mkdir()
    code = main([command, "mm_gtv", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")])
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and "are not there" in err
