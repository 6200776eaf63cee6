"""The index finds what a scan finds and opens only what is new or changed."""

from __future__ import annotations

import os

import numpy as np
import pytest
from patient_series import write_patient

from medseg.bundles.many.index import Index
from medseg.cases.find import series_sources
from medseg.cases.patients import Wanted, find_patients
from medseg.dicom import find_series
from medseg.dicom.together import ends_lps_mm

MODALITIES = {"image": "CT", "pt": "PT", "mr": "MR"}


@pytest.fixture
def archive(tmp_path):
    """Two patients of three series and a registration each, a text and a damaged file: 195 files."""
    for number in (1, 2):
        write_patient(tmp_path / "in" / f"p{number}", seed=number, frame=f"1.2.826.{number}")
    (tmp_path / "in" / "notes.txt").write_text("no DICOM")
    whole = sorted((tmp_path / "in" / "p1" / "CT").iterdir())[0].read_bytes()
    (tmp_path / "in" / "p1" / "half.dcm").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def same(found, scanned):
    assert series_sources(found) == series_sources(scanned)
    for kind in ("structure_sets", "registrations", "ignored", "broken"):
        assert getattr(found, kind) == getattr(scanned, kind), kind
    for uid, files in scanned.series.items():
        assert np.array_equal(ends_lps_mm(found.series[uid]), ends_lps_mm(files))
        assert [record.path for record in found.series[uid].records] == [r.path for r in files.records]
        assert found.series[uid].patient_id == files.patient_id and str(found.series[uid]) == str(files)


def test_it_finds_what_a_scan_finds_at_first_and_again(archive):
    index, scanned = Index(archive / "index.sqlite"), find_series(archive / "in")
    same(index.scan(archive / "in"), scanned)
    everything = sum(path.is_file() for path in (archive / "in").rglob("*"))
    assert index.opened == everything > 100
    again = Index(archive / "index.sqlite")
    same(again.scan(archive / "in"), scanned)
    assert again.opened == 0


def test_only_what_is_new_or_changed_is_opened_and_what_is_gone_is_forgotten(archive):
    index = Index(archive / "index.sqlite")
    index.scan(archive / "in")
    write_patient(archive / "in" / "p3", seed=3)
    first, second, *_ = sorted((archive / "in" / "p1" / "CT").iterdir())
    first.unlink()
    os.utime(second, (1, 1))
    found = index.scan(archive / "in")
    assert index.opened == 1 + sum(path.is_file() for path in (archive / "in" / "p3").rglob("*"))
    same(found, find_series(archive / "in"))


def test_patients_of_several_series_are_found_through_it(archive):
    index, wanted = Index(archive / "index.sqlite"), Wanted(MODALITIES)
    index.scan(archive / "in")
    assert find_patients(archive / "in", wanted, scan=index.scan) == find_patients(archive / "in", wanted)


def test_nothing_of_a_patient_is_written_into_it(archive):
    index = Index(archive / "index.sqlite")
    (files, *_) = index.scan(archive / "in").series.values()
    content = b"".join(path.read_bytes() for path in archive.glob("index.sqlite*"))
    assert files.patient_id and files.patient_id.encode() not in content


def test_a_folder_whose_name_another_ones_begins_with_keeps_its_rows(archive):
    index = Index(archive / "index.sqlite")
    (archive / "in").rename(archive / "a")
    write_patient(archive / "ab", seed=9)
    index.scan(archive / "ab")
    index.scan(archive / "a")
    index.scan(archive / "ab")
    assert index.opened == 0
