"""RT Structure Sets that medseg writes, judged by programs and readers that medseg did not write."""

from __future__ import annotations

import re
import subprocess
import warnings

import numpy as np
import pydicom
import pytest
from referees import area_and_centroid, conformance_errors, dice, stored_contours

from medseg.dicom import read_rtstruct, read_series, write_rtstruct, write_seg
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series
from medseg.structures.structure import Code, Structure

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "feet_first": (-1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "sagittal_turned": (0, -1, 0, 0, 0, 1),
    "oblique": (0.9397, 0.342, 0, -0.3214, 0.883, 0.342),
}
SHAPE = (30, 48, 56)


@pytest.fixture(scope="module")
def phantom():
    return chiral_phantom(stack_geometry(SHAPE, pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(7, -20, 110)))


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("ct")
    write_series(phantom.volume_hu, phantom.geometry, out)
    return out


@pytest.fixture(scope="module")
def series(folder):
    return read_series(folder)


@pytest.fixture(scope="module")
def masks(phantom):
    """Structures that overlap, one with holes that hold islands, one in two pieces, single pixels, and the
    whole image."""
    border = np.zeros(SHAPE, dtype=bool)
    border[3:9, :5] = border[3:9, 40:] = True
    specks = np.zeros(SHAPE, dtype=bool)
    specks[4, 10, 10] = specks[4, 11, 11] = specks[5, 0, 0] = specks[29, 47, 55] = True
    hollow = phantom.masks["Body"] & ~phantom.masks["L"] & ~phantom.masks["Marker"]
    hollow[15, 22:25, 20:23] = True
    return {
        "External": phantom.masks["Body"],
        "GTV": phantom.masks["Marker"],
        "Hollow": hollow,
        "L": phantom.masks["L"],
        "Border": border,
        "Specks": specks,
        "Everything": np.ones(SHAPE, dtype=bool),
    }


@pytest.fixture(scope="module")
def written(masks, series, tmp_path_factory):
    return write_rtstruct(masks, series, tmp_path_factory.mktemp("rs") / "rs.dcm", model=("thigh", "0.1"))


# ---- where the contours lie --------------------------------------------------------------------------------


def test_one_pixel_becomes_its_outline_at_coordinates_computed_by_hand(series, tmp_path):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1, 2, 3] = True
    contours = stored_contours(write_rtstruct({"Pixel": mask}, series, tmp_path / "rs.dcm"))["Pixel"]
    ((kind, points, uid),) = contours
    assert kind == "CLOSED_PLANAR"
    assert uid == series.sop_instance_uids[1]
    # Columns are 1.25 mm apart around x = 7: the first lies at 7 - 27.5 * 1.25 = -27.375. Rows: -20 - 23.5 *
    # 1.5 = -55.25.
    left, right = -27.375 + 2.5 * 1.25, -27.375 + 3.5 * 1.25
    front, back = -55.25 + 1.5 * 1.5, -55.25 + 2.5 * 1.5
    height = 110 - 14.5 * 3 + 3
    expected = {(left, front, height), (right, front, height), (right, back, height), (left, back, height)}
    assert {tuple(point) for point in points} == expected
    assert len(points) == 4


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_contours_of_the_chiral_phantom_surround_its_known_points_in_every_orientation(orientation, tmp_path):
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
    volume = series.volume()
    masks = {"Marker": volume > 750, "L": (volume > 250) & (volume < 750)}
    contours = stored_contours(write_rtstruct(masks, series, tmp_path / "rs.dcm"))
    parts = [area_and_centroid(points) for _, points, _ in contours["Marker"]]
    areas = np.array([area for area, _ in parts])
    centroid = (areas[:, None] * np.array([centre for _, centre in parts])).sum(0) / areas.sum()
    assert np.abs(centroid - phantom.points_lps_mm["Marker"]).max() < 0.6
    assert areas.sum() * 2.0 == pytest.approx(masks["Marker"].sum() * 1.5 * 1.25 * 2.0, rel=5e-5)
    heel = np.concatenate([points for _, points, _ in contours["L"]])
    assert np.ptp(heel[:, 2]) == pytest.approx(42, abs=2.5)  # the L stands: superior to inferior


