"""Real structure sets of planning systems, beside volumes of other programs."""

from __future__ import annotations

import numpy as np
import pytest
from edited_sets import accepted, said
from referees import area_and_centroid, dice

from medseg.dicom import find_series, read_rtstruct, read_series, read_structure_set, write_rtstruct
from medseg.errors import GeometryError, InputError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series


def volumes_cc(masks, series):
    voxel_cc = series.geometry.voxel_volumes_cc
    return {name: float((mask.sum((1, 2)) * voxel_cc).sum()) for name, mask in masks.items()}


def test_volumes_of_a_xio_lung_plan_agree_with_plastimatch(shared_data):
    series = read_series(shared_data / "rt" / "lung1_001" / "CT")
    masks, words = said(shared_data / "rt" / "lung1_001" / "RTSTRUCT.dcm", series)
    expected = {
        "GTV-1": 155.8,
        "CTV-1": 275.0,
        "PTV-1": 590.0,
        "Spinal cord": 44.5,
        "Lung L": 2221.6,
        "Lung R": 2957.2,
        "Patient": 27587.9,
        "1,SUV_primair": 124.5,
    }
    assert set(masks) == set(expected)
    # Some of XiO's vertices lie on voxel centres to 0.001 pixel: plastimatch and medseg decide those in their
    # own ways.
    assert volumes_cc(masks, series) == pytest.approx(expected, abs=0.1, rel=1e-4)
    assert (
        "stored twice" in words and "'Isocenter 6', 'Isocenter 7'" in words and words.count("left out") == 1
    )


def test_the_ibsi_lung_tumour_agrees_with_the_distributors_own_mask(shared_data):
    import nibabel

    case = shared_data / "rt" / "ibsi1_lung_gtv"
    series = read_series(case / "dicom" / "image")
    mask = read_rtstruct(next((case / "dicom" / "mask").glob("*.dcm")), series)["GTV-1"]
    image = nibabel.load(next((case / "nifti" / "mask").glob("*.nii*")))
    reference = np.asarray(image.dataobj).transpose(2, 1, 0) > 0
    if image.affine[2, 2] < 0:
        reference = reference[::-1]
    x_flips, y_flips = image.affine[0, 0] > 0, image.affine[1, 1] > 0
    reference = reference[:, :: -1 if y_flips else 1, :: -1 if x_flips else 1]
    assert dice(mask, reference) > 0.9999
    assert volumes_cc({"GTV-1": mask}, series)["GTV-1"] == pytest.approx(358.68, abs=0.01)


@pytest.mark.parametrize(
    ("patient", "volume_cc"),
    [
        ("002", 53.3),
        ("003", 80.1),
        ("008", 27.6),
        ("019", 17.4),
        ("024", 77.6),
        ("025", 30.1),
        ("040", 400.0),
        ("050", 168.2),
    ],
)
def test_sarcoma_volumes_agree_with_plastimatch_head_first_and_feet_first(patient, volume_cc, shared_data):
    case = shared_data / "rt" / "sts" / f"STS_{patient}"
    series = read_series(case / "CT")
    masks, words = said(case / "RS.dcm", series)
    assert volumes_cc(masks, series)["GTV_Mass_CT"] == pytest.approx(volume_cc, abs=0.06)
    assert "contours name an image which is not in the series" in words


def test_keyholes_and_spikes_of_mim_keep_their_area_and_a_foreign_frame_is_refused(shared_data):
    folder = shared_data / "rt" / "mim_keyhole_phantom"
    series = read_series([path for path in folder.glob("*.dcm") if not path.name.startswith("RS")])
    expected = {"ROI-1": 6.5, "ROI-2": 6.0, "ROI-3": 5.7, "ROI-4": 11.0}
    for name in ("RS_MIM_keyhole.dcm", "RS_MIM_missing_referenced_images.dcm"):
        assert volumes_cc(read_rtstruct(folder / name, series), series) == pytest.approx(expected, abs=0.06)
    with pytest.raises(GeometryError, match="Frame of Reference"):
        read_rtstruct(folder / "RS_rt_utils.dcm", series)


