"""RT Structure Sets that medseg writes: where contours lie, as other programs and readers see them."""

from __future__ import annotations

import subprocess
import warnings

import numpy as np
import pydicom
import pytest
from referees import area_and_centroid, dice, stored_contours

from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import MedsegWarning
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

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


def test_a_certain_voxel_of_a_map_that_stands_alone_is_written_and_named_and_a_faint_one_is_no_news(
    series, tmp_path
):
    probability = np.zeros(SHAPE, dtype=np.float32)
    probability[5, 10:14, 10:14] = 0.8
    probability[5, 30, 30] = probability[6, 12, 12] = 1.0
    with pytest.warns(MedsegWarning, match="GTV: 2 voxels of its map are certain and stand alone") as said:
        out = write_rtstruct({"GTV": probability}, series, tmp_path / "rs.dcm")
    assert len(said) == 1
    assert np.array_equal(read_rtstruct(out, series)["GTV"], probability >= 0.5)
    # Diamonds from half-way to half-way, of 1.5 x 1.25 mm voxels.
    areas = sorted(area_and_centroid(points)[0] for _, points, _ in stored_contours(out)["GTV"])
    assert areas[:2] == pytest.approx([0.5 * 1.5 * 1.25] * 2, rel=0.01)
    probability[5, 30, 30] = probability[6, 12, 12] = 0.7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_rtstruct({"GTV": probability}, series, tmp_path / "faint.dcm")


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