@pytest.mark.parametrize("stack", ["uneven", "tilted"])
def test_on_uneven_and_tilted_stacks_every_contour_lies_in_the_plane_of_the_image_it_names(stack, tmp_path):
    gaps_mm = np.where(np.arange(39) < 20, 2.5, 1.25) if stack == "uneven" else 2.0
    geometry = stack_geometry(
        (40, 64, 72),
        gaps_mm=gaps_mm,
        pixel_spacing_mm=(1.5, 1.25),
        tilt_degrees=15 if stack == "tilted" else 0,
    )
    phantom = chiral_phantom(geometry)
    write_series(phantom.volume_hu, geometry, tmp_path / "ct")
    series = read_series(tmp_path / "ct")
    out = write_rtstruct({"Marker": phantom.masks["Marker"]}, series, tmp_path / "rs.dcm")
    images = {header.SOPInstanceUID: header for header in series.headers}
    for _, points, uid in stored_contours(out)["Marker"]:
        image = images[uid]
        position, orientation = (
            np.array(image.ImagePositionPatient, float),
            np.array(image.ImageOrientationPatient, float),
        )
        offset = points - position
        assert np.abs(offset @ np.cross(orientation[:3], orientation[3:])).max() < 0.002
        columns, rows = offset @ orientation[:3] / 1.25, offset @ orientation[3:] / 1.5
        mask = phantom.masks["Marker"][series.sop_instance_uids.index(uid)]
        assert (rows.min() + 0.5, rows.max() - 0.5) == pytest.approx(
            np.flatnonzero(mask.any(1))[[0, -1]], abs=0.002
        )
        assert (columns.min() + 0.5, columns.max() - 0.5) == pytest.approx(
            np.flatnonzero(mask.any(0))[[0, -1]], abs=0.002
        )
    assert "SourcePixelPlanesCharacteristicsSequence" not in pydicom.dcmread(out).ROIContourSequence[0]


@pytest.mark.parametrize("holes", ["keyhole", "nested", "xor"])
def test_plastimatch_reads_back_exactly_the_voxels_that_were_written(
    holes, masks, series, folder, program, tmp_path
):
    import SimpleITK

    if holes == "xor":  # plastimatch 1.9.4 does not know CLOSEDPLANAR_XOR and leaves such structures out
        masks = {name: mask for name, mask in masks.items() if name != "Hollow"}
    out = write_rtstruct(masks, series, tmp_path / "rs.dcm", holes=holes)
    command = [
        program("plastimatch"),
        "convert",
        "--input",
        str(out),
        "--referenced-ct",
        str(folder),
        "--xor-contours",
        "--output-prefix",
        str(tmp_path / "read"),
        "--prefix-format",
        "nrrd",
    ]
    subprocess.run(command, check=True, capture_output=True)
    for name, mask in masks.items():
        read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "read" / f"{name}.nrrd"))) > 0
        assert np.count_nonzero(read ^ mask) == 0, name


@pytest.mark.parametrize("holes", ["keyhole", "nested", "xor"])
def test_masks_come_back_exactly_in_every_hole_mode(holes, masks, series, tmp_path):
    out = write_rtstruct(masks, series, tmp_path / "rs.dcm", holes=holes)
    types = {kind for kind, _, _ in stored_contours(out)["Hollow"]}
    assert types == {"CLOSEDPLANAR_XOR" if holes == "xor" else "CLOSED_PLANAR"}
    read = read_rtstruct(out, series)
    assert list(read) == list(masks)
    assert all(np.array_equal(read[name], masks[name]) for name in masks)


def test_rt_utils_finds_the_structures_where_they_are(tmp_path):
    rt_utils = pytest.importorskip("rt_utils")
    phantom = chiral_phantom(stack_geometry((30, 56, 56)))  # square, because it takes rows for columns
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct")
    out = write_rtstruct(phantom.masks, read_series(tmp_path / "ct"), tmp_path / "rs.dcm")
    rtstruct = rt_utils.RTStructBuilder.create_from(
        dicom_series_path=str(tmp_path / "ct"), rt_struct_path=str(out)
    )
    assert rtstruct.get_roi_names() == list(phantom.masks)
    for name, mask in phantom.masks.items():
        read = np.moveaxis(rtstruct.get_roi_mask_by_name(name), -1, 0)
        assert dice(read, mask) > 0.85, name  # its reader fills half a pixel too far all round
        assert not (mask & ~read).any(), name


def test_a_probability_map_is_contoured_between_voxel_centres(series, tmp_path):
    # 0.75 beside 0.25 and 0: the level 0.5 lies half way to the first neighbour and a third of the way to the
    # second.
    probability = np.zeros(SHAPE, dtype=np.float32)
    probability[5, 10, 10], probability[5, 10, 11] = 0.75, 0.25
    ((_, points, _),) = stored_contours(write_rtstruct({"GTV": probability}, series, tmp_path / "rs.dcm"))[
        "GTV"
    ]
    columns = (points[:, 0] - -27.375) / 1.25
    assert columns.max() == pytest.approx(10.5, abs=0.001)
    assert columns.min() == pytest.approx(10 - 1 / 3, abs=0.001)


