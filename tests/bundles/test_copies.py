"""A bundle of one's own: the files of another, the weights of a training, the recipe they were trained by."""

from __future__ import annotations

import json

import pytest
from monai.bundle import ConfigParser

from medseg.bundles.copies import copy_bundle
from medseg.bundles.find import find_bundle
from medseg.bundles.trust import is_trusted
from medseg.bundles.verify import verify
from medseg.errors import BundleError, InputError
from medseg.training.checkpoints import save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    configs = find_bundle("ct_nodule").folder / "configs"
    parser = ConfigParser(json.loads((configs / "inference.json").read_text()))
    changes = json.loads((configs / "retinanet_small.json").read_text())
    parser.update({key: value for key, value in changes.items() if key in parser.config})
    path = tmp_path_factory.mktemp("run") / "model.pt"
    save_weights(parser.get_parsed_content("network_def").state_dict(), path)
    return path


def test_a_copy_is_sound_runs_at_once_and_follows_its_variant(weights, trust_file, tmp_path):
    chosen = {"chosen": "on validation", "thresholds": {"nodule": 0.3}}
    (tmp_path / "thresholds.json").write_text(json.dumps(chosen))
    out = tmp_path / "mine"
    made = copy_bundle(
        find_bundle("ct_nodule"), out, weights, "retinanet_small", tmp_path / "thresholds.json"
    )
    assert is_trusted(find_bundle(out)) and (made.name, made.folder) == ("mine", out)
    assert [(what, wrong) for what, wrong in verify(made) if wrong] == []
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
