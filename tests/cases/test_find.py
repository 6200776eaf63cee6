"""What a user points at becomes a list of cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.cases.find import find_cases, unreadable_notes
from medseg.cases.volume import open_case
from medseg.dicom import find_series
from medseg.dicom.images.scan import FileNote, Found
from medseg.errors import InputError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series


def test_one_series_of_a_folder_of_several_is_named_by_its_uid(tmp_path):
    for number in (1, 2):
        geometry = stack_geometry((4, 8, 8 + number))
        write_series(chiral_phantom(geometry).volume_hu, geometry, tmp_path / "CT" / str(number), seed=number)
    first, second = sorted(find_series(tmp_path / "CT").series)
    assert len(find_cases(tmp_path / "CT", "CT")[0]) == 2
    widths = set()
    for uid in (first, second):
        cases, notes = find_cases(Path(f"{tmp_path / 'CT'}#{uid}"), "CT")
        assert [name for name, _ in cases] == ["CT"] and notes == []
        case = open_case(cases[0][1])
        assert case.series.series_instance_uid == uid
        widths.add(case.shape[2])
    assert widths == {9, 10}
    with pytest.raises(InputError, match="no series 1.2.3 in it"):
        find_cases(Path(f"{tmp_path / 'CT'}#1.2.3"), "CT")
    with pytest.raises(InputError, match="contours MR"):
        find_cases(Path(f"{tmp_path / 'CT'}#{first}"), "MR")


def test_the_unreadable_slices_of_a_folder_are_one_line_and_each_other_reason_or_folder_its_own():
    said = [("PT/1", "cut off"), ("PT/2", "cut off"), ("PT/3", "no pixels"), ("CT/1", "cut off")]
    broken = [FileNote(Path(name), why) for name, why in said]
    assert unreadable_notes(Found("", broken=broken)) == [
        "2 files of PT, e.g. 1: cut off",
        "PT/3: no pixels",
        "CT/1: cut off",
    ]
    assert unreadable_notes(Found("")) == []
