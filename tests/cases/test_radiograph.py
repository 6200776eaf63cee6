"""Radiographs come in as a viewer shows them, go out on their own pixels, and nothing about their size is
guessed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medseg.bundles.cohort import segment
from medseg.bundles.job import Request
from medseg.bundles.record import is_result
from medseg.cases.find import find_radiographs
from medseg.cases.nifti import write_flat_mask
from medseg.cases.radiograph import Radiograph, open_radiograph
from medseg.cases.results import Structures
from medseg.dicom.images.projections import read_projection
from medseg.errors import InputError, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series
from medseg.structures.structure import Structure
from medseg.transforms import LoadRadiographd, SaveRadiographd, ToRadiographStructuresd

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "cxr_anatomy"
DX = "1.2.840.10008.5.1.4.1.1.1.1"


def ramp(rows=80, columns=100, top=4095):
    """uint16 numbers from 0 at the left edge to ``top`` at the right edge, brighter still in the lower
    half."""
    line = np.linspace(0, top, columns)
    return np.rint(np.stack([line * (0.5 if row < rows // 2 else 1.0) for row in range(rows)])).astype(
        np.uint16
    )


def write_dx(path, pixels=None, bits=12, **changes):
    """A DX file of pydicom's; ``changes`` set attributes, None deletes them."""
    pixels = ramp() if pixels is None else pixels
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = DX, generate_uid()
    d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality = generate_uid(), generate_uid(), "DX"
    d.PatientName, d.PatientID, d.PatientBirthDate, d.PatientSex = "Doe^Jane", "7", "", "F"
    d.StudyDate, d.StudyTime, d.StudyID, d.AccessionNumber, d.ReferringPhysicianName = (
        "20260101",
        "101010",
        "1",
        "",
        "",
    )
    d.SeriesNumber, d.InstanceNumber, d.Manufacturer, d.PatientOrientation = 1, 1, "test", ["L", "F"]
    d.Rows, d.Columns = pixels.shape[-2:]
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit = 8 * pixels.dtype.itemsize, bits, bits - 1
    d.PixelData = pixels.tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(d, keyword)
        else:
            setattr(d, keyword, value)
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = (
        d.SOPClassUID,
        d.SOPInstanceUID,
    )
    d.save_as(path, enforce_file_format=True)
    return path


# ---- DICOM in ----------------------------------------------------------------------------------------------


def test_without_a_window_the_whole_range_becomes_0_to_1(tmp_path):
    found = read_projection(write_dx(tmp_path / "a.dcm"))
    assert found.shown == "whole range of values"
    assert found.pixels.dtype == np.float32 and found.pixels.shape == (80, 100)
    assert found.pixels == pytest.approx(ramp() / 4095, abs=1e-6)


def test_8_and_16_bits_are_read_like_12(tmp_path):
    eight = (ramp() // 16).astype(np.uint8)
    found = read_projection(write_dx(tmp_path / "8.dcm", eight, bits=8))
    assert found.pixels == pytest.approx(eight / 255.0, abs=1e-6)
    sixteen = ramp(top=65535)
    assert read_projection(write_dx(tmp_path / "16.dcm", sixteen, bits=16)).pixels == pytest.approx(
        sixteen / 65535, abs=1e-6
    )


def test_monochrome1_is_turned_over(tmp_path):
    plain = read_projection(write_dx(tmp_path / "2.dcm"))
    turned = read_projection(write_dx(tmp_path / "1.dcm", PhotometricInterpretation="MONOCHROME1"))
    assert turned.pixels == pytest.approx(1 - plain.pixels, abs=1e-6)
    assert turned.shown == "whole range of values, MONOCHROME1 turned over"


def test_the_first_window_cuts_the_values_as_dicom_says(tmp_path):
    path = write_dx(tmp_path / "w.dcm", WindowCenter=[1000, 50], WindowWidth=[401, 10])
    found = read_projection(path)
    assert found.shown == "window centre 1000, width 401 (first of 2), LINEAR"
    # PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w-1)/2 = 799.5, white from 1199.5.
    expected = np.clip((ramp() - 999.5) / 400 + 0.5, 0, 1)
    assert found.pixels == pytest.approx(expected, abs=1e-3)


def test_a_voi_lut_goes_before_a_window(tmp_path):
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], (4095 - np.arange(4096)).astype("<u2").tobytes()
    found = read_projection(
        write_dx(tmp_path / "l.dcm", VOILUTSequence=Sequence([item]), WindowCenter=9, WindowWidth=9)
    )
    assert found.shown == "VOI LUT"
    assert found.pixels == pytest.approx(1 - ramp() / 4095, abs=1e-6)


