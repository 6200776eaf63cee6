"""Images that a network knows nothing about are refused at the gate, whichever door they came in by."""

from __future__ import annotations

import json
import shutil
from functools import reduce

import numpy as np
import pydicom
import pytest
import torch
from chiral_cases import case_at, chiral_series, contoured
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.config import build, load_config
from medseg.bundles.find import bundle_folders, find_bundle
from medseg.bundles.request import Request
from medseg.bundles.trust import trust
from medseg.cases.nifti import write_volume
from medseg.errors import BundleError, InputError, MedsegWarning
from medseg.phantoms.series import stack_geometry, write_series
from medseg.transforms import CheckInputd, LoadCased, LoadRadiographd
from medseg.transforms.gate import read_gate
from medseg.transforms.likeness import LOOKS, coarse_ct, distances

ANY = [-100000, 100000]
GATE = {
    "learned_from": "legs on CT",
    "modalities": ["CT"],
    "body_parts": ["limb"],
    "fewest_values": 64,
    "bands": [
        {"what": "of air or fat", "hu": [-100000, -50], "of_hu": ANY, "share": [0.05, 1.0]},
        {"what": "like dense bone", "hu": [900, 100000], "of_hu": [-500, 100000], "share": [0.0, 0.2]},
    ],
    "shortest_mm": [30.0, 30.0, 30.0],
    "longest_mm": [400.0, 400.0, 400.0],
    "look": "tissue",
    "limit": 3.0,
    # logarithms of the shares of lung, fat and bone; HU of soft tissue and its spread; spread of all tissue
    "mean": [float(np.log(0.003)), float(np.log(0.5)), float(np.log(0.003)), 50.0, 5.0, 75.0],
    "covariance": np.diag([1.0, 0.1, 1.0, 100.0, 25.0, 100.0]).tolist(),
    "fitted": {},
}


def gate_file(folder, **changes):
    path = folder / "gate.json"
    path.write_text(json.dumps({**GATE, **changes}))
    return path


def leg(shift_hu: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """float [24, 32, 32] in HU: air, and a leg, half fat (-100) and half muscle (50), with noise of 5 HU."""
    rng = np.random.default_rng(0)
    volume = np.full((24, 32, 32), -1000.0)
    volume[:, 4:28, 4:16] = -100.0
    volume[:, 4:28, 16:28] = 50.0
    return np.round((volume + rng.normal(0, 5, volume.shape)) * scale + shift_hu)


def nifti(folder, volume, spacing_mm=4.0):
    geometry = stack_geometry(volume.shape, gaps_mm=spacing_mm, pixel_spacing_mm=(spacing_mm, spacing_mm))
    return str(write_volume(volume.astype(np.float32), geometry, folder / "case.nii.gz"))


def checked(source, gate, allow=()):
    return CheckInputd("image", gate, allow)(LoadCased("image")({"image": source}))["image"]


def refusal(source, gate) -> str:
    with pytest.raises(InputError) as raised:
        checked(source, gate)
    assert "\n" not in str(raised.value) and "`allow=out_of_distribution`" in str(raised.value)
    return str(raised.value)


def test_a_leg_passes_as_it_is(tmp_path):
    source = nifti(tmp_path, leg())
    image = checked(source, gate_file(tmp_path))
    assert torch.equal(image, LoadCased("image")({"image": source})["image"])


def test_a_label_map_is_named_as_one(tmp_path):
    labels = np.zeros((24, 32, 32))
    labels[4:12, 8:20, 8:20], labels[12:20, 8:20, 8:20] = 1, 2
    words = refusal(nifti(tmp_path, labels), gate_file(tmp_path))
    assert "only 3 different values, 0 to 2 (a label map?), expected Hounsfield units" in words


def test_numbers_that_were_never_rescaled_to_hu_are_refused(tmp_path):
    # Stored numbers begin at 0 where HU begin at about -1000: nothing is as dark as fat.
    words = refusal(nifti(tmp_path, np.maximum(leg(shift_hu=1024), 0)), gate_file(tmp_path))
    assert "its values, " in words and "are no Hounsfield units of a patient: 0 % of air or fat" in words


def test_padding_below_air_does_not_hide_that_numbers_were_never_rescaled(tmp_path):
    volume = leg(shift_hu=1024)
    volume[:, :4] = -2000
    assert "% like dense bone" in refusal(nifti(tmp_path, volume), gate_file(tmp_path))


def test_an_image_smaller_or_larger_than_the_training_images_is_refused(tmp_path):
    # 24 slices of 1 mm are 24 mm; 32 pixels of 15 mm are 480 mm.
    assert "24 mm from feet to head, expected 30 mm" in refusal(
        nifti(tmp_path, leg(), 1.0), gate_file(tmp_path, shortest_mm=[0, 0, 30])
    )
    assert "480 mm from left to right, expected 400 mm or less (cut it with `within`)" in refusal(
        nifti(tmp_path, leg(), 15.0), gate_file(tmp_path)
    )


def test_another_kind_of_tissue_is_refused_with_what_is_most_unlike(tmp_path):
    bony = leg()
    bony[:, 4:28, 16:28] = 400 + np.random.default_rng(1).normal(0, 5, bony[:, 4:28, 16:28].shape)
    bony[:, 4:28, 14:16] = 50
    words = refusal(nifti(tmp_path, bony), gate_file(tmp_path))
    assert "it looks different (distance" in words and "expected 3 or less" in words
    assert "most of all in spread of HU in all tissue: " in words and "above the usual" in words


def dicom(folder, **tags):
    geometry = stack_geometry((24, 32, 32), gaps_mm=4.0, pixel_spacing_mm=(4.0, 4.0))
    for file in write_series(leg(), geometry, folder / "CT"):
        dataset = pydicom.dcmread(file)
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)
    return str(folder / "CT")


