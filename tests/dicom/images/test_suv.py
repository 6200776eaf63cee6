"""SUV by body weight against numbers worked out by hand, and the tags without which there is none."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medseg.dicom import read_series
from medseg.dicom.images.suv import suv_factors
from medseg.errors import InputError
from medseg.phantoms.series import stack_geometry, write_series

HALF_LIFE_S = 6586.2
SCAN = {"SeriesDate": "20260101", "SeriesTime": "120000", "AcquisitionDate": "20260101"}


def injection(**changes) -> list[Dataset]:
    """350 MBq of F-18, one half life (109 min 46.2 s) before noon of the first of January."""
    item = Dataset()
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = "350000000", str(HALF_LIFE_S)
    item.RadiopharmaceuticalStartDateTime = "20260101101013.800"
    item.RadiopharmaceuticalStartTime = "101013.800"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-111A1", "SRT", "18F"
    item.RadionuclideCodeSequence = [code]
    for keyword, value in changes.items():
        if value is None:
            delattr(item, keyword)
        else:
            setattr(item, keyword, value)
    return [item]


def pet(folder, *, tracer=None, **header):
    """A PET series of three slices of 5000 Bq/ml of a patient of 70 kg, as read."""
    geometry = stack_geometry((3, 4, 5), frame_of_reference_uid="1.2.3")
    header = {"PatientWeight": "70", "AcquisitionTime": "120000", **SCAN, **header}
    tracer = injection() if tracer is None else tracer
    volume = np.full(geometry.shape, 5000.0)
    write_series(
        volume, geometry, folder, modality="PT", RadiopharmaceuticalInformationSequence=tracer, **header
    )
    return read_series(folder)


def suv(series) -> np.ndarray:
    return suv_factors(series).suv(series.volume())[:, 0, 0]


def refusal(series) -> str:
    with pytest.raises(InputError) as caught:
        suv_factors(series)
    message = str(caught.value)
    assert message.startswith(f"PET series {series.series_instance_uid}: no SUV: ") and "\n" not in message
    return message


# 5000 Bq/ml x 70000 g / 350 MBq = 1; half of the dose is left after a half life: 2.


def test_becquerel_corrected_to_the_scan_use_the_dose_that_was_left(tmp_path):
    series = pet(tmp_path)
    assert suv(series) == pytest.approx([2.0] * 3, rel=1e-5)
    assert "109.8 min after injection" in suv_factors(series).how


def test_becquerel_corrected_to_the_injection_use_the_whole_dose_and_no_time(tmp_path):
    tracer = injection(RadiopharmaceuticalStartDateTime=None, RadiopharmaceuticalStartTime=None)
    assert suv(pet(tmp_path, tracer=tracer, DecayCorrection="ADMIN")) == pytest.approx([1.0] * 3)


def test_becquerel_that_are_not_corrected_use_each_slice_s_own_time_and_frame(tmp_path):
    # The second slice one half life later than the first, the third two. The mean of a frame that lasts a
    # half life is 1 / (2 ln 2) = 0.7213 of its beginning.
    times = ("120000", "134946.2", "153932.4")
    series = pet(
        tmp_path,
        DecayCorrection="NONE",
        CorrectedImage=["ATTN"],
        AcquisitionTime=lambda index: times[index],
        ActualFrameDuration="6586200",
    )
    assert suv(series) == pytest.approx(np.array([2.0, 4.0, 8.0]) / 0.721348, rel=1e-5)


def test_a_time_without_a_date_is_that_of_the_day_before_when_the_scan_is_past_midnight(tmp_path):
    # Injected at 23:10:13.8, scanned at 1:00 the next day: one half life.
    tracer = injection(RadiopharmaceuticalStartDateTime=None, RadiopharmaceuticalStartTime="231013.8")
    when = {"SeriesDate": "20260102", "AcquisitionDate": "20260102"}
    series = pet(tmp_path, tracer=tracer, **when, SeriesTime="010000", AcquisitionTime="010000")
    assert suv(series) == pytest.approx([2.0] * 3, rel=1e-5)


def test_the_dated_time_of_injection_is_preferred_over_midnight(tmp_path):
    tracer = injection(
        RadiopharmaceuticalStartDateTime="20260101231013.8", RadiopharmaceuticalStartTime="231013.8"
    )
    when = {"SeriesDate": "20260102", "AcquisitionDate": "20260102"}
    series = pet(tmp_path, tracer=tracer, **when, SeriesTime="010000", AcquisitionTime="010000")
    assert suv(series) == pytest.approx([2.0] * 3, rel=1e-5)


def test_a_series_made_after_the_scan_goes_by_its_earliest_acquisition(tmp_path):
    times = ("120500", "120000", "121000")
    series = pet(tmp_path, SeriesTime="170000", AcquisitionTime=lambda i: times[i], FrameReferenceTime=None)
    assert suv(series) == pytest.approx([2.0] * 3, rel=1e-5)


def test_a_series_made_after_the_scan_goes_by_its_frame_reference_time(tmp_path):
    # A frame of a half life has its mean rate after ln(2 ln 2) / ln 2 = 0.47123 half lives (3103.6 s): the
    # scan that the reference time counts from began then, less 3103.6 s: at noon.
    series = pet(tmp_path, SeriesTime="170000", ActualFrameDuration="6586200", FrameReferenceTime="3103632")
    assert suv(series) == pytest.approx([2.0] * 3, rel=1e-4)


def test_a_ge_series_made_after_the_scan_goes_by_its_private_time(tmp_path):
    series = pet(tmp_path, SeriesTime="170000", AcquisitionTime="130000")
    for path in series.files:
        dataset = pydicom.dcmread(path)
        dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20260101120000.00")
        dataset.save_as(path)
    assert suv(read_series(tmp_path)) == pytest.approx([2.0] * 3, rel=1e-5)


def test_g_per_ml_are_taken_as_stored_whatever_else_the_header_says(tmp_path):
    series = pet(tmp_path, tracer=[], Units="GML", PatientWeight=None)
    assert suv(series) == pytest.approx([5000.0] * 3)
    assert "SUVType LBM: not by body weight" in refusal(pet(tmp_path, Units="GML", SUVType="LBM"))


def test_counts_need_the_private_factor_of_philips(tmp_path):
    series = pet(tmp_path, Units="CNTS")
    assert "CNTS without Philips' private factor (7053,1000) or (7053,1009)" in refusal(series)

    def with_private(offset, value):
        for path in series.files:
            dataset = pydicom.dcmread(path)
            block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
            block.add_new(offset, "DS", value)
            dataset.save_as(path)
        return read_series(tmp_path)

    # 0.0004 of 5000 counts is an SUV of 2; 3 Bq/ml a count makes three times the becquerel.
    assert suv(with_private(0x09, "3")) == pytest.approx([6.0] * 3, rel=1e-5)
    assert suv(with_private(0x00, "0")) == pytest.approx([6.0] * 3, rel=1e-5)
    assert suv(with_private(0x00, "0.0004")) == pytest.approx([2.0] * 3, rel=1e-5)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"PatientWeight": None}, "no PatientWeight"),
        ({"PatientWeight": "0"}, "PatientWeight is 0"),
        ({"PatientWeight": "70000"}, "PatientWeight is 70000; expected 0.2 to 500 kg"),
        ({"PatientWeight": lambda i: str(70 + i)}, "PatientWeight differs between slices: 70, 71, 72"),
        ({"Units": None}, "no Units"),
        ({"Units": "PROPCNTS"}, "Units PROPCNTS; expected BQML, GML or CNTS"),
        ({"CorrectedImage": ["DECY"]}, "CorrectedImage without ATTN"),
        ({"DecayCorrection": None}, "no DecayCorrection"),
        ({"CorrectedImage": ["ATTN"]}, "DecayCorrection START contradicts CorrectedImage without DECY"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection NONE contradicts CorrectedImage with DECY"),
        ({"AcquisitionTime": None}, "no AcquisitionTime"),
        ({"SeriesDate": None}, "no SeriesDate"),
        ({"SeriesTime": "25:71"}, "SeriesTime '25:71' is no date or time"),
        ({"tracer": []}, "0 items in RadiopharmaceuticalInformationSequence"),
        ({"tracer": injection() * 2}, "2 items in RadiopharmaceuticalInformationSequence"),
    ],
)
def test_a_header_that_gives_no_suv_is_refused_by_its_keyword(tmp_path, header, words):
    assert words in refusal(pet(tmp_path, **header))


@pytest.mark.parametrize(
    ("tracer", "words"),
    [
        ({"RadionuclideTotalDose": None}, "no RadionuclideTotalDose"),
        ({"RadionuclideTotalDose": "350"}, "RadionuclideTotalDose is 350; expected 10000 to 1e+11 becquerel"),
        ({"RadionuclideHalfLife": "109.8"}, "RadionuclideHalfLife 109.8 s contradicts"),
        ({"RadionuclideHalfLife": None}, "no RadionuclideHalfLife"),
        (
            {"RadiopharmaceuticalStartDateTime": "20260101130000", "RadiopharmaceuticalStartTime": "130000"},
            "RadiopharmaceuticalStartDateTime lies 60 min after the scan",
        ),
        (
            {"RadiopharmaceuticalStartTime": "090000"},
            "contradicts RadiopharmaceuticalStartTime 090000",
        ),
        (
            {"RadiopharmaceuticalStartDateTime": "20251231101013.8"},
            "RadiopharmaceuticalStartDateTime lies 14.1 half lives before the scan",
        ),
        (
            {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": None},
            "no RadiopharmaceuticalStartDateTime and no RadiopharmaceuticalStartTime",
        ),
        (
            # A clock that is 20 minutes ahead makes the injection one of the day before.
            {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "122000"},
            "RadiopharmaceuticalStartTime lies 12.9 half lives before the scan",
        ),
    ],
)
def test_an_injection_that_gives_no_suv_is_refused_by_its_keyword(tmp_path, tracer, words):
    assert words in refusal(pet(tmp_path, tracer=injection(**tracer)))


def test_a_zone_of_time_must_be_the_header_s_own(tmp_path):
    tracer = injection(RadiopharmaceuticalStartDateTime="20260101101013.800+0100")
    assert suv(pet(tmp_path, tracer=tracer, TimezoneOffsetFromUTC="+0100")) == pytest.approx([2.0] * 3)
    assert "contradicts TimezoneOffsetFromUTC +0000" in refusal(
        pet(tmp_path, tracer=tracer, TimezoneOffsetFromUTC="+0000")
    )


def test_a_series_of_another_modality_has_no_suv(tmp_path):
    geometry = stack_geometry((3, 4, 5))
    write_series(np.zeros(geometry.shape), geometry, tmp_path, modality="MR")
    assert "Modality MR; expected PT" in refusal(read_series(tmp_path))


@pytest.mark.parametrize("patient", ["STS_002", "STS_024"])
def test_real_pet_in_g_per_ml_equals_its_distributor_s_suv(shared_data, patient):
    import nibabel

    folder = shared_data / "training" / "sts_pet"
    series = read_series(folder / "dicom" / patient)
    expected = nibabel.load(folder / patient / "pet_suv.nii.gz")
    assert np.allclose(series.geometry.affine_ras, expected.affine, atol=1e-3)
    found = suv_factors(series).suv(series.volume()).transpose(2, 1, 0)
    assert np.abs(found - np.asarray(expected.dataobj)).max() <= 6e-4  # written in steps of 0.001


@pytest.mark.parametrize("patient", ["STS_002", "STS_024"])
def test_real_mr_is_read_where_its_nifti_lies(shared_data, patient):
    import nibabel

    folder = shared_data / "training" / "sts_mr"
    series = read_series(folder / "dicom" / patient)
    expected = nibabel.load(folder / patient / "mr_t1.nii.gz")
    assert np.allclose(series.geometry.affine_ras, expected.affine, atol=1e-3)
    found = np.minimum(series.volume().transpose(2, 1, 0), 2550)
    assert np.abs(found - np.asarray(expected.dataobj)).max() <= 5.01  # in steps of 10
