"""Bundles of the structure of MONAI's zoo run as they are: medseg reads and writes, their own steps do the
rest. The configs here are written after the structure of five of them, with networks of a few weights."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.importers.zoo import NAMES
from medseg.bundles.request import Request
from medseg.cli.main import main
from medseg.dicom import read_rtstruct, read_series
from medseg.errors import BundleError, InputError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series

pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.MedsegWarning")

UNET = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "channels": [4, 8], "strides": [2]}
RESNET = {"_target_": "SegResNet", "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
LOAD = {"_target_": "LoadImaged", "keys": "image"}
RAS = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
FIRST = {"_target_": "EnsureChannelFirstd", "keys": "image"}
TYPED = {"_target_": "EnsureTyped", "keys": "image"}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
HALF = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
LARGEST = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1, 2]}


def spacing(*mm):
    return {"_target_": "Spacingd", "keys": "image", "pixdim": list(mm), "mode": "bilinear"}


def invert(nearest):
    return {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": nearest,
        "to_tensor": True,
    }


SCALE = {
    "_target_": "ScaleIntensityRanged",
    "keys": "image",
    "a_min": -150,
    "a_max": 250,
    "b_min": 0,
    "b_max": 1,
}
BUNDLES = {
    "spleen": (
        {**UNET, "out_channels": 2, "norm": "batch"},
        [FIRST, RAS, spacing(3, 3, 4), SCALE, TYPED],
        [SOFTMAX, invert(False), ARGMAX],
        {"0": "background", "1": "Spleen"},
    ),
    "whole body": (
        {**RESNET, "in_channels": 1, "out_channels": 4},
        [
            TYPED,
            FIRST,
            RAS,
            spacing(3, 3, 3),
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
        ],
        [SOFTMAX, ARGMAX, invert(True)],
        {"0": "background", "1": "Liver", "2": "Kidney_L", "3": "Kidney_R"},
    ),
    "prostate": (
        {**UNET, "out_channels": 3, "act": "prelu", "dropout": 0.1},
        [
            FIRST,
            RAS,
            spacing(3, 3, 3),
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": 0, "maxv": 1},
            {"_target_": "NormalizeIntensityd", "keys": "image"},
            TYPED,
        ],
        [ARGMAX, LARGEST, invert(False)],
        {"0": "background", "1": "Prostate_Central", "2": "Prostate_Periph"},
    ),
}


def write_zoo(folder: Path, network, before, after, channels, inputs=None, **further) -> Path:
    """A bundle folder with random weights; ``inputs``: channel_def of the image."""
    torch.manual_seed(0)
    from monai.bundle import ConfigParser

    definition = ConfigParser({"imports": ["$import torch"], "network": network, **further})
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    torch.save(definition.get_parsed_content("network").state_dict(), folder / "models" / "model.pt")
    save = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"}
    config = {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/workspace/data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        **further,
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [LOAD, *before],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.25},
        "postprocessing": {"_target_": "Compose", "transforms": [*after, save]},
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "run": ["$@evaluator.run()"],
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    modality = "MR" if inputs else "CT"
    image = {
        "modality": modality,
        "num_channels": len(inputs or "1"),
        "channel_def": inputs or {"0": "image"},
    }
    formats = {"inputs": {"image": image}, "outputs": {"pred": {"channel_def": channels}}}
    metadata = {"version": "0.1.0", "network_data_format": formats}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture(autouse=True)
def own_trust_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_TRUST_FILE", str(tmp_path / "trusted.json"))


@pytest.fixture
def series(tmp_path):
    """The folder of a small CT."""
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "CT")
    return tmp_path / "CT"


def contoured(bundle, source, out, **fields):
    """The record and folder of the one case."""
    request = Request(source, bundle, out, device="cpu", trust_bundle=True, **fields)
    (case,) = segment(request)["cases"]
    return case, Path(case["folder"])


@pytest.mark.parametrize("name", BUNDLES)
def test_the_result_is_what_monai_itself_makes_of_the_config(name, tmp_path, series):
    network, before, after, channels = BUNDLES[name]
    bundle = write_zoo(tmp_path / "zoo", network, before, after, channels)
    case, folder = contoured(bundle, series, tmp_path / "out", formats=("rtstruct", "nifti"))
    assert case["status"] == "done", case
    wanted = by_monai(bundle, volume_file(series, tmp_path))
    rois = read_rtstruct(folder / "RS.dcm", read_series(series))
    assert sum((wanted == int(number)).any() for number in channels) >= 2
    for number, structure in channels.items():
        if number != "0":
            mask = np.asarray(nibabel.load(folder / f"{structure}.nii.gz").dataobj) > 0
            assert (mask == (wanted == int(number))).all(), structure
            assert not mask.any() or (rois[structure].transpose(2, 1, 0) == mask).mean() > 0.999


def volume_file(series, tmp_path) -> Path:
    """The series as a NIfTI file, for MONAI."""
    from medseg.cases.volume import open_case

    case = open_case(str(series))
    image = nibabel.Nifti1Image(case.volume.transpose(2, 1, 0), case.geometry.affine_ras)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def by_monai(bundle: Path, image: Path) -> np.ndarray:
    """The label map (x, y, z) by MONAI's own loader and every step of the config but the saving one."""
    from monai.bundle import ConfigParser

    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["postprocessing"]["transforms"].pop()
    names = [step["_target_"] for step in config["postprocessing"]["transforms"]]
    if names.index("Invertd") > names.index("AsDiscreted"):  # numbers of labels are not mixed
        config["postprocessing"]["transforms"][names.index("Invertd")]["nearest_interp"] = True
    parser = ConfigParser({**config, "bundle_root": str(bundle), "device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    item = parser.get_parsed_content("preprocessing")({"image": str(image)})
    with torch.no_grad():
        item["pred"] = parser.get_parsed_content("inferer")(item["image"][None], network)[0]
    return np.rint(parser.get_parsed_content("postprocessing")(item)["pred"][0].numpy())


def test_a_config_in_yaml_with_a_searched_network_runs(tmp_path, series):
    yaml = pytest.importorskip("yaml")
    space = {
        "_target_": "monai.networks.nets.TopologyInstance",
        "channel_mul": 0.1,
        "num_blocks": 6,
        "num_depths": 3,
        "use_downsample": True,
        "arch_code": ["$torch.ones(6, 7).numpy()", "$torch.ones(6, 7).numpy()"],
        "device": "$torch.device('cpu')",
    }
    network = {
        "_target_": "monai.networks.nets.DiNTS",
        "dints_space": "@dints_space",
        "in_channels": 1,
        "num_classes": 3,
        "use_downsample": True,
        "node_a": "$torch.ones(7, 3)",
    }
    channels = {"0": "background", "1": "Pancreas", "2": "GTVp"}
    after = [SOFTMAX, invert(False), ARGMAX]
    before = BUNDLES["spleen"][1]
    bundle = write_zoo(tmp_path / "zoo", network, before, after, channels, dints_space=space)
    config = bundle / "configs" / "inference.json"
    config.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(config.read_text())))
    config.unlink()
    case, folder = contoured(bundle, series, tmp_path / "out", formats=("nifti",))
    assert case["status"] == "done", case
    assert (folder / "Pancreas.nii.gz").is_file() and (folder / "GTVp.nii.gz").is_file()