@pytest.mark.parametrize("word", ["", "EXTREMITY", "LEG", "OUR OWN WORD"])
def test_a_body_part_that_is_missing_fitting_or_a_clinics_own_word_passes(word, tmp_path):
    checked(dicom(tmp_path, BodyPartExamined=word), gate_file(tmp_path))


@pytest.mark.parametrize("word", ["CHEST", "HEAD_NECK"])
def test_a_body_part_that_the_bundle_does_not_know_is_refused(word, tmp_path):
    source = dicom(tmp_path, BodyPartExamined=word)
    assert f"BodyPartExamined {word}, expected limb" in refusal(source, gate_file(tmp_path))


def test_a_region_is_judged_by_itself_and_its_file_by_all_its_values(tmp_path):
    # Half of the leg is muscle alone: of 50 HU, spread 5, no fat. The whole is half fat.
    source = nifti(tmp_path, leg())
    image = LoadCased("image")({"image": source})["image"]
    muscle = {"image": image[:, 18:26]}
    gate = gate_file(tmp_path, bands=GATE["bands"][:1])
    with pytest.raises(InputError, match="it looks different .*most of all in share of fat"):
        CheckInputd("image", gate)(muscle)


# ---- what the numbers are ----------------------------------------------------------------------------------


def test_tissue_is_counted_in_shares():
    numbers = LOOKS["tissue"].numbers(leg().transpose(2, 1, 0), (4.0, 4.0, 4.0))[0]
    assert np.exp(numbers[:3]) == pytest.approx([0.003, 0.5, 0.003], rel=1e-6)
    assert numbers[3:] == pytest.approx([50, 5, 75], abs=0.5)


def body_of(radii_mm, voxel_mm=4.0) -> np.ndarray:
    """HU (x, y, z): round slices of soft tissue, one radius for each 4 mm of height, in 400 mm of air."""
    x, y = (np.mgrid[:100, :100] - 49.5) * voxel_mm
    return np.stack([np.where(x**2 + y**2 <= radius**2, 40.0, -1000.0) for radius in radii_mm], axis=-1)


def test_a_neck_between_shoulders_and_head_is_measured_where_it_is():
    radii_mm = [150.0] * 16 + [60.0] * 10 + [90.0] * 16
    rows = LOOKS["neck"].numbers(body_of(radii_mm), (4.0, 4.0, 4.0))
    # 42 slices less 15 + 2 below and 15 + 2 above: levels at 60 mm, each the mean of five slices
    assert rows.shape == (8, 12)
    areas_cm2 = np.exp(rows[:, :5])
    best = rows[(areas_cm2[:, 2] / areas_cm2[:, 0]).argmin()]
    voxel = 4.0  # the mask has one voxel of air around
    for radius, found in zip((150, 60, 90), np.exp(best[[0, 2, 4]]), strict=True):
        assert np.pi * radius**2 / 100 < found < np.pi * (radius + 1.5 * voxel) ** 2 / 100
    assert np.exp(best[5:8]) == pytest.approx([1, 1, 1], abs=0.02)
    assert np.exp(best[8:11]) == pytest.approx([0.003] * 3)


def test_a_scan_too_short_for_a_neck_or_without_a_body_has_no_place_for_one():
    assert LOOKS["neck"].numbers(body_of([60.0] * 20), (4.0, 4.0, 4.0)).shape == (0, 12)
    assert LOOKS["neck"].numbers(body_of([0.0] * 50), (4.0, 4.0, 4.0)).shape == (0, 12)
    assert LOOKS["tissue"].numbers(np.full((9, 9, 9), -1000.0), (4.0, 4.0, 4.0)).shape == (0, 6)


