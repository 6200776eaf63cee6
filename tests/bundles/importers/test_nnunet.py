"""An imported nnU-Net model gives, through medseg segment, the very label map of nnU-Net's own predictor."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon
from nnunet_models import (
    LABELS,
    REGIONS,
    checkpoint_of,
    configuration,
    dataset_of,
    network_of,
    plans_of,
    predicted_by_nnunet,
    write_model,
)
from referees import stored_contours
from scipy.ndimage import gaussian_filter

from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.importers.nnunet import NnunetRequest, import_nnunet
from medseg.bundles.request import Request
from medseg.bundles.verify import verify
from medseg.cli.main import main
from medseg.errors import BundleError, InputError, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

pytest.importorskip("dynamic_network_architectures", reason="pip install 'medseg[nnunet]'")
pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.MedsegWarning")

CT, MR = ["CTNormalization"], ["ZScoreNormalization"]


@pytest.fixture(autouse=True)
def own_trust_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_TRUST_FILE", str(tmp_path / "trusted.json"))


@pytest.fixture
def nnunetv2():
    return pytest.importorskip("nnunetv2", reason="nnunetv2, the referee, is not installed")


def smooth(shape=(15, 24, 22), seed=0, scale=3000.0):
    """float32 of smooth noise with a frame of 0 around and a hole of 0 inside."""
    noise = np.random.default_rng(seed).normal(size=shape)
    volume = (gaussian_filter(noise, 2) * scale).astype(np.float32)
    volume[:2], volume[:, :3], volume[..., -4:], volume[6:9, 10:14, 10:14] = 0, 0, 0, 0
    return volume


def write_nifti(volume_zyx, mm, path, turn=None):
    """A NIfTI file whose array is ``volume_zyx`` as SimpleITK would read it; ``turn``: a 3 x 3 matrix for the
    directions of x, y, z."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(mm[::-1])
    affine[:3, 3] = 5.0, -7.0, 11.0
    nibabel.save(nibabel.Nifti1Image(volume_zyx.transpose(2, 1, 0), affine), path)
    return path


def stored(mm):
    """Voxel sides as a NIfTI file gives them back: float32, which decides whether 16.5 voxels are 16 or
    17."""
    return [float(np.float32(side)) for side in mm]


def masks_of(folder: Path, labels) -> np.ndarray:
    """The label map [slice, row, column] that the written NIfTI masks make together."""
    result = None
    for name, number in labels.items():
        mask = np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj).transpose(2, 1, 0)
        result = np.zeros(mask.shape, int) if result is None else result
        result[mask > 0] = number
    return result


def contoured(bundle, source, tmp_path, **fields) -> Path:
    """The folder of the one case that medseg segment contoured."""
    request = Request(source, bundle, tmp_path / "out", formats=("nifti",), device="cpu", **fields)
    (case,) = segment(request)["cases"]
    assert case["status"] == "done", case
    return Path(case["folder"])


def labels_of(dataset):
    return {name: number for name, number in dataset["labels"].items() if name != "background"}


