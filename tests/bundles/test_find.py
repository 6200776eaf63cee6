"""Bundles are found, verified offline and loaded strictly; overrides are checked by name."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from medseg.bundles.config import build, load_config, load_network
from medseg.bundles.find import bundle_folders, find_bundle
from medseg.bundles.verify import verify
from medseg.errors import BundleError


@pytest.mark.parametrize("name", sorted(bundle_folders()))
def test_every_bundle_that_comes_with_medseg_passes_every_check(name):
    assert {what: problem for what, problem in verify(find_bundle(name)) if problem} == {}


@pytest.mark.parametrize("name", sorted(bundle_folders()))
def test_every_bundle_holds_all_parts_small_weights_and_no_python(name):
    folder = find_bundle(name).folder
    for part in ("LICENSE", "configs/logging.conf", "docs/README.md", "docs/data_license.txt"):
        assert (folder / part).stat().st_size > 0, part
    assert (folder / "models" / "model.pt").stat().st_size < 10e6
    assert not list(folder.rglob("*.py"))


@pytest.fixture
def broken(tmp_path):
    """A copy of ct_gtv to break."""
    shutil.copytree(find_bundle("ct_gtv").folder, tmp_path / "ct_gtv")
    return find_bundle(tmp_path / "ct_gtv")


def problems(bundle):
    return {what: problem for what, problem in verify(bundle) if problem}


def change(bundle, config, **values):
    path = bundle.folder / "configs" / f"{config}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_missing_file_and_python_in_a_bundle_are_found(broken):
    (broken.folder / "LICENSE").unlink()
    assert "LICENSE" in problems(broken)["files of the bundle layout"]
    (broken.folder / "LICENSE").write_text("text")
    (broken.folder / "scripts.py").write_text("print()")
    assert "scripts.py" in problems(broken)["files of the bundle layout"]


def test_metadata_without_a_required_key_is_found(broken):
    path = broken.folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["task"]
    path.write_text(json.dumps(metadata))
    assert "task" in problems(find_bundle(broken.folder))["metadata (MONAI verify_metadata)"]


def test_weights_of_another_network_are_refused(broken):
    torch.save({"weight": torch.zeros(1)}, broken.weights)
    assert "do not fit" in problems(broken)["weights load strictly, weights_only"]


def test_weights_that_would_execute_something_are_refused(broken):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"weight": Evil()}, broken.weights)
    with pytest.raises(BundleError, match="do not fit"):
        load_network(broken, load_config(broken, "inference", {}), "cpu")


def test_a_network_that_differs_between_training_and_inference_is_found(broken):
    change(broken, "train", network_def={"_target_": "torch.nn.Identity"})
    assert "different networks" in problems(broken)["train and inference agree"]


def test_unknown_overrides_are_refused_with_the_names_there_are(broken):
    with pytest.raises(BundleError, match="no setting 'windows_hu'.*window_hu"):
        load_config(broken, "inference", {"windows_hu": [0, 1]})
    with pytest.raises(BundleError, match="no setting 'network_def#channel'"):
        load_config(broken, "inference", {"network_def#channel": 3})
    parser = load_config(broken, "inference", {"network_def#in_channels": 2})
    assert parser["network_def"]["in_channels"] == 2


def test_a_folder_that_is_no_bundle_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(BundleError, match="ct_gtv"):
        find_bundle(tmp_path)


def test_metadata_that_does_not_describe_the_image_is_refused_by_name(broken):
    path = broken.folder / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "network_data_format": {}}))
    with pytest.raises(BundleError, match="network_data_format/inputs/image"):
        _ = find_bundle(broken.folder).modality


def test_what_a_step_says_when_it_is_built_is_not_hidden_by_monai(broken):
    change(broken, "inference", inferer={"_target_": "SlidingWindowInferer", "roi_size": 8, "mode": "foo"})
    parser = load_config(broken, "inference", {})
    with pytest.raises(BundleError, match="inferer cannot be built.*'foo' is not a valid BlendMode"):
        build(broken, parser, "inferer")