def test_padding_is_black_and_does_not_stretch_the_range(tmp_path):
    pixels = ramp(top=2000)
    pixels[:5] = 4095
    found = read_projection(
        write_dx(tmp_path / "p.dcm", pixels, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1")
    )
    assert (found.pixels[:5] == 0).all()
    assert found.pixels[5:] == pytest.approx(1 - pixels[5:] / 2000, abs=1e-6)


@pytest.mark.parametrize(
    ("attributes", "spacing_mm", "words"),
    [
        ({}, None, ""),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "ImagerPixelSpacing, at the detector"),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]},
            (0.2, 0.2),
            "ImagerPixelSpacing, at the detector",
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.15, 0.15]},
            (0.15, 0.15),
            "calibrated (of unknown kind)",
        ),
        (
            {"PixelSpacing": [0.15, 0.15], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.15, 0.15),
            "calibrated (FIDUCIAL)",
        ),
        ({"PixelSpacing": [0.15, 0.15]}, (0.15, 0.15), "not said whether"),
    ],
)
def test_which_spacing_it_is_is_said_and_none_is_guessed(tmp_path, attributes, spacing_mm, words):
    found = read_projection(write_dx(tmp_path / "s.dcm", **attributes))
    assert found.spacing_mm == spacing_mm and words in found.spacing_from
    assert bool(found.spacing_from) == (spacing_mm is not None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SOPClassUID": f"{DX}.1"}, "FOR PROCESSING"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "raw detector values"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT Image Storage, not a projection radiograph"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}, "secondary capture of modality OT"),
        ({"PatientOrientation": ["R", "F"]}, "sides would be exchanged"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "expected MONOCHROME1 or MONOCHROME2"),
        ({"PixelData": np.full((80, 100), 7, np.uint16).tobytes()}, "same value"),
        ({"PixelSpacing": [0.0, 0.1]}, "two positive numbers"),
        ({"PixelData": b"\0\0"}, "cut off"),
    ],
)
def test_what_is_no_plain_radiograph_is_refused(tmp_path, changes, words):
    with pytest.raises(InputError) as error:
        read_projection(write_dx(tmp_path / "x.dcm", **changes))
    assert words in str(error.value) and "x.dcm" in str(error.value) and "\n" not in str(error.value)


def test_several_frames_are_refused(tmp_path):
    path = write_dx(tmp_path / "m.dcm", np.stack([ramp(), ramp()]), NumberOfFrames=2)
    with pytest.raises(InputError, match="2 frames; expected one picture"):
        read_projection(path)


def test_a_secondary_capture_of_a_radiograph_is_read(tmp_path):
    path = write_dx(
        tmp_path / "sc.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="CR", PatientOrientation=None
    )
    assert read_projection(path).pixels.max() == 1


# ---- pictures in -------------------------------------------------------------------------------------------