OBLIQUE = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
FLIPPED = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
FULL = [16, 16, 16]
COARSE, TURNED = configuration([5, 1.2, 1.2], [8, 16, 16], CT), configuration([1.2, 1.5, 1.5], FULL, CT)
MODELS = {
    "no resampling": (configuration([2, 1, 1], FULL, CT), (2, 1, 1), None, (0, 1, 2), (0,)),
    "oblique": (configuration([2, 1, 1], FULL, CT), (2, 1.3, 1.2), OBLIQUE, (0, 1, 2), (0,)),
    "coarse slices apart": (COARSE, (6, 1, 1.1), None, (0, 1, 2), (0, 1)),
    "another order of axes": (TURNED, (2, 1, 1.3), FLIPPED, (2, 0, 1), (0,)),
    "residual encoder": (configuration([2, 1.5, 1.5], FULL, CT, True), (2, 1, 1.3), None, (0, 1, 2), (0,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_masks_equal_those_of_nnunet_voxel_by_voxel(name, tmp_path, nnunetv2):
    own, mm, turn, transpose, folds = MODELS[name]
    dataset = dataset_of(LABELS)
    mirror = (0, 1, 2) if len(folds) > 1 else (1,)
    model = write_model(
        tmp_path, plans_of({"3d_fullres": own}, transpose), dataset, folds=folds, mirror=mirror
    )
    volume = smooth()
    source = write_nifti(volume, mm, tmp_path / "ct.nii.gz", turn)
    bundle = import_nnunet(NnunetRequest(model, tmp_path / "bundle"))
    found = masks_of(contoured(bundle, source, tmp_path), labels_of(dataset))
    wanted = predicted_by_nnunet(model, volume[None], stored(mm), folds)
    assert np.count_nonzero(found != wanted) == 0
    assert len(np.unique(wanted)) >= 3


def test_a_network_of_slices_equals_nnunets(tmp_path, nnunetv2):
    dataset, volume = dataset_of(LABELS), smooth((6, 28, 24))
    plans = plans_of({"2d": configuration([1.2, 1.2], [16, 16], CT)})
    model = write_model(tmp_path, plans, dataset, "2d", mirror=(0, 1))
    source = write_nifti(volume, (4, 1, 1.1), tmp_path / "ct.nii.gz")
    bundle = import_nnunet(NnunetRequest(model, tmp_path / "bundle"))
    found = masks_of(contoured(bundle, source, tmp_path), labels_of(dataset))
    assert (found == predicted_by_nnunet(model, volume[None], stored((4, 1, 1.1)))).all()


def test_regions_of_two_mr_series_equal_nnunets(tmp_path, nnunetv2):
    dataset = dataset_of(REGIONS, ("T1", "T2"))
    plans = plans_of({"3d_fullres": configuration([1.5, 1.5, 1.5], [16, 16, 16], MR * 2)})
    model = write_model(tmp_path, plans, dataset, mirror=None)
    volumes = [smooth(seed=1), smooth(seed=2)]
    t1, t2 = (write_nifti(v, (2, 1, 1), tmp_path / f"t{n}.nii.gz") for n, v in enumerate(volumes, 1))
    bundle = import_nnunet(NnunetRequest(model, tmp_path / "bundle"))
    assert bundle.modalities == {"image": "MR:T1", "t2": "MR:T2"}
    folder = contoured(bundle, t1, tmp_path, series=(("MR:T2", str(t2)),))
    wanted = predicted_by_nnunet(model, np.stack(volumes), (2, 1, 1))
    assert len(np.unique(wanted)) >= 3
    for name, numbers in REGIONS.items():
        if name != "background":
            mask = np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj).transpose(2, 1, 0) > 0
            assert (mask == np.isin(wanted, numbers)).all()


def test_a_cascade_equals_nnunets_two_runs(tmp_path, nnunetv2):
    dataset, volume, mm = dataset_of(LABELS), smooth(), (2, 1, 1)
    own = {
        "3d_lowres": configuration([3, 2, 2], [8, 16, 16], CT),
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "3d_fullres": configuration([1.7, 1, 1], [16, 16, 16], CT),
    }
    own["3d_cascade_fullres"]["architecture"] = own["3d_fullres"]["architecture"]
    first = write_model(tmp_path, plans_of(own), dataset, "3d_lowres")
    second = write_model(tmp_path, plans_of(own), dataset, "3d_cascade_fullres")
    source = write_nifti(volume, mm, tmp_path / "ct.nii.gz")
    bundle = import_nnunet(NnunetRequest(second, tmp_path / "bundle"))
    found = masks_of(contoured(bundle, source, tmp_path), labels_of(dataset))
    low = predicted_by_nnunet(first, volume[None], mm)
    assert len(np.unique(low)) >= 3
    assert (found == predicted_by_nnunet(second, volume[None], mm, previous=low)).all()


def test_an_oblique_series_is_contoured_as_nnunet_and_simpleitk_see_it(tmp_path, nnunetv2):
    """nnU-Net predicts on SimpleITK's array of the files; SimpleITK says where the RTSTRUCT's points lie in
    it."""
    turned = {"orientation": (0.8, 0.5, 0.33, -0.45, 0.86, -0.2), "pixel_spacing_mm": (1.5, 1.25)}
    geometry = stack_geometry((24, 48, 52), gaps_mm=3.0, centre_lps_mm=(7, -20, 110), **turned)
    phantom = chiral_phantom(geometry)
    # Noise, since on a plain phantom the same tie of two labels fills whole organs.
    noisy = phantom.volume_hu + np.random.default_rng(0).normal(0, 60, phantom.volume_hu.shape)
    write_series(noisy, geometry, tmp_path / "CT")
    dataset = dataset_of(LABELS)
    model = write_model(tmp_path, plans_of({"3d_fullres": configuration([4, 3, 3], [16] * 3, CT)}), dataset)
    bundle = import_nnunet(NnunetRequest(model, tmp_path / "bundle"))
    request = Request(tmp_path / "CT", bundle, tmp_path / "out", formats=("rtstruct",), device="cpu")
    (case,) = segment(request)["cases"]
    assert case["status"] == "done", case

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "CT")))
    image = reader.Execute()
    assert np.abs(np.array(image.GetDirection()).reshape(3, 3)).max(axis=0).max() < 0.95  # oblique it is
    channels = sitk.GetArrayFromImage(image).astype(np.float32)[None]
    wanted = predicted_by_nnunet(model, channels, image.GetSpacing()[::-1])
    for name, number in labels_of(dataset).items():
        found = filled(stored_contours(Path(case["folder"]) / "RS.dcm").get(name, []), image)
        assert (found == (wanted == number)).all(), name
    assert len(np.unique(wanted)) >= 3


