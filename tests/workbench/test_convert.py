"""Conversions of contours and images. Referees: plastimatch and SimpleITK read the same files."""

from __future__ import annotations

import json
import subprocess
import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from referees import dice

from medseg.cases.mask_sources import Reference
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series
from medseg.structures.structure import Structure
from medseg.workbench.convert import Conversion, convert
from medseg.workbench.inspect import inspect

NAMES = {"GTV": "Marker", "a/b: 1,5": "L"}


@pytest.fixture(scope="module")
def ct(folder):
    return folder


@pytest.fixture(scope="module")
def structure_set(phantom, series, tmp_path_factory):
    """GTV (number 7, typed CAVITY, its own colour) and a structure whose name cannot be a file's."""
    out = tmp_path_factory.mktemp("rs") / "RS.dcm"
    keys = {Structure("GTV", 7, (1, 2, 3), "CAVITY"): "Marker", Structure("a/b: 1,5", 9): "L"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        return write_rtstruct({key: phantom.masks[mask] for key, mask in keys.items()}, series, out)


def request(source, out, ct=None, **options) -> Conversion:
    return Conversion(source, out, Reference(ct), **options)


def test_a_structure_set_becomes_masks_that_simpleitk_places_on_the_images(
    structure_set, phantom, ct, tmp_path
):
    record = convert(request(structure_set, tmp_path / "masks", ct))
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {
        "GTV.nii.gz",
        "a_b_ 1,5.nii.gz",
        "structures.json",
    }
    image = sitk.ReadImage(str(tmp_path / "masks" / "GTV.nii.gz"))
    assert (sitk.GetArrayFromImage(image).astype(bool) == phantom.masks["Marker"]).all()
    centre = [float(np.mean(axis)) for axis in np.nonzero(phantom.masks["Marker"])]
    placed = image.TransformContinuousIndexToPhysicalPoint(centre[::-1])
    assert placed == pytest.approx(phantom.points_lps_mm["Marker"], abs=1.0)
    index = json.loads((tmp_path / "masks" / "structures.json").read_text())
    assert [(row["name"], row["file"], row["number"]) for row in index["structures"]] == [
        ("GTV", "GTV.nii.gz", 7),
        ("a/b: 1,5", "a_b_ 1,5.nii.gz", 9),
    ]
    assert record["structures"][0]["volume_cc"] == pytest.approx(
        phantom.masks["Marker"].sum() * 3 * 1.5 * 1.25 / 1000, abs=1e-3
    )


def test_masks_become_a_structure_set_that_plastimatch_reads_and_that_keeps_names_numbers_types_and_colours(
    structure_set, phantom, ct, program, tmp_path
):
    convert(request(structure_set, tmp_path / "masks", ct))
    record = convert(request(tmp_path / "masks", tmp_path / "again.dcm", ct))
    assert [row["name"] for row in record["structures"]] == ["GTV", "a/b: 1,5"]
    old, new = (pydicom.dcmread(path) for path in (structure_set, tmp_path / "again.dcm"))
    assert [(r.ROINumber, r.ROIName) for r in new.StructureSetROISequence] == [(7, "GTV"), (9, "a/b: 1,5")]
    assert [list(r.ROIDisplayColor) for r in new.ROIContourSequence] == [
        list(r.ROIDisplayColor) for r in old.ROIContourSequence
    ]
    assert [r.RTROIInterpretedType for r in new.RTROIObservationsSequence] == ["CAVITY", "ORGAN"]
    out = tmp_path / "plm"
    subprocess.run(
        [
            program("plastimatch"),
            "convert",
            "--input",
            tmp_path / "again.dcm",
            "--referenced-ct",
            ct,
            "--output-prefix",
            out,
            "--prefix-format",
            "nrrd",
            "--xor-contours",
        ],
        check=True,
        capture_output=True,
    )
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "GTV.nrrd"))).astype(bool)
    assert dice(read, phantom.masks["Marker"]) == 1.0


def test_a_folder_of_plain_masks_takes_names_and_types_from_its_files(
    phantom, ct, series, structure_set, tmp_path
):
    convert(request(structure_set, tmp_path / "masks", ct, rois=("GTV",)))
    (tmp_path / "masks" / "structures.json").unlink()
    (tmp_path / "masks" / "GTV.nii.gz").rename(tmp_path / "masks" / "PTV_High.nii.gz")
    convert(request(tmp_path / "masks", tmp_path / "RS.dcm", ct))
    dataset = pydicom.dcmread(tmp_path / "RS.dcm")
    assert dataset.StructureSetROISequence[0].ROIName == "PTV_High"
    assert dataset.RTROIObservationsSequence[0].RTROIInterpretedType == "PTV"
    convert(request(tmp_path / "masks", tmp_path / "more.dcm", ct, append_to=structure_set))
    assert list(read_rtstruct(tmp_path / "more.dcm", series)) == ["GTV", "a/b: 1,5", "PTV_High"]