def picture(rows=80, columns=100):
    return (ramp(rows, columns) // 16).astype(np.uint8)


def test_grey_png_jpeg_and_16_bit_png_are_read_as_they_stand(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    assert open_radiograph(tmp_path / "a.png").pixels == pytest.approx(picture() / 255, abs=1e-6)
    assert open_radiograph(tmp_path / "a.png").spacing_mm is None
    Image.fromarray(ramp(top=65535)).save(tmp_path / "b.png")
    assert open_radiograph(tmp_path / "b.png").pixels == pytest.approx(ramp(top=65535) / 65535, abs=1e-6)
    Image.fromarray(picture()).save(tmp_path / "c.jpeg", quality=95)
    assert open_radiograph(tmp_path / "c.jpeg").pixels == pytest.approx(picture() / 255, abs=0.03)


def test_a_colour_file_that_holds_only_grey_is_read_and_a_coloured_one_is_not(tmp_path):
    Image.fromarray(picture()).convert("RGB").save(tmp_path / "grey.png")
    assert open_radiograph(tmp_path / "grey.png").pixels == pytest.approx(picture() / 255, abs=1e-6)
    coloured = np.stack([picture()] * 3, axis=-1)
    coloured[10:20, 10:20] = (255, 0, 0)
    Image.fromarray(coloured).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match="coloured"):
        open_radiograph(tmp_path / "colour.png")


def test_masks_transparent_turned_and_broken_pictures_are_refused(tmp_path):
    Image.fromarray((picture() > 100).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="2 different grey values"):
        open_radiograph(tmp_path / "mask.png")
    see_through = Image.fromarray(picture()).convert("LA")
    see_through.putalpha(120)
    see_through.save(tmp_path / "alpha.png")
    with pytest.raises(InputError, match="transparent"):
        open_radiograph(tmp_path / "alpha.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(picture()).save(tmp_path / "phone.jpg", exif=turned)
    with pytest.raises(InputError, match="upright"):
        open_radiograph(tmp_path / "phone.jpg")
    (tmp_path / "broken.png").write_bytes((tmp_path / "mask.png").read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be read"):
        open_radiograph(tmp_path / "broken.png")


# ---- finding -----------------------------------------------------------------------------------------------


def test_a_folder_gives_every_radiograph_and_says_what_was_passed_over(tmp_path):
    (tmp_path / "A" / ".cache").mkdir(parents=True)
    Image.fromarray(picture()).save(tmp_path / "A" / "one.png")
    Image.fromarray(picture()).save(tmp_path / "A" / ".cache" / "hidden.png")
    write_dx(tmp_path / "A" / "IM1")
    (tmp_path / "notes.txt").write_text("text")
    phantom = chiral_phantom()
    write_series(phantom.volume_hu[:2], chiral_geometry(phantom, 2), tmp_path / "CT")
    cases, notes = find_radiographs(tmp_path)
    assert [name for name, _ in cases] == ["A_IM1", "A_one"]
    assert len(notes) == 1 and notes[0].startswith("2 files") and "CT Image Storage" in notes[0]


def chiral_geometry(phantom, slices):
    from medseg.geometry import Geometry

    g = phantom.geometry
    return Geometry(
        (slices, *g.shape[1:]),
        g.origins_lps_mm[:slices],
        g.row_step_lps_mm,
        g.column_step_lps_mm,
        g.frame_of_reference_uid,
    )


def test_an_empty_folder_and_a_folder_of_ct_slices_are_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="no radiograph found.*Seen: no file"):
        find_radiographs(tmp_path)
    phantom = chiral_phantom()
    write_series(phantom.volume_hu[:2], chiral_geometry(phantom, 2), tmp_path / "CT")
    with pytest.raises(InputError, match="CT Image Storage, not a projection radiograph"):
        find_radiographs(tmp_path / "CT")


def test_a_stated_view_that_the_bundle_did_not_learn_is_refused(tmp_path):
    load = LoadRadiographd("image", views=["AP", "PA"])
    assert load({"image": str(write_dx(tmp_path / "pa.dcm", ViewPosition="PA"))})["image"].shape == (
        1,
        80,
        100,
    )
    with pytest.raises(InputError, match="view LL; this bundle learned from AP and PA views"):
        load({"image": str(write_dx(tmp_path / "ll.dcm", ViewPosition="LL"))})


# ---- out ---------------------------------------------------------------------------------------------------


def test_nifti_masks_say_that_position_and_perhaps_size_are_unknown(tmp_path):
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 5] = True
    known = nibabel.load(write_flat_mask(mask, (0.2, 0.1), tmp_path / "a.nii.gz"))
    assert known.shape == (6, 4) and known.header.get_zooms() == pytest.approx((0.1, 0.2))
    assert np.argwhere(np.asarray(known.dataobj)).tolist() == [[5, 1]]
    assert known.header.get_xyzt_units()[0] == "mm"
    assert (int(known.header["qform_code"]), int(known.header["sform_code"])) == (0, 0)
    unknown = nibabel.load(write_flat_mask(mask, None, tmp_path / "b.nii.gz"))
    assert unknown.header.get_xyzt_units()[0] == "unknown"
    sitk = pytest.importorskip("SimpleITK")
    assert (
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))).tolist()
        == mask.astype(int).tolist()
    )


def test_masks_of_another_shape_and_names_that_do_not_fit_are_refused():
    case = Radiograph("a.png", np.zeros((4, 6), np.float32), "as stored")
    with pytest.raises(StructureError, match=r"array \(6, 4\) for an image of \(4, 6\)"):
        Structures(case, {Structure("Lung_R"): np.zeros((6, 4), bool)})
    with pytest.raises(StructureError, match="one_piece names Heart"):
        ToRadiographStructuresd("pred", structures=[{"name": "Lung_R"}], one_piece=["Heart"])
    with pytest.raises(InputError, match="RT Structure Set needs CT or MR slices"):
        SaveRadiographd(formats=["rtstruct"])


@pytest.fixture(scope="module")
def bright_bundle(tmp_path_factory):
    """cxr_anatomy's own configs around a one-pixel network: Lung_R is what is brighter than 0.6, Lung_L what
    is darker."""
    folder = tmp_path_factory.mktemp("bundles") / "bright"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("*.pt"))
    network = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 4, "kernel_size": 1}
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "network_def": network, "engine": "torch"}))
    weight = torch.tensor([200.0, -200.0, 0.0, 0.0]).reshape(4, 1, 1, 1)
    (folder / "models").mkdir(exist_ok=True)
    torch.save(
        {"weight": weight, "bias": torch.tensor([-120.0, 120.0, -9.0, -9.0])}, folder / "models" / "model.pt"
    )
    return folder


