"""A bundle of one's own: the files of another, the weights of a training, the recipe they were trained by."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from monai.bundle import ConfigParser

from medseg.bundles.copies import copy_bundle
from medseg.bundles.find import find_bundle
from medseg.bundles.trust import is_trusted, trust
from medseg.bundles.verify import verify
from medseg.errors import BundleError, InputError
from medseg.training.checkpoints import save_weights


def untaught(name, variant, path):
    """The weights that the network of a bundle's variant begins with, in the file ``path``."""
    configs = find_bundle(name).folder / "configs"
    parser = ConfigParser(json.loads((configs / "inference.json").read_text()))
    changes = json.loads((configs / f"{variant}.json").read_text())
    parser.update({key: value for key, value in changes.items() if key in parser.config})
    save_weights(parser.get_parsed_content("network_def").state_dict(), path)
    return path


def problems(bundle):
    return {what: wrong for what, wrong in verify(bundle) if wrong}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return untaught("ct_nodule", "retinanet_small", tmp_path_factory.mktemp("run") / "model.pt")


def test_a_copy_is_sound_runs_at_once_and_follows_its_variant(weights, trust_file, tmp_path):
    chosen = {"chosen": "on validation", "thresholds": {"nodule": 0.3}}
    (tmp_path / "thresholds.json").write_text(json.dumps(chosen))
    out = tmp_path / "mine"
    made = copy_bundle(
        find_bundle("ct_nodule"), out, weights, "retinanet_small", tmp_path / "thresholds.json"
    )
    assert is_trusted(find_bundle(out)) and (made.name, made.folder) == ("mine", out)
    assert problems(made) == {}
    assert made.metadata["weights_sha256"] == made.weights_sha256
    for name in ("inference.json", "train.json"):
        assert json.loads((out / "configs" / name).read_text())["spacing_mm"] == [2.0, 2.0, 2.0]
    assert json.loads((out / "configs" / "inference.json").read_text())["bundle_name"] == "mine"
    assert json.loads((out / "configs" / "thresholds.json").read_text()) == chosen
    with pytest.raises(InputError, match="exists already; name a new folder"):
        copy_bundle(find_bundle("ct_nodule"), out, weights, "retinanet_small")


def test_what_does_not_fit_leaves_no_folder(weights, trust_file, tmp_path):
    out, other = tmp_path / "mine", tmp_path / "thresholds.json"
    with pytest.raises(BundleError, match="do not fit its network_def"):
        copy_bundle(find_bundle("ct_nodule"), out, weights, "mask_rcnn_small")
    other.write_text(json.dumps({"thresholds": {"mass": 0.3}}))
    with pytest.raises(BundleError, match="no threshold from 0 to 1 of class 'nodule'"):
        copy_bundle(find_bundle("ct_nodule"), out, weights, "retinanet_small", other)
    with pytest.raises(InputError, match="ct_head_neck: its answers have no thresholds"):
        copy_bundle(find_bundle("ct_head_neck"), out, weights, None, other)
    assert list(tmp_path.iterdir()) == [other]


IN_OUT = "network input and output (MONAI verify_net_in_out)"


@pytest.mark.parametrize(
    ("name", "variant", "channels", "answers"),
    [
        ("ct_nodule", "mask_rcnn_small", 3, 6),
        ("hip_osteoporosis", "bmd", 1, 3),
        ("hip_osteoporosis", "covariates", 5, 2),
    ],
)
def test_the_metadata_of_a_copy_say_what_the_network_of_its_variant_takes_and_answers(
    name, variant, channels, answers, trust_file, tmp_path
):
    made = copy_bundle(
        find_bundle(name), tmp_path / "mine", untaught(name, variant, tmp_path / "model.pt"), variant
    )
    formats = made.metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    assert (image["num_channels"], pred["num_channels"]) == (channels, answers)
    assert (len(image["channel_def"]), len(pred["channel_def"])) == (channels, answers)
    assert made.modalities == find_bundle(name).modalities, "channels of a network are no series of a case"
    assert problems(made) == {}


@pytest.mark.parametrize(
    ("place", "wrong", "words"),
    [
        ("inputs#image", {"num_channels": 1}, r"input of shape \(1, 1, 64, 64\); expected \(B, 3, H, W\)"),
        ("outputs#pred", {"num_channels": 7}, "output channel number `6` doesn't match: `7`"),
        ("outputs#pred", {"format": "rows"}, "'list' object has no attribute 'shape'"),
    ],
)
def test_a_copy_whose_metadata_say_something_else_than_its_network_does_is_told(
    place, wrong, words, trust_file, tmp_path
):
    weights = untaught("ct_nodule", "mask_rcnn_small", tmp_path / "model.pt")
    made = copy_bundle(find_bundle("ct_nodule"), tmp_path / "mine", weights, "mask_rcnn_small")
    path = made.folder / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    side, name = place.split("#")
    content["network_data_format"][side][name] |= wrong
    path.write_text(json.dumps(content))
    changed = find_bundle(made.folder)
    trust(changed)
    assert re.search(words, problems(changed)[IN_OUT])


def test_a_tensor_is_no_list(weights, trust_file, tmp_path):
    made = copy_bundle(find_bundle("ct_nodule"), tmp_path / "mine", weights, "retinanet_small")
    path = made.folder / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"format": "rows"', '"format": "list"'))
    changed = find_bundle(made.folder)
    trust(changed)
    assert "answers with Tensor; metadata.json says a list" in problems(changed)[IN_OUT]


def test_large_weights_are_no_fault_of_a_copy_but_of_a_bundle_that_comes_with_medseg(
    weights, trust_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("medseg.bundles.verify.MAX_WEIGHTS_MB", 0.1)
    made = copy_bundle(find_bundle("ct_nodule"), tmp_path / "mine", weights, "retinanet_small")
    assert problems(made) == {}
    (what,) = problems(find_bundle("mm_gtv")).items()
    assert what[0].startswith("weights are whole") and "MB of weights; at most 0.1 MB" in what[1]


def test_a_variant_that_changes_metadata_which_are_not_there_is_refused(weights, trust_file, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(find_bundle("ct_nodule").folder, bundle)
    variant = {"_meta_": {"network_data_format#inputs#image#channels": 3}, "architecture": "retinanet"}
    (bundle / "configs" / "mine.json").write_text(json.dumps(variant))
    trust(find_bundle(bundle))
    with pytest.raises(BundleError, match="mine.json changes network_data_format#inputs#image#channels of"):
        copy_bundle(find_bundle(bundle), tmp_path / "mine", weights, "mine")
    assert not (tmp_path / "mine").exists()