def test_probabilities_that_rounding_took_a_little_out_of_0_to_1_are_written(series, masks, tmp_path):
    probability = np.where(masks["GTV"], np.float32(1.0000001), np.float32(-1e-7))
    out = write_rtstruct({"GTV": probability}, series, tmp_path / "rs.dcm")
    assert np.array_equal(read_rtstruct(out, series)["GTV"], masks["GTV"])


def test_floats_that_are_all_0_or_1_are_a_mask_and_keep_its_area(series, masks, tmp_path):
    as_float = write_rtstruct({"GTV": masks["GTV"].astype(np.float32)}, series, tmp_path / "a.dcm")
    as_bool = write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "b.dcm")
    for one, other in zip(stored_contours(as_float)["GTV"], stored_contours(as_bool)["GTV"], strict=True):
        assert np.array_equal(one[1], other[1])


def test_thinning_keeps_every_vertex_within_its_bound(series, masks, tmp_path):
    full = stored_contours(write_rtstruct({"External": masks["External"]}, series, tmp_path / "a.dcm"))[
        "External"
    ]
    thin = stored_contours(
        write_rtstruct({"External": masks["External"]}, series, tmp_path / "b.dcm", simplify_mm=0.8)
    )["External"]
    assert sum(len(points) for _, points, _ in thin) < 0.8 * sum(len(points) for _, points, _ in full)
    import shapely

    for (_, before, _), (_, after, _) in zip(full, thin, strict=True):
        outlines = [shapely.Polygon(points[:, :2]).exterior for points in (before, after)]
        apart_mm = shapely.hausdorff_distance(*outlines)
        assert apart_mm <= 0.8 + 0.002