def test_a_coarse_ct_has_its_axes_to_right_anterior_and_superior_wherever_they_were():
    image = torch.arange(4 * 6 * 2, dtype=torch.float32).reshape(4, 6, 2)
    affine = np.array([[0, -2.0, 0, 0], [0, 0, 4.0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    # axis 0 of 2 mm runs to the head, axis 1 of 2 mm to the left, axis 2 of 4 mm to the front
    coarse, mm = coarse_ct(image, affine)
    assert mm == (4.0, 4.0, 4.0) and coarse.shape == (3, 2, 2)
    means = image.reshape(2, 2, 3, 2, 2).mean(dim=(1, 3)).numpy()
    assert np.array_equal(coarse, means.transpose(1, 2, 0)[::-1])


def test_a_film_is_most_like_itself_and_the_inverse_of_its_inverse():
    rng = np.random.default_rng(3)
    film = torch.from_numpy(np.kron(rng.random((32, 32)), np.ones((4, 4))))
    template = film.reshape(32, 4, 32, 4).mean((1, 3)).numpy()
    numbers = LOOKS["film"].numbers(film, template)[0]
    assert np.tanh(numbers[:2]) == pytest.approx([0.999, 0.999], abs=0.002)
    assert numbers[4] == 0  # as wide as high
    moved = LOOKS["film"].numbers(torch.roll(film, (8, 8), (0, 1)), template)[0]  # two pixels of 32
    assert np.tanh(moved[0]) == pytest.approx(0.999, abs=0.002)
    assert np.tanh(LOOKS["film"].numbers(1 - film, template)[0, 0]) < 0.3


def test_distances_are_those_of_mahalanobis():
    # (2, 0) from (0, 0) with variance 4 is 1; (3, 4) with variances 4 and 1 is sqrt(9/4 + 16)
    rows = np.array([[2.0, 0.0], [3.0, 4.0]])
    found = distances(rows, np.zeros(2), np.diag([4.0, 1.0]))
    assert found == pytest.approx([1, np.sqrt(18.25)])
    assert distances(np.empty((0, 2)), np.zeros(2), np.eye(2)).shape == (0,)


# ---- what is accepted all the same says so -----------------------------------------------------------------


@pytest.fixture(scope="module")
def gated(bright_bundle, tmp_path_factory):
    """The bundle that contours what is bright, with a gate that knows legs: chiral phantoms are none."""
    folder = tmp_path_factory.mktemp("bundles") / "gated"
    shutil.copytree(bright_bundle, folder)
    gate_file(folder / "configs")
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    step = {"_target_": "medseg.transforms.CheckInputd", "keys": "image", "allow": "@allow"}
    step["gate"] = "$@bundle_root + '/configs/gate.json'"
    config["preprocessing"]["transforms"].insert(2, step)
    path.write_text(json.dumps(config))
    trust(find_bundle(folder))
    return folder


def test_what_is_refused_leaves_no_contour_and_a_reason(gated, tmp_path):
    chiral_series(tmp_path / "CT")
    cohort = segment(Request(tmp_path / "CT", str(gated), tmp_path / "out"))
    assert cohort["cases"][0]["status"] == "failed"
    assert "unlike the legs on CT that this bundle learned from" in cohort["cases"][0]["error"]
    assert sorted(path.name for path in (tmp_path / "out" / "CT").iterdir()) == ["run.json"]


def test_what_is_accepted_all_the_same_says_so_in_every_file(gated, bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    formats = ("rtstruct", "seg", "preview")
    options = {"formats": formats, "allow": ("out_of_distribution",), "settings": {"ctv_margin_mm": 5.0}}
    folder = contoured(gated, tmp_path / "CT", tmp_path / "out", **options)
    plain = contoured(bright_bundle, tmp_path / "CT", tmp_path / "plain", formats=formats)
    words = "Accepted out_of_distribution: the image is unlike the legs on CT"

    assert any(warning.startswith(words) for warning in case_at(tmp_path / "out")["warnings"])
    assert not any("out_of_distribution" in warning for warning in case_at(tmp_path / "plain")["warnings"])

    dataset, other = pydicom.dcmread(folder / "RS.dcm"), pydicom.dcmread(plain / "RS.dcm")
    assert (dataset.StructureSetLabel, other.StructureSetLabel) == ("medseg CAUTION", "medseg")
    assert [row.ROIName for row in dataset.StructureSetROISequence] == ["GTV", "CTV"]
    for row in dataset.StructureSetROISequence:
        assert row.ROIDescription.startswith(words) and len(row.ROIDescription) <= 1024
        assert words.startswith(row.ROIGenerationDescription[:40]) and len(row.ROIGenerationDescription) <= 64
    assert not any("ROIDescription" in row for row in other.StructureSetROISequence)

    segments = pydicom.dcmread(folder / "SEG.dcm").SegmentSequence
    assert all(row.SegmentDescription.startswith(words) for row in segments)

    def red_pixels(path):
        top = np.asarray(Image.open(path).convert("RGB")).astype(int)[:30]
        return int(((top[..., 0] > 200) & (top[..., 1] < 60)).sum())

    assert red_pixels(folder / "preview.png") > 200 and red_pixels(plain / "preview.png") == 0


def test_monais_own_command_passes_the_gate_too(gated, tmp_path):
    import monai.bundle

    chiral_series(tmp_path / "CT")
    places = {"dataset_dir": str(tmp_path / "CT"), "output_dir": str(tmp_path / "out"), "device": "cpu"}
    options = {"config_file": str(gated / "configs" / "inference.json"), "bundle_root": str(gated), **places}
    options["formats"] = ["rtstruct"]
    with pytest.raises(RuntimeError):
        monai.bundle.run(**options)
    assert not list(tmp_path.rglob("RS.dcm"))
    monai.bundle.run(**options, allow=["out_of_distribution"])
    dataset = pydicom.dcmread(next(tmp_path.rglob("RS.dcm")))
    assert dataset.StructureSetLabel == "medseg CAUTION"


def test_a_radiograph_allows_nothing_but_the_gate(tmp_path):
    film = {"look": "film", "mean": [0.0] * 9, "covariance": np.eye(9).tolist(), "body_parts": ["chest"]}
    template = np.random.default_rng(0).random((32, 32)).tolist()
    gate = gate_file(tmp_path, **film, template=template, limit=0.1)
    with pytest.raises(InputError, match="'missing_slice': a single picture has none of these"):
        CheckInputd("image", gate, ("missing_slice",))
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 80), np.uint8)).save(tmp_path / "a.png")
    item = LoadRadiographd("image")({"image": str(tmp_path / "a.png")})
    with pytest.raises(InputError, match="it looks different"):
        CheckInputd("image", gate)(item)
    with pytest.warns(MedsegWarning, match="Accepted out_of_distribution"):
        accepted = CheckInputd("image", gate, ("out_of_distribution",))(item)["image"]
    assert accepted.meta["remark"].startswith("Accepted") and "remark" not in item["image"].meta


# ---- gate.json ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"look": "face"}, "KeyError"),
        ({"mean": [0.0] * 5}, "look tissue has 6 numbers"),
        ({"covariance": np.zeros((6, 6)).tolist()}, "not positive"),
        ({"limit": -1.0}, "not positive"),
        ({"body_parts": ["wing"]}, "body part wing; expected some of head, neck"),
        ({"strictness": 3}, "no field strictness"),
        ({"bands": [{"what": "of air"}]}, "missing"),
    ],
)
def test_a_gate_that_does_not_fit_together_is_refused_when_the_bundle_is_built(changes, words, tmp_path):
    with pytest.raises(BundleError, match=words):
        read_gate(gate_file(tmp_path, **changes))
    with pytest.raises(BundleError, match="not a bundle's gate"):
        read_gate(tmp_path / "absent.json")