def two_pieces():
    """A dark picture, 300 rows x 200 columns, with a large bright block at the top left and a small one at
    the bottom."""
    pixels = np.tile(np.linspace(0, 900, 200), (300, 1)).astype(np.uint16)
    pixels[30:90, 20:140] = 4000
    pixels[250:260, 100:110] = 4000
    return pixels


def test_a_dx_file_goes_through_the_bundle_to_masks_on_its_own_pixels(tmp_path, bright_bundle, program):
    write_dx(tmp_path / "chest.dcm", two_pieces(), ImagerPixelSpacing=[0.4, 0.4])
    request = Request(
        tmp_path / "chest.dcm",
        str(bright_bundle),
        tmp_path / "out",
        formats=("png", "nifti", "seg", "preview"),
    )
    assert segment(request)["cases"][0]["status"] == "done"
    folder = tmp_path / "out" / "chest"
    mask = np.asarray(Image.open(folder / "Lung_R.png"))
    assert mask.shape == (300, 200) and set(np.unique(mask)) == {0, 255}
    rows, columns = np.nonzero(mask)
    # Only the larger piece is kept; the network saw the picture at 256 / 300 of its size, so edges move by a
    # pixel at most.
    assert abs(rows.min() - 30) <= 1 and abs(rows.max() - 89) <= 1
    assert abs(columns.min() - 20) <= 1 and abs(columns.max() - 139) <= 1
    record = json.loads((folder / "run.json").read_text())
    assert record["geometry"]["spacing_from"] == "ImagerPixelSpacing, at the detector"
    assert record["structures"][0]["area_cm2"] == pytest.approx(np.count_nonzero(mask) * 0.16 / 100, abs=0.01)
    assert record["input"]["shown"] == "whole range of values" and "Doe" not in json.dumps(record)
    assert Image.open(folder / "preview.png").size[0] == 990
    found = pydicom.dcmread(folder / "SEG.dcm")
    source = pydicom.dcmread(tmp_path / "chest.dcm", stop_before_pixels=True)
    assert str(found.PatientName) == "Doe^Jane" and found.StudyInstanceUID == source.StudyInstanceUID
    item = found.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "PlanePositionSequence" not in found.PerFrameFunctionalGroupsSequence[0], "no place is invented"
    assert (found.pixel_array[0] > 0).tolist() == (mask > 0).tolist()
    result = subprocess.run(
        [program("dciodvfy"), str(folder / "SEG.dcm")], capture_output=True, text=True, check=False
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert "Segmentation" in lines and not [line for line in lines if line.startswith("Error")]


def test_a_picture_gets_pixels_and_no_centimetres_and_no_dicom(tmp_path, bright_bundle):
    (tmp_path / "in").mkdir()
    Image.fromarray((two_pieces() // 16).astype(np.uint8)).save(tmp_path / "in" / "chest.png")
    segment(Request(tmp_path / "in", str(bright_bundle), tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "chest" / "run.json").read_text())
    assert [output["file"] for output in record["outputs"]] == [
        "AirWay_Prox.png",
        "Lung_L.png",
        "Lung_R.png",
        "Mediastinum.png",
        "preview.png",
    ]
    assert record["structures"][0]["area_cm2"] is None and record["structures"][0]["area_pixels"] > 6000
    assert record["geometry"] == {
        "shape_rows_columns": [300, 200],
        "pixel_spacing_mm": None,
        "spacing_from": "not known",
    }
    cohort = segment(Request(tmp_path / "in", str(bright_bundle), tmp_path / "seg", formats=("seg",)))
    assert "needs a DICOM image to refer to" in cohort["cases"][0]["error"]
    assert find_radiographs(tmp_path, is_result)[1] == [
        f"5 files, e.g. {tmp_path}/out/chest/AirWay_Prox.png: a file that medseg wrote: results are no cases"
    ]


def test_rtstruct_regions_and_png_masks_of_volumes_are_refused_before_anything_is_read(
    tmp_path, bright_bundle
):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="projection without a place in the patient"):
        segment(Request(tmp_path / "a.png", str(bright_bundle), tmp_path / "out", formats=("rtstruct",)))
    with pytest.raises(Exception, match="no setting 'within'"):
        segment(Request(tmp_path / "a.png", str(bright_bundle), tmp_path / "out", within="0,1,0,1,0,1"))
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match="format png: ct_gtv answers with structures on a volume"):
        segment(Request(tmp_path / "ct.nii.gz", "ct_gtv", tmp_path / "out", formats=("png",)))