def test_a_series_becomes_the_nifti_that_simpleitk_sees_in_it_with_exact_hu_as_int16(phantom, ct, tmp_path):
    convert(request(ct, tmp_path / "ct.nii.gz"))
    ours = sitk.ReadImage(str(tmp_path / "ct.nii.gz"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(ct)))
    theirs = reader.Execute()
    assert ours.GetPixelIDTypeAsString() == "16-bit signed integer"
    assert (sitk.GetArrayFromImage(ours) == sitk.GetArrayFromImage(theirs)).all()
    for corner in ((0, 0, 0), tuple(size - 1 for size in theirs.GetSize())):
        assert ours.TransformIndexToPhysicalPoint(corner) == pytest.approx(
            theirs.TransformIndexToPhysicalPoint(corner), abs=1e-4
        )


def test_a_segmentation_goes_both_ways(structure_set, phantom, ct, series, tmp_path):
    convert(request(structure_set, tmp_path / "SEG.dcm", ct, format="seg"))
    assert pydicom.dcmread(tmp_path / "SEG.dcm").Modality == "SEG"
    convert(request(tmp_path / "SEG.dcm", tmp_path / "back.dcm", ct))
    again = read_rtstruct(tmp_path / "back.dcm", series)
    assert (again["GTV"] == phantom.masks["Marker"]).all() and (again["a/b: 1,5"] == phantom.masks["L"]).all()


def test_what_a_person_drew_is_not_called_automatic_after_a_conversion(structure_set, ct, tmp_path):
    drawn = pydicom.dcmread(structure_set)
    drawn.StructureSetROISequence[0].ROIGenerationAlgorithm = "MANUAL"
    drawn.save_as(tmp_path / "RS.dcm")
    convert(request(tmp_path / "RS.dcm", tmp_path / "masks", ct))
    convert(request(tmp_path / "masks", tmp_path / "back.dcm", ct))
    convert(request(tmp_path / "RS.dcm", tmp_path / "SEG.dcm", ct, format="seg"))
    convert(request(tmp_path / "SEG.dcm", tmp_path / "seg_back.dcm", ct))
    for name in ("back.dcm", "seg_back.dcm"):
        rows = pydicom.dcmread(tmp_path / name).StructureSetROISequence
        assert {row.ROIName: row.ROIGenerationAlgorithm for row in rows} == {
            "GTV": "MANUAL",
            "a/b: 1,5": "AUTOMATIC",
        }
    segments = pydicom.dcmread(tmp_path / "SEG.dcm").SegmentSequence
    assert [segment.SegmentAlgorithmType for segment in segments] == ["MANUAL", "AUTOMATIC"]
    (tmp_path / "masks" / "structures.json").unlink()  # nobody knows who drew a mask without its index
    convert(request(tmp_path / "masks", tmp_path / "plain.dcm", ct))
    assert {
        row.ROIGenerationAlgorithm for row in pydicom.dcmread(tmp_path / "plain.dcm").StructureSetROISequence
    } == {""}


def test_nothing_that_is_there_is_replaced_without_being_told(structure_set, ct, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "GTV.nii.gz").write_bytes(b"hours of work")
    with pytest.raises(InputError, match="`overwrite`"):
        convert(request(structure_set, tmp_path / "masks", ct))
    assert (tmp_path / "masks" / "GTV.nii.gz").read_bytes() == b"hours of work"
    assert len(list((tmp_path / "masks").iterdir())) == 1
    convert(request(structure_set, tmp_path / "masks", ct, overwrite=True))
    assert (tmp_path / "masks" / "GTV.nii.gz").read_bytes() != b"hours of work"
    for out in ("RS.dcm", "ct.nii"):
        (tmp_path / out).write_text("mine")
    with pytest.raises(InputError, match="exists"):
        convert(request(tmp_path / "masks", tmp_path / "RS.dcm", ct))
    with pytest.raises(InputError, match="exists"):
        convert(request(ct, tmp_path / "ct.nii"))
    with pytest.raises(InputError, match="never overwritten"):
        convert(request(tmp_path / "masks", next(iter(ct.glob("*.dcm"))), ct, overwrite=True))