def brain_tumour(folder: Path, relabelled: bool) -> Path:
    """A bundle of four MR series and three overlapping structures."""
    merge = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
    last = [{"_target_": "Lambdad", "keys": "pred", "func": merge}] if relabelled else []
    return write_zoo(
        folder,
        {**RESNET, "in_channels": 4, "out_channels": 3},
        [{"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True}],
        [SIGMOID, invert(False), HALF, *last],
        {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"},
        inputs={"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"},
    )


@pytest.fixture
def brain(tmp_path):
    """Four NIfTI files of one head."""
    rng = np.random.default_rng(0)
    files = {}
    for name in ("T1C", "T1", "T2", "FLAIR"):
        files[name] = tmp_path / f"{name}.nii.gz"
        values = rng.normal(100, 20, (16, 18, 20)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), files[name])
    return files


def others(files):
    return tuple((f"MR:{name}", str(path)) for name, path in files.items() if name != "T1C")


def test_four_series_give_structures_that_overlap(tmp_path, brain):
    bundle = brain_tumour(tmp_path / "zoo", relabelled=False)
    assert list(find_bundle(bundle).modalities) == ["image", "t1", "t2", "flair"]
    source = brain["T1C"]
    case, folder = contoured(bundle, source, tmp_path / "out", series=others(brain), formats=("nifti",))
    assert case["status"] == "done", case
    assert sorted(path.name for path in folder.glob("*.nii.gz")) == [
        "Enhancing_tumor.nii.gz",
        "Tumor_core.nii.gz",
        "Whole_tumor.nii.gz",
    ]
    with pytest.raises(InputError, match="no MR:T1 series given"):
        contoured(bundle, source, tmp_path / "again", series=others(brain)[1:])


def test_labels_that_the_config_renumbers_are_asked_for(tmp_path, brain, capsys):
    bundle = brain_tumour(tmp_path / "zoo", relabelled=True)
    words = ["segment", str(brain["T1C"]), "--bundle", str(bundle), "-o", str(tmp_path / "out")]
    words += ["--trust-bundle", "--format", "nifti"]
    words += ["--series", *(f"{word}={path}" for word, path in others(brain))]
    assert main(words) == 2
    assert "its postprocessing renumbers them" in (err := capsys.readouterr().err) and "--names" in err
    (tmp_path / "map.csv").write_text("label,name\n4,GTV_Enhancing\n1,GTV_Core\n2,GTV_Edema\n")
    assert main([*words, "--names", str(tmp_path / "map.csv")]) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "out").rglob("GTV_*.nii.gz"))) == 3