def filled(contours, image: sitk.Image) -> np.ndarray:
    """The voxels [slice, row, column] of ``image`` whose centres lie inside an odd number of polygons."""
    mask = np.zeros(image.GetSize()[::-1], bool)
    rows, columns = np.indices(mask.shape[1:])
    centres = np.column_stack([columns.ravel(), rows.ravel()])
    for _, points, _ in contours:
        at = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in points])
        assert np.abs(at[:, 2] - at[0, 2].round()).max() < 0.01, "not on a slice"
        mask[int(at[0, 2].round())] ^= Polygon(at[:, :2]).contains_points(centres).reshape(mask.shape[1:])
    return mask


def test_of_a_model_with_postprocessing_only_the_largest_piece_stays(tmp_path):
    plans = plans_of({"3d_fullres": configuration([2, 1, 1], [16, 16, 16], CT)})
    model, dataset = write_model(tmp_path, plans, dataset_of(LABELS)), dataset_of(LABELS)
    source = write_nifti(smooth(), (2, 1, 1), tmp_path / "ct.nii.gz")
    plain = contoured(import_nnunet(NnunetRequest(model, tmp_path / "plain")), source, tmp_path / "a")
    kept = {"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"]}
    kept["postprocessing_kwargs"] = [{"labels_or_regions": [2]}]
    (model / "postprocessing.json").write_text(json.dumps(kept))
    largest = contoured(import_nnunet(NnunetRequest(model, tmp_path / "kept")), source, tmp_path / "b")
    before, after = (masks_of(folder, labels_of(dataset)) for folder in (plain, largest))
    from scipy.ndimage import label

    pieces, count = label(before == 2, np.ones((3, 3, 3)))
    assert count > 1 and (after == 2).sum() == np.bincount(pieces.ravel())[1:].max()
    assert (after[before != 2] == before[before != 2]).all()


# ---- what a bundle of an import says -----------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    """A model folder of one fold."""
    plans = plans_of({"3d_fullres": configuration([4, 3, 3], [8, 8, 8], CT)})
    return write_model(tmp_path, plans, dataset_of(LABELS))


def test_an_imported_bundle_is_good_and_says_where_it_is_from(tiny, tmp_path):
    bundle = import_nnunet(NnunetRequest(tiny, tmp_path / "bundle"))
    assert [what for what, problem in verify(bundle) if problem] == []
    assert not list(bundle.folder.rglob("*.py"))
    about = bundle.metadata["imported"]
    assert about["licence"] == "CC-BY-4.0" and len(about["sha256"]) == 3
    card = (bundle.folder / "docs" / "README.md").read_text()
    assert "Not evaluated by medseg" in card and about["sha256"]["fold_0/checkpoint_final.pth"] in card


def test_names_types_and_colours_come_from_the_users_map(tiny, tmp_path):
    names = tmp_path / "map.csv"
    names.write_text("label,name,type,colour\nLung_Left,Lung_L,AVOIDANCE,#0102ff\nLung_Right,,,\n")
    assert (
        main(["bundles", "import", "nnunet", str(tiny), "-o", str(tmp_path / "b"), "--names", str(names)])
        == 0
    )
    config = json.loads((tmp_path / "b" / "configs" / "inference.json").read_text())
    heart, lung = config["postprocessing"]["transforms"][0]["structures"]
    assert heart["name"] == "Heart" and heart["labels"] == [1]
    assert lung == {
        "name": "Lung_L",
        "interpreted_type": "AVOIDANCE",
        "colour_rgb": [1, 2, 255],
        "labels": [2],
    }