def test_a_segmentation_never_replaces_an_approved_set_nor_what_it_is_made_of(structure_set, ct, tmp_path):
    dataset = pydicom.dcmread(structure_set)
    dataset.ApprovalStatus = "APPROVED"
    for name in ("approved.dcm", "source.dcm"):
        dataset.save_as(tmp_path / name)
        dataset.ApprovalStatus = "UNAPPROVED"
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for out, error, words in (
        ("approved.dcm", StructureError, "APPROVED"),
        ("source.dcm", InputError, "kept as it is"),
    ):
        with pytest.raises(error, match=words):
            convert(request(tmp_path / "source.dcm", tmp_path / out, ct, format="seg", overwrite=True))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_filled_step_by_step_keeps_its_index_and_takes_no_masks_of_other_images(
    structure_set, phantom, ct, tmp_path
):
    masks = tmp_path / "masks"
    for name in ("GTV", "a/b: 1,5"):
        convert(request(structure_set, masks, ct, rois=(name,), overwrite=True))
    convert(request(masks, tmp_path / "back.dcm", ct))
    rows = {
        int(row.ROINumber): row.ROIName
        for row in pydicom.dcmread(tmp_path / "back.dcm").StructureSetROISequence
    }
    assert rows == {7: "GTV", 9: "a/b: 1,5"}
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT2", seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        write_rtstruct({"GTV": phantom.masks["L"]}, read_series(tmp_path / "CT2"), tmp_path / "RS2.dcm")
    with pytest.raises(InputError, match="masks of different images"):
        convert(request(tmp_path / "RS2.dcm", masks, tmp_path / "CT2", overwrite=True))