def test_python_of_a_zoo_bundle_runs_only_once_it_is_trusted(tmp_path, series):
    network, before, after, channels = BUNDLES["spleen"]
    bundle = write_zoo(
        tmp_path / "zoo", network, [*before, {"_target_": "scripts.own.Doubled"}], after, channels
    )
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").write_text("")
    (bundle / "scripts" / "own.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Doubled:\n    def __call__(self, item):\n        return {**item, 'image': item['image'] * 2}\n"
    )
    with pytest.raises(BundleError, match="a bundle is a program"):
        segment(Request(series, bundle, tmp_path / "out"))
    assert not (tmp_path / "ran").exists()
    case, _ = contoured(bundle, series, tmp_path / "out", formats=("nifti",))
    assert case["status"] == "done" and (tmp_path / "ran").exists()


def test_labels_that_no_file_of_the_bundle_names_are_asked_for(tmp_path, series):
    network, before, after, _ = BUNDLES["spleen"]
    bundle = write_zoo(tmp_path / "zoo", network, before, after, {})
    with pytest.raises(BundleError, match="no file of it names them.*by their numbers"):
        contoured(bundle, series, tmp_path / "out")
    names = {"1": {"name": "Spleen", "type": "ORGAN", "colour": ""}}
    case, folder = contoured(bundle, series, tmp_path / "out", formats=("nifti",), settings={NAMES: names})
    assert case["status"] == "done" and (folder / "Spleen.nii.gz").is_file()


@pytest.mark.parametrize(
    ("key", "steps", "message"),
    [
        ("preprocessing", [FIRST], "begins with EnsureChannelFirstd"),
        ("postprocessing", [SOFTMAX, ARGMAX], "has no SaveImaged"),
        ("postprocessing", [SOFTMAX, {"_target_": "SaveImaged", "keys": "pred"}], "no AsDiscreted"),
    ],
)
def test_a_config_that_medseg_cannot_take_apart_is_refused(key, steps, message, tmp_path, series):
    bundle = write_zoo(tmp_path / "zoo", *BUNDLES["spleen"])
    path = bundle / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config[key]["transforms"] = steps
    path.write_text(json.dumps(config))
    with pytest.raises(BundleError, match=message):
        contoured(bundle, series, tmp_path / "out")


def test_other_weights_than_model_pt_are_not_exchanged_for_it(tmp_path, series):
    bundle = write_zoo(tmp_path / "zoo", *BUNDLES["spleen"])
    path = bundle / "configs" / "inference.json"
    path.write_text(path.read_text().replace("/models/model.pt", "/models/model_lowres.pt"))
    with pytest.raises(BundleError, match=r"loads .*model_lowres.pt; medseg reads"):
        contoured(bundle, series, tmp_path / "out")
