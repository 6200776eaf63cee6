"""DICOM Segmentations: every voxel at its place, judged from the file's own attributes and by independent
readers."""

from __future__ import annotations

import subprocess
import warnings

import numpy as np
import pydicom
import pytest

from medseg.dicom import read_series, write_seg
from medseg.errors import GeometryError, MedsegWarning, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal_turned": (0, -1, 0, 0, 0, 1),
    "oblique": (0.9397, 0.342, 0, -0.3214, 0.883, 0.342),
}


def voxel_points_lps_mm(path, label):
    """Positions (n, 3) of the voxels of one segment, from the position of each frame and the unpacked bits
    alone."""
    dataset = pydicom.dcmread(path)
    number = next(row.SegmentNumber for row in dataset.SegmentSequence if row.SegmentLabel == label)
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")[
        : np.prod(shape)
    ].reshape(shape)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_mm, column_mm = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing)
    points = []
    for frame, groups in zip(bits, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        identification = (
            groups if "SegmentIdentificationSequence" in groups else shared
        ).SegmentIdentificationSequence
        if identification[0].ReferencedSegmentNumber == number:
            position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            rows, columns = np.nonzero(frame)
            points.append(
                position
                + rows[:, None] * row_mm * orientation[3:]
                + columns[:, None] * column_mm * orientation[:3]
            )
    return np.concatenate(points)


def conformance_errors(program, path):
    result = subprocess.run(
        [program("dciodvfy"), "-new", str(path)], capture_output=True, text=True, check=False
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert any(line.startswith("Segmentation") for line in lines), lines[:3]
    return [line for line in lines if line.startswith("Error")]


@pytest.fixture(scope="module")
def phantom():
    return chiral_phantom()


@pytest.fixture(scope="module")
def series(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("ct")
    write_series(
        phantom.volume_hu, phantom.geometry, out, SpecificCharacterSet="ISO_IR 192", PatientName="Größe^Ön"
    )
    return read_series(out)


@pytest.fixture(scope="module")
def written(phantom, series, tmp_path_factory):
    masks = {
        "External": phantom.masks["Body"],
        "GTV": phantom.masks["Marker"],
        "Lung_L": phantom.masks["L"],
        "Own_Thing": phantom.masks["Foot"],
    }
    return write_seg(masks, series, tmp_path_factory.mktemp("seg") / "seg.dcm", model=("thigh", "0.1"))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_segments_of_the_chiral_phantom_lie_at_its_known_points_in_every_orientation(orientation, tmp_path):
    geometry = stack_geometry(
        (40, 64, 72),
        gaps_mm=2.0,
        pixel_spacing_mm=(1.5, 1.25),
        orientation=ORIENTATIONS[orientation],
        centre_lps_mm=(12, -34, 56),
    )
    phantom = chiral_phantom(geometry)
    write_series(phantom.volume_hu, geometry, tmp_path / "ct")
    series = read_series(tmp_path / "ct")
    out = write_seg(
        {"Marker": series.volume() > 750, "Foot": phantom.masks["Foot"]}, series, tmp_path / "seg.dcm"
    )
    for name in ("Marker", "Foot"):
        points = voxel_points_lps_mm(out, name)
        assert len(points) == phantom.masks[name].sum()
        assert np.abs(points.mean(0) - phantom.points_lps_mm[name]).max() < 0.75


@pytest.mark.parametrize(
    "stack", [{"gaps_mm": np.where(np.arange(39) < 20, 2.5, 1.25)}, {"tilt_degrees": 15}]
)
def test_uneven_and_tilted_stacks_keep_each_slice_at_its_place_and_warn(stack, tmp_path):
    phantom = chiral_phantom(stack_geometry((40, 64, 72), pixel_spacing_mm=(1.5, 1.25), **stack))
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct")
    with pytest.warns(MedsegWarning, match="uneven or tilted"):
        out = write_seg(
            {"Marker": phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "seg.dcm"
        )
    expected = np.concatenate(
        [
            phantom.geometry.points_lps_mm(index, np.argwhere(mask))
            for index, mask in enumerate(phantom.masks["Marker"])
        ]
    )
    found = voxel_points_lps_mm(out, "Marker")
    assert np.abs(found[np.lexsort(found.T)] - expected[np.lexsort(expected.T)]).max() < 1e-4


def test_dciodvfy_finds_no_error(written, program):
    assert conformance_errors(program, written) == []


def test_a_ct_without_optional_attributes_is_enough_and_stays_unchanged(phantom, program, tmp_path):
    missing = (
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyID",
        "PatientBirthDate",
        "PatientSex",
        "StudyTime",
        "PositionReferenceIndicator",
        "StudyDate",
    )
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", **dict.fromkeys(missing))
    series = read_series(tmp_path / "ct")
    out = write_seg({"Marker": phantom.masks["Marker"]}, series, tmp_path / "seg.dcm")
    assert conformance_errors(program, out) == []
    assert not any(keyword in header for header in series.headers for keyword in missing)


ODD_HEADERS = {
    "Japanese name of three kinds": dict(
        SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"
    ),
    "birth date that is none": dict(
        PatientBirthDate="00000000", StudyDate="2026.01.01", StudyTime="12:00:00"
    ),
    "de-identified, method not said": dict(PatientIdentityRemoved="YES"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the odd values
@pytest.mark.parametrize("odd", ODD_HEADERS)
def test_odd_patient_attributes_are_no_hindrance_and_copied_as_they_stand(odd, phantom, program, tmp_path):
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", **ODD_HEADERS[odd])
    series = read_series(tmp_path / "ct")
    dataset = pydicom.dcmread(write_seg({"Marker": phantom.masks["Marker"]}, series, tmp_path / "seg.dcm"))
    for keyword in ODD_HEADERS[odd]:
        if keyword == "PatientIdentityRemoved":
            assert keyword not in dataset and conformance_errors(program, tmp_path / "seg.dcm") == []
        else:
            assert str(dataset[keyword].value) == str(series.headers[0][keyword].value), keyword


def test_a_name_that_is_not_ascii_is_kept_in_utf_8_where_the_images_lack_its_letters(phantom, tmp_path):
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "plain", SpecificCharacterSet=None)
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "greek", SpecificCharacterSet="ISO_IR 126")
    mask = {"Größe": phantom.masks["Marker"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        out = write_seg(mask, read_series(tmp_path / "plain"), tmp_path / "seg.dcm")
        assert pydicom.dcmread(out).SegmentSequence[0].SegmentLabel == "Größe"
        out = write_seg(mask, read_series(tmp_path / "greek"), tmp_path / "greek.dcm")
        assert pydicom.dcmread(out).SegmentSequence[0].SegmentLabel == "Größe"
        assert pydicom.dcmread(out).SpecificCharacterSet == "ISO_IR 192"


def test_highdicom_reads_overlapping_segments_voxel_by_voxel(written, phantom):
    import highdicom

    segmentation = highdicom.seg.segread(written)
    labels = [
        segmentation.get_segment_description(number).segment_label for number in segmentation.segment_numbers
    ]
    assert labels == ["External", "GTV", "Lung_L", "Own_Thing"]
    volume = segmentation.get_volume(segment_numbers=[2], combine_segments=False)
    indices = np.argwhere(volume.array[..., 0] > 0)
    points = volume.map_indices_to_reference(indices)
    expected = np.concatenate(
        [
            phantom.geometry.points_lps_mm(index, np.argwhere(mask))
            for index, mask in enumerate(phantom.masks["Marker"])
        ]
    )
    assert np.abs(points[np.lexsort(points.T)] - expected[np.lexsort(expected.T)]).max() < 1e-3


def test_simpleitk_finds_a_segment_where_it_is(phantom, series, tmp_path):
    import SimpleITK

    out = write_seg({"GTV": phantom.masks["Marker"]}, series, tmp_path / "seg.dcm")
    image = SimpleITK.ReadImage(str(out))
    voxels = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)
    points = np.array(
        [image.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]]) for index in voxels]
    )
    assert len(points) == phantom.masks["Marker"].sum()
    assert np.abs(points.mean(0) - phantom.points_lps_mm["Marker"]).max() < 0.75


def test_patient_frame_codes_and_maker_are_recorded(written, series):
    dataset = pydicom.dcmread(written)
    assert str(dataset.PatientName) == "Größe^Ön"
    assert dataset.StudyInstanceUID == series.study_instance_uid
    assert dataset.FrameOfReferenceUID == series.geometry.frame_of_reference_uid
    assert "Research use only" in dataset.SeriesDescription
    assert "thigh 0.1" in dataset.SoftwareVersions
    external, gtv, lung, own = dataset.SegmentSequence
    assert external.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "External Body Model"
    assert gtv.SegmentedPropertyTypeCodeSequence[0].CodeValue == "228791009"
    kind = lung.SegmentedPropertyTypeCodeSequence[0]
    assert (
        kind.CodeMeaning == "Lung" and kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    )
    assert own.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    assert {segment.SegmentAlgorithmType for segment in dataset.SegmentSequence} == {"AUTOMATIC"}
    assert gtv.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "thigh"


def test_a_float_map_is_cut_at_one_half(phantom, series, tmp_path):
    probability = np.where(phantom.masks["Marker"], 0.5, 0.499).astype(np.float32)
    out = write_seg({"Marker": probability}, series, tmp_path / "seg.dcm")
    assert len(voxel_points_lps_mm(out, "Marker")) == phantom.masks["Marker"].sum()


def test_frames_of_a_multi_frame_image_are_taken_in_their_order(shared_data, tmp_path):
    series = read_series(shared_data / "odd_dicom" / "enhanced_multiframe")
    mask = np.zeros(series.geometry.shape, dtype=bool)
    mask[0, 10, 20] = mask[1, 30:32, 40] = True
    points = voxel_points_lps_mm(write_seg({"Marker": mask}, series, tmp_path / "seg.dcm"), "Marker")
    expected = np.concatenate(
        [series.geometry.points_lps_mm(index, np.argwhere(plane)) for index, plane in enumerate(mask)]
    )
    assert np.abs(points[np.lexsort(points.T)] - expected[np.lexsort(expected.T)]).max() < 1e-3


def test_an_empty_structure_is_kept_with_a_warning_but_not_alone(phantom, series, tmp_path):
    nothing = np.zeros(phantom.geometry.shape, dtype=bool)
    with pytest.warns(MedsegWarning, match="Nothing is empty"):
        out = write_seg({"Nothing": nothing, "Marker": phantom.masks["Marker"]}, series, tmp_path / "seg.dcm")
    assert [segment.SegmentLabel for segment in pydicom.dcmread(out).SegmentSequence] == ["Nothing", "Marker"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        with pytest.raises(StructureError, match="at least one voxel"):
            write_seg({"Nothing": nothing}, series, tmp_path / "none.dcm")
    assert not (tmp_path / "none.dcm").exists()


def test_another_shape_and_a_missing_frame_of_reference_are_refused(phantom, series, tmp_path):
    with pytest.raises(GeometryError, match="Nothing is flipped"):
        write_seg({"Marker": phantom.masks["Marker"].transpose(0, 2, 1)}, series, tmp_path / "seg.dcm")
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", FrameOfReferenceUID=None)
    with pytest.raises(GeometryError, match="no Frame of Reference"):
        write_seg({"Marker": phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "seg.dcm")
    assert not list(tmp_path.glob("*.dcm"))