# ---- what is refused ---------------------------------------------------------------------------------------


def test_a_map_that_swaps_sides_is_refused(tiny, tmp_path):
    names = tmp_path / "map.csv"
    names.write_text("label,name\nLung_Left,Lung_R\nLung_Right,Lung_L\n")
    with pytest.raises(InputError, match="left and right are swapped"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b", names=names))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("label,name\nLiver,Liver\n", "'Liver' is none of the model's"),
        ("label,name\nHeart,Lung\nLung_Left,lung\n", "two structures are called"),
        ("label,name\nHeart,\nLung_Left,\nLung_Right,\n", "nothing would be contoured"),
        ("label,name,type\nHeart,Heart,MUSCLE\n", "type 'MUSCLE'"),
        ("name\nHeart\n", "expected label,name"),
    ],
)
def test_a_map_of_other_labels_or_none_is_refused(rows, message, tiny, tmp_path):
    (tmp_path / "map.csv").write_text(rows)
    with pytest.raises((InputError, StructureError), match=message):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b", names=tmp_path / "map.csv"))


def test_a_model_of_version_1_is_refused(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "plans.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match="version 1"):
        import_nnunet(NnunetRequest(tmp_path / "old", tmp_path / "b"))


def test_a_missing_fold_is_named_with_those_that_are_there(tiny, tmp_path):
    with pytest.raises(BundleError, match="fold 3; folds there: 0"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b", folds=("0", "3")))


def test_plans_of_another_configuration_are_refused(tiny, tmp_path):
    plans = plans_of({"2d": configuration([1, 1], [8, 8], CT)})
    (tiny / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(BundleError, match="these plans are of another model"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))
    with pytest.raises(BundleError, match="trained as 3d_fullres, not as 2d"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b", configuration="2d"))


def test_weights_of_another_network_are_refused(tiny, tmp_path):
    plans = plans_of({"3d_fullres": configuration([4, 3, 3], [8, 8, 8], CT, residual=True)})
    (tiny / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(BundleError, match="do not fit the network of plans.json"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))


def test_code_in_a_checkpoint_is_not_run(tiny, tmp_path):
    import torch

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was_run",))

    plans, dataset = (json.loads((tiny / name).read_text()) for name in ("plans.json", "dataset.json"))
    content = checkpoint_of(network_of(plans, dataset, "3d_fullres"), "3d_fullres", 0, (0,))
    torch.save({**content, "logging": Trap()}, tiny / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(BundleError, match="which reading it would call"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))
    assert not (tmp_path / "was_run").exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("plans.json", {"image_reader_writer": "MyReader"}, "read by 'MyReader'"),
        ("dataset.json", {"labels": {"background": 0, "Heart": 1, "Lung_L": 3}}, "expected 1 to 2"),
        ("dataset.json", {"channel_names": {"0": "CT", "1": "PET"}}, "not of one model"),
        ("dataset.json", {"channel_names": {"0": "noise"}}, "its name is no modality"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(file, change, message, tiny, tmp_path):
    content = json.loads((tiny / file).read_text())
    (tiny / file).write_text(json.dumps({**content, **change}))
    with pytest.raises((BundleError, InputError), match=message):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))


def test_a_cascade_without_its_first_stage_is_refused(tmp_path):
    own = configuration([2, 1, 1], [8, 8, 8], CT) | {"previous_stage": "3d_lowres"}
    model = write_model(
        tmp_path, plans_of({"3d_cascade_fullres": own}), dataset_of(LABELS), "3d_cascade_fullres"
    )
    with pytest.raises(BundleError, match="first stage's folder has to lie beside it"):
        import_nnunet(NnunetRequest(model, tmp_path / "b"))


def test_a_bundle_that_was_changed_after_the_import_asks_for_trust_again(tiny, tmp_path):
    bundle = import_nnunet(NnunetRequest(tiny, tmp_path / "bundle"))
    path = bundle.folder / "configs" / "inference.json"
    path.write_text(path.read_text().replace("engine", "engine ", 1))
    source = write_nifti(smooth(), (2, 1, 1), tmp_path / "ct.nii.gz")
    with pytest.raises(BundleError, match="did not come with medseg"):
        segment(Request(source, find_bundle(bundle.folder), tmp_path / "out"))