def test_the_eclipse_set_has_its_own_volumes_empty_rois_and_raw_types(shared_data):
    structure_set = read_structure_set(
        shared_data / "rt" / "structure_sets" / "eclipse81_prostate" / "RS.dcm"
    )
    contours_of = {
        roi.structure.name: [contour.points_lps_mm for contour in roi.contours] for roi in structure_set.rois
    }
    planned_cc = {
        "Bladder": 116.8,
        "Femoral Head Lt": 49.2,
        "Femoral Head RT": 50.0,
        "PTV": 48.6,
        "Rectum": 30.3,
    }
    for name, volume_cc in planned_cc.items():
        gap_mm = np.diff(np.unique([points[0, 2] for points in contours_of[name]])).min()
        areas = [abs(area_and_centroid(points)[0]) for points in contours_of[name]]
        assert sum(areas) * gap_mm / 1000 == pytest.approx(volume_cc, rel=0.014), name
    assert len(structure_set.rois) == 16
    assert sum(not roi.contours for roi in structure_set.rois) == 10
    assert {roi.structure.name: roi.raw_type for roi in structure_set.rois}["Bladder"] == "AVOIDANCE"


FITTING = {
    "lung1_001/RTSTRUCT.dcm": "lung1_001/CT",
    "ibsi1_lung_gtv/dicom/mask/DCM_RS_00060.dcm": "ibsi1_lung_gtv/dicom/image",
    "mim_keyhole_phantom/RS_MIM_keyhole.dcm": "mim_keyhole_phantom/*ct*.dcm",
    "mim_keyhole_phantom/RS_MIM_missing_referenced_images.dcm": "mim_keyhole_phantom/*ct*.dcm",
    "mim_keyhole_phantom/RS_rt_utils.dcm": "Frame of Reference",
    "structure_sets/dicompyler_breast/rtss.dcm": "structure_sets/dicompyler_breast",
    "structure_sets/eclipse136_headneck/RS*.dcm": "none of its 525 contours",
    "structure_sets/eclipse81_prostate/RS.dcm": "no CT, MR or PET series",
}
"""Every structure set of the real data without those of sts: the images that it was drawn on, or why it is
refused."""


def test_every_real_structure_set_is_read_or_refused_in_one_true_line(shared_data):
    folder = shared_data / "rt"
    known = {next(folder.glob(name)) for name in FITTING} | set(folder.glob("sts/*/RS.dcm"))
    assert set(find_series(folder).structure_sets) == known
    for name, where in FITTING.items():
        file = next(folder.glob(name))
        if "/" in where:
            images = list(folder.glob(where)) if "*" in where else folder / where
            assert any(mask.any() for mask in said(file, read_series(images))[0].values()), name
            continue
        with pytest.raises((GeometryError, InputError), match=where) as error:
            images = [path for path in file.parent.glob("*.dcm") if path != file]
            read_rtstruct(file, read_series(images))
        assert "\n" not in str(error.value)


def test_the_foreign_frame_of_an_rt_utils_file_can_be_accepted(shared_data):
    folder = shared_data / "rt" / "mim_keyhole_phantom"
    series = read_series([path for path in folder.glob("*.dcm") if not path.name.startswith("RS")])
    masks, words = accepted(folder / "RS_rt_utils.dcm", series, "frame_of_reference")
    assert masks["ROI-1"].sum() == 1443
    assert words.count("1.2.8") >= 1 and series.geometry.frame_of_reference_uid in words


def test_a_text_mode_transfer_is_called_damaged(shared_data):
    with pytest.raises(InputError, match="damaged"):
        read_structure_set(shared_data / "odd_dicom" / "malformed" / "RS_eclipse_prostate_crlf_corrupted.dcm")


def test_an_approved_set_says_so(shared_data):
    structure_set = read_structure_set(
        next((shared_data / "rt" / "structure_sets" / "dicompyler_breast").glob("*[sS]*.dcm"))
    )
    assert structure_set.approval_status == "APPROVED"


def test_masks_written_from_a_tilted_and_uneven_real_head_come_back_exactly(shared_data, tmp_path):
    series = read_series(shared_data / "odd_dicom" / "gantry_tilt" / "GE_tilt_variable_spacing")
    head = series.volume() > 0
    out = write_rtstruct({"Brain": head}, series, tmp_path / "rs.dcm")
    assert np.array_equal(read_rtstruct(out, series)["Brain"], head)


def test_the_phantom_of_the_writer_comes_back_from_its_file(tmp_path):
    phantom = chiral_phantom(stack_geometry((12, 40, 44), gaps_mm=np.linspace(2, 5, 11), tilt_degrees=10))
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct")
    series = read_series(tmp_path / "ct")
    read = read_rtstruct(write_rtstruct(phantom.masks, series, tmp_path / "rs.dcm"), series)
    assert all(np.array_equal(read[name], phantom.masks[name]) for name in phantom.masks)