def test_a_failure_leaves_neither_files_nor_a_folder(structure_set, ct, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device", "GTV.nii.gz")

    monkeypatch.setattr("medseg.workbench.convert.write_mask", fails)
    with pytest.raises(OSError, match="No space"):
        convert(request(structure_set, tmp_path / "masks", ct))
    assert not list(tmp_path.iterdir())


def test_names_that_would_share_a_file_are_refused_until_one_is_chosen(phantom, series, ct, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        write_rtstruct(
            {"a/b": phantom.masks["Marker"], "a:b": phantom.masks["L"]}, series, tmp_path / "RS.dcm"
        )
    with pytest.raises(StructureError, match=r"a/b.*a:b.*`rois`"):
        convert(request(tmp_path / "RS.dcm", tmp_path / "out", ct))
    convert(request(tmp_path / "RS.dcm", tmp_path / "out", ct, rois=("a:b",)))
    assert (tmp_path / "out" / "a_b.nii.gz").is_file()
    with pytest.raises(StructureError, match="no structure 'nonsense'; there are 'a/b', 'a:b'"):
        convert(request(tmp_path / "RS.dcm", tmp_path / "out2", ct, rois=("nonsense",)))


@pytest.mark.parametrize(
    "geometry", [{"gaps_mm": (3, 3, 3, 5, 5, 5, 5)}, {"tilt_degrees": 15}], ids=["uneven", "tilted"]
)
def test_uneven_and_tilted_stacks_are_refused_with_a_way_out_and_go_to_a_segmentation(geometry, tmp_path):
    phantom = chiral_phantom(stack_geometry((8, 48, 56), **geometry))
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT")
    series = read_series(tmp_path / "CT")
    mask = phantom.volume_hu > -500
    write_rtstruct({"Body": mask}, series, tmp_path / "RS.dcm")
    with pytest.raises(GeometryError, match=r"(uneven|tilted).*resample"):
        convert(request(tmp_path / "CT", tmp_path / "ct.nii.gz"))
    with pytest.raises(GeometryError, match=r"(uneven|tilted).*`format=seg`"):
        convert(request(tmp_path / "RS.dcm", tmp_path / "masks", tmp_path / "CT"))
    convert(request(tmp_path / "RS.dcm", tmp_path / "SEG.dcm", tmp_path / "CT", format="seg"))
    convert(request(tmp_path / "SEG.dcm", tmp_path / "again.dcm", tmp_path / "CT"))
    assert (read_rtstruct(tmp_path / "again.dcm", series)["Body"] == mask).all()


@pytest.mark.parametrize(
    ("source", "out", "options", "words"),
    [
        ("structure_set", "out.nii.gz", {}, "does not go with it"),
        ("structure_set", "out.dcm", {}, "does not go with it"),
        ("structure_set", "out.zip", {}, "does not go with it"),
        ("structure_set", "masks", {"simplify_mm": 0.1}, "`simplify_mm` does not go with writing masks"),
        ("structure_set", "masks", {"format": "seg"}, "`format` does not go"),
        ("ct", "out.nii.gz", {"rois": ("GTV",)}, "`rois` does not go with writing an image"),
        ("ct", "masks", {}, "does not go with it"),
        ("nowhere", "masks", {}, "no such file"),
    ],
)
def test_paths_and_options_that_do_not_fit_are_refused_in_one_line(
    source, out, options, words, structure_set, ct, tmp_path
):
    path = {"structure_set": structure_set, "ct": ct, "nowhere": tmp_path / "nowhere"}[source]
    with pytest.raises(InputError, match=words) as error:
        convert(request(path, tmp_path / out, ct if source == "structure_set" else None, **options))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_contours_without_images_and_unknown_faults_are_refused(structure_set, ct, tmp_path):
    with pytest.raises(InputError, match="`reference`"):
        convert(request(structure_set, tmp_path / "masks"))
    with pytest.raises(InputError, match="`allow=nonsense`"):
        Reference(ct, allow=("nonsense",))


def test_a_structure_set_of_lung1_has_the_volumes_that_plastimatch_finds(shared_data, tmp_path):
    case = shared_data / "rt" / "lung1_001"
    record = convert(
        request(case / "RTSTRUCT.dcm", tmp_path / "masks", case / "CT", rois=("GTV-1", "Spinal cord"))
    )
    volumes_cc = {row["name"]: row["volume_cc"] for row in record["structures"]}
    assert volumes_cc == {
        "GTV-1": pytest.approx(155.8, rel=2e-3),
        "Spinal cord": pytest.approx(44.5, rel=2e-3),
    }


def test_masks_made_on_another_series_of_the_same_grid_are_refused_until_their_index_lets_them(
    structure_set, ct, phantom, tmp_path
):
    convert(request(structure_set, tmp_path / "masks", ct))
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT2", seed="another patient")
    for source in (tmp_path / "masks", tmp_path / "masks" / "GTV.nii.gz"):
        with pytest.raises(InputError, match="masks of series 2.25.* not of 2.25"):
            convert(request(source, tmp_path / "RS.dcm", tmp_path / "CT2"))
    index = json.loads((tmp_path / "masks" / "structures.json").read_text())
    del index["SeriesInstanceUID"]
    (tmp_path / "masks" / "structures.json").write_text(json.dumps(index))
    convert(request(tmp_path / "masks", tmp_path / "RS.dcm", tmp_path / "CT2"))


def test_masks_do_not_go_among_the_images(structure_set, ct):
    before = sorted(ct.iterdir())
    with pytest.raises(InputError, match="among the images"):
        convert(request(structure_set, ct, ct))
    assert sorted(ct.iterdir()) == before


def test_a_single_slice_is_refused_before_a_nifti_file_is_there(ct, tmp_path):
    with pytest.raises(GeometryError, match="one slice"):
        convert(request(sorted(ct.iterdir())[0], tmp_path / "ct.nii.gz"))
    assert not list(tmp_path.iterdir())


def test_the_volume_told_of_thinned_contours_is_theirs(structure_set, ct, tmp_path):
    """Thinned by a metre, an outline has three or four corners left."""
    convert(request(structure_set, tmp_path / "masks", ct, rois=("GTV",)))
    whole = convert(request(tmp_path / "masks", tmp_path / "RS.dcm", ct))["structures"][0]["volume_cc"]
    record = convert(request(tmp_path / "masks", tmp_path / "thin.dcm", ct, simplify_mm=1000.0))
    (row,) = record["structures"]
    (told,) = inspect(tmp_path / "thin.dcm")["patients"][0]["studies"][0]["structure_sets"][0]["rois"]
    assert row["volume_cc"] == pytest.approx(told["volume_cc"], abs=0.001) and row["volume_cc"] < 0.9 * whole
    assert any(f"left {row['volume_cc']:.2f} of {whole:.2f} cc" in note for note in record["warnings"])


def test_a_series_or_a_fault_without_images_is_not_ignored():
    for options in ({"series_uid": "1.2"}, {"allow": ("missing_slice",)}):
        with pytest.raises(InputError, match="`reference`"):
            Reference(**options)