@pytest.mark.parametrize("name", sorted(bundle_folders()))
def test_every_bundle_has_a_gate_right_behind_reader_and_region(name, tmp_path):
    bundle = find_bundle(name)
    steps = build(bundle, load_config(bundle, "inference", {"device": "cpu"}), "preprocessing").transforms
    kinds = [type(step).__name__ for step in steps]
    at = kinds.index("CheckInputd")
    assert set(kinds[:at]) <= {"LoadCased", "CropWithind", "LoadRadiographd", "LoadPhotographd"}
    # One gate serves both bundles of frontal chest films; tests/bundles/test_cxr_findings.py holds the files
    # together.
    fitted_for = "cxr_anatomy" if name == "cxr_findings" else name
    assert steps[at].gate.fitted["command"].startswith(f"python tools/gates/fit.py {fitted_for} ")


@pytest.mark.parametrize("name", ["mm_gtv", "ct_head_neck"])
def test_a_label_map_passes_no_gate_of_a_ct_bundle(name, tmp_path):
    labels = np.zeros((40, 40, 40))
    labels[10:30, 10:30, 10:30] = 1
    bundle = find_bundle(name)
    chain = build(bundle, load_config(bundle, "inference", {"device": "cpu"}), "preprocessing")
    with pytest.raises(InputError, match="only 2 different values, 0 to 1 .a label map"):
        reduce(lambda item, step: step(item), chain.transforms[:3], {"image": nifti(tmp_path, labels)})