# ---- conformance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holes", ["keyhole", "nested"])
def test_dciodvfy_finds_no_error(holes, masks, series, program, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        everything = {**masks, "Lung_L": masks["L"], "Empty": np.zeros(SHAPE, bool), "PTV_High": masks["GTV"]}
        out = write_rtstruct(everything, series, tmp_path / "rs.dcm", holes=holes, model=("ct_gtv", "1.2"))
    assert conformance_errors(program, out) == []


def test_dciodvfy_objects_in_xor_mode_only_to_the_term_that_its_edition_does_not_know(
    masks, series, program, tmp_path
):
    errors = conformance_errors(program, write_rtstruct(masks, series, tmp_path / "rs.dcm", holes="xor"))
    assert errors
    assert all("CLOSEDPLANAR_XOR" in error for error in errors)


def test_a_ct_without_optional_attributes_still_gives_every_type_2_attribute(program, tmp_path):
    phantom = chiral_phantom()
    missing = (
        "AccessionNumber",
        "ReferringPhysicianName",
        "StudyID",
        "PatientBirthDate",
        "PatientSex",
        "PositionReferenceIndicator",
        "StudyTime",
    )
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", **dict.fromkeys(missing))
    out = write_rtstruct({"GTV": phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "rs.dcm")
    dataset = pydicom.dcmread(out)
    for keyword in (*missing, "OperatorsName"):
        assert keyword in dataset and not dataset[keyword].value
    assert conformance_errors(program, out) == []


def test_the_file_is_implicit_little_endian_with_short_decimals_and_honest_counts(written):
    dataset = pydicom.dcmread(written)
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    contours = 0
    for row in dataset.ROIContourSequence:
        for contour in row.ContourSequence:
            contours += 1
            texts = contour.get_item("ContourData").value.rstrip(b" ").split(b"\\")
            assert max(map(len, texts)) <= 16
            assert all(re.fullmatch(rb"-?\d+(\.\d{1,3})?", text) for text in texts)
            assert len(texts) == 3 * int(contour.NumberOfContourPoints)
            assert contour.NumberOfContourPoints >= 3
            assert texts[:3] != texts[-3:]
    assert contours > 100


def test_the_set_names_patient_study_frame_maker_and_that_it_is_for_research_only(written, series):
    dataset, image = pydicom.dcmread(written), series.headers[0]
    for keyword in (
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "StudyDate",
        "StudyID",
        "FrameOfReferenceUID",
    ):
        assert dataset[keyword].value == image[keyword].value
    assert dataset.SeriesInstanceUID != image.SeriesInstanceUID
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert (
        "Research use only" in dataset.StructureSetDescription
        and "Research use only" in dataset.SeriesDescription
    )
    assert "thigh 0.1" in dataset.StructureSetDescription and "thigh 0.1" in dataset.SoftwareVersions
    assert "thigh 0.1" in dataset.StructureSetROISequence[0].ROIGenerationDescription
    assert {row.ROIGenerationAlgorithm for row in dataset.StructureSetROISequence} == {"AUTOMATIC"}
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (referred,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert [row.ReferencedSOPInstanceUID for row in referred.ContourImageSequence] == list(
        series.sop_instance_uids
    )


def test_two_files_never_share_a_sop_instance_uid(masks, series, tmp_path):
    one = write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "a.dcm")
    other = write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "b.dcm")
    assert pydicom.dcmread(one).SOPInstanceUID != pydicom.dcmread(other).SOPInstanceUID


def test_numbers_types_colours_and_codes_of_the_structures(masks, series, tmp_path):
    own = Structure("Mass", 7, (1, 2, 3), "AVOIDANCE", Code("4147007", "SCT", "Mass"))
    out = write_rtstruct(
        {"Lung_L": masks["L"], own: masks["GTV"], "CTV_6000": masks["GTV"], "BODY": masks["External"]},
        series,
        tmp_path / "rs.dcm",
    )
    dataset = pydicom.dcmread(out)
    assert [(row.ROINumber, row.ROIName) for row in dataset.StructureSetROISequence] == [
        (8, "Lung_L"),
        (7, "Mass"),
        (9, "CTV_6000"),
        (10, "BODY"),
    ]
    observations = {row.ReferencedROINumber: row for row in dataset.RTROIObservationsSequence}
    types = {number: row.RTROIInterpretedType for number, row in observations.items()}
    assert types == {8: "ORGAN", 7: "AVOIDANCE", 9: "CTV", 10: "EXTERNAL"}
    assert len({row.ObservationNumber for row in observations.values()}) == 4
    assert list(dataset.ROIContourSequence[1].ROIDisplayColor) == [1, 2, 3]
    lung = observations[8].RTROIIdentificationCodeSequence[0]
    assert (lung.CodeValue, lung.CodingSchemeDesignator, lung.CodeMeaning) == ("39607008", "SCT", "Lung")
    assert lung.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert observations[9].RTROIIdentificationCodeSequence[0].CodeValue == "228792002"
    assert "RTROIIdentificationCodeSequence" not in observations[10]


def test_a_regular_stack_says_on_which_grid_the_contours_were_made(written):
    (grid,) = pydicom.dcmread(written).ROIContourSequence[0].SourcePixelPlanesCharacteristicsSequence
    assert [float(mm) for mm in grid.PixelSpacing] == [1.5, 1.25]
    assert float(grid.SpacingBetweenSlices) == 3.0
    assert [float(mm) for mm in grid.ImagePositionPatient] == [-27.375, -55.25, 66.5]


def test_contours_on_frames_of_a_multi_frame_image_name_the_frame(shared_data, tmp_path):
    series = read_series(shared_data / "odd_dicom" / "enhanced_multiframe")
    masks = np.zeros(series.geometry.shape, dtype=bool)
    masks[:, 10:20, 10:20] = True
    dataset = pydicom.dcmread(write_rtstruct({"GTV": masks}, series, tmp_path / "rs.dcm"))
    contours = dataset.ROIContourSequence[0].ContourSequence
    frames = [int(contour.ContourImageSequence[0].ReferencedFrameNumber) for contour in contours]
    assert frames == list(series.frame_numbers) and sorted(frames) == [1, 2]
    referred = (
        dataset.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence[0]
    )
    assert len(referred.ContourImageSequence) == 1


@pytest.mark.parametrize(
    ("charset", "patient", "structure"),
    [
        ("ISO_IR 192", "王^小东", "Tumör"),
        ("ISO_IR 100", "Äneas^Rüdiger", "Größe"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "Lung_L"),
        (None, "PLAIN^NAME", "Größe"),
    ],
)
def test_names_that_are_not_ascii_survive(charset, patient, structure, tmp_path):
    phantom = chiral_phantom()
    write_series(
        phantom.volume_hu,
        phantom.geometry,
        tmp_path / "ct",
        SpecificCharacterSet=charset,
        PatientName=patient,
    )
    out = write_rtstruct(
        {structure: phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "rs.dcm"
    )
    dataset = pydicom.dcmread(out)
    assert str(dataset.PatientName) == patient
    assert dataset.StructureSetROISequence[0].ROIName == structure
    assert list(read_rtstruct(out, read_series(tmp_path / "ct"))) == [structure]


def test_a_name_that_the_images_character_set_cannot_hold_is_refused(tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", SpecificCharacterSet="ISO_IR 100")
    with pytest.raises(StructureError, match="ISO_IR 100"):
        write_rtstruct({"肺": phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "rs.dcm")


# ---- what is refused or said -------------------------------------------------------------------------------


def test_an_empty_mask_becomes_a_structure_without_contours_and_a_warning(masks, series, tmp_path):
    with pytest.warns(MedsegWarning, match="Nothing is empty"):
        out = write_rtstruct(
            {"Nothing": np.zeros(SHAPE, bool), "GTV": masks["GTV"]}, series, tmp_path / "rs.dcm"
        )
    dataset = pydicom.dcmread(out)
    assert "ContourSequence" not in dataset.ROIContourSequence[0]
    with pytest.warns(MedsegWarning, match="'Nothing': it is empty"):
        assert not read_rtstruct(out, series)["Nothing"].any()


def test_a_name_against_tg263_is_warned_of_and_written_as_given(masks, series, tmp_path):
    with pytest.warns(MedsegWarning, match="TG-263 calls it Lung_L"):
        out = write_rtstruct({"Lt Lung": masks["L"]}, series, tmp_path / "rs.dcm")
    assert pydicom.dcmread(out).StructureSetROISequence[0].ROIName == "Lt Lung"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, StructureError, "at least one"),
        ({"GTV": np.zeros((3, 4, 5), bool)}, GeometryError, r"\(3, 4, 5\) on images of \(30, 48, 56\)"),
        ({"GTV": np.zeros((56, 48, 30), bool)}, GeometryError, "Nothing is flipped"),
        ({"GTV": np.full(SHAPE, 2, np.uint8)}, StructureError, "one mask per structure"),
        ({"GTV": np.full(SHAPE, 7.5)}, StructureError, "sigmoid"),
        ({"GTV": np.full(SHAPE, np.nan)}, StructureError, "expected 0 to 1"),
        ({"GTV": np.full(SHAPE, "x")}, StructureError, "expected bool"),
        ({"GTV": np.ones(SHAPE, bool), "gtv": np.ones(SHAPE, bool)}, StructureError, "two structures"),
        (
            {Structure("A", 1): np.ones(SHAPE, bool), Structure("B", 1): np.ones(SHAPE, bool)},
            StructureError,
            "number 1",
        ),
    ],
)
def test_masks_that_cannot_be_right_are_refused_and_nothing_is_written(given, error, words, series, tmp_path):
    with pytest.raises(error, match=words):
        write_rtstruct(given, series, tmp_path / "rs.dcm")
    assert list(tmp_path.iterdir()) == []


def test_wrong_options_are_refused(masks, series, tmp_path):
    with pytest.raises(StructureError, match="pinhole"):
        write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "rs.dcm", holes="pinhole")
    for simplify_mm in (-0.1, float("nan"), float("inf")):
        with pytest.raises(StructureError, match="expected 0 or more"):
            write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "rs.dcm", simplify_mm=simplify_mm)
    with pytest.raises(StructureError, match="17 characters"):
        write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "rs.dcm", label="x" * 17)
    with pytest.raises(InputError, match="does not exist"):
        write_rtstruct({"GTV": masks["GTV"]}, series, tmp_path / "nowhere" / "rs.dcm")


def test_images_without_a_frame_of_reference_are_refused(tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct", FrameOfReferenceUID=None)
    with pytest.raises(GeometryError, match="no Frame of Reference"):
        write_rtstruct({"GTV": phantom.masks["Marker"]}, read_series(tmp_path / "ct"), tmp_path / "rs.dcm")


def test_an_image_of_the_series_is_never_overwritten(tmp_path):
    phantom = chiral_phantom(stack_geometry((4, 12, 14)))
    file = write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct")[0]
    before = file.read_bytes()
    series = read_series(tmp_path / "ct")
    for write in (write_rtstruct, write_seg):
        with pytest.raises(InputError, match="never overwritten"):
            write({"GTV": np.ones((4, 12, 14), dtype=bool)}, series, file)
        with pytest.raises(InputError, match="is a folder"):
            write({"GTV": np.ones((4, 12, 14), dtype=bool)}, series, tmp_path / "ct")
    assert file.read_bytes() == before
