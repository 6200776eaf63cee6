"""Bundles are found, verified offline and loaded strictly; overrides are checked by name."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from monai.bundle import ConfigParser

from medseg.bundles.config import build, load_config, load_network
from medseg.bundles.find import bundle_folders, find_bundle
from medseg.bundles.verify import verify
from medseg.cli.main import main
from medseg.errors import BundleError

TRAINED = sorted(name for name in bundle_folders() if find_bundle(name).has_weights)


@pytest.mark.parametrize("name", TRAINED)
def test_every_bundle_that_comes_with_medseg_passes_every_check(name):
    assert {what: problem for what, problem in verify(find_bundle(name)) if problem} == {}


def test_the_variants_of_a_bundle_are_its_other_configs_and_each_says_its_own_name():
    found = {name: find_bundle(name).variants for name in bundle_folders()}
    assert found["mm_gtv"] == () and found["cxr_anatomy"] == ("unet",)
    assert "source_segnet" in found["eye_lesion"] and "gate" not in found["eye_lesion"]
    for bundle, names in found.items():
        configs = find_bundle(bundle).folder / "configs"
        said = [json.loads((configs / f"{name}.json").read_text())["variant"] for name in names]
        assert tuple(said) == names, "what the checkpoint records"
    with pytest.raises(BundleError, match="mm_gtv: no variant 'unet'; expected one of \\(none\\)"):
        find_bundle("mm_gtv").require_variant("unet")
    with pytest.raises(BundleError, match="no variant 'train'"):
        find_bundle("cxr_anatomy").require_variant("train")


@pytest.mark.parametrize("name", sorted(bundle_folders()))
def test_a_variant_takes_no_import_away_from_the_training_that_it_is_laid_over(name):
    configs = find_bundle(name).folder / "configs"
    needed = json.loads((configs / "train.json").read_text())["imports"]
    for variant in find_bundle(name).variants:
        parser = ConfigParser()
        parser.read_config([str(configs / "train.json"), str(configs / f"{variant}.json")])
        assert set(needed) <= set(parser["imports"]), variant


@pytest.mark.parametrize("name", TRAINED)
def test_every_bundle_holds_all_parts_small_weights_and_no_python(name):
    folder = find_bundle(name).folder
    for part in ("LICENSE", "configs/logging.conf", "docs/README.md", "docs/data_license.txt"):
        assert (folder / part).stat().st_size > 0, part
    assert (folder / "models" / "model.pt").stat().st_size < 10e6
    assert not list(folder.rglob("*.py"))
    digest = hashlib.sha256((folder / "models" / "model.pt").read_bytes()).hexdigest()
    assert find_bundle(name).metadata["weights_sha256"] == digest


@pytest.mark.parametrize("name", sorted(set(bundle_folders()) - set(TRAINED)))
def test_a_bundle_without_weights_lacks_nothing_else_and_says_so(name, capsys):
    problems = {problem for _, problem in verify(find_bundle(name)) if problem}
    assert problems and all("model.pt" in problem or "no weights" in problem for problem in problems)
    assert main(["bundles"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(name)]
    assert line.endswith("(no weights yet: medseg train)")


@pytest.fixture
def broken(tmp_path, every_bundle_trusted):
    """A copy of mm_gtv to break."""
    shutil.copytree(find_bundle("mm_gtv").folder, tmp_path / "mm_gtv")
    path = tmp_path / "mm_gtv" / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["weights_sha256"]
    path.write_text(json.dumps(metadata))
    return find_bundle(tmp_path / "mm_gtv")


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
    with pytest.raises(BundleError, match="no readable checkpoint"):
        load_network(broken, load_config(broken, "inference", {}), "cpu")


WEIGHTS = "weights are whole, finite, and those that metadata.json names"


def altered_weights(bundle, alter):
    """Save the bundle's weights after ``alter(state)``."""
    state = torch.load(bundle.weights, weights_only=True)
    alter(state)
    torch.save(state, bundle.weights)
    return find_bundle(bundle.folder)


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "is not finite"), (float("inf"), "is not finite"), (0.0, "all zeros")]
)
def test_weights_that_no_training_ends_with_are_found_and_never_used(value, words, broken):
    def alter(state):
        name = next(name for name, tensor in state.items() if tensor.ndim > 1)
        state[name][:] = value

    bundle = altered_weights(broken, alter)
    assert words in problems(bundle)[WEIGHTS]
    with pytest.raises(BundleError, match=words):
        load_network(bundle, load_config(bundle, "inference", {}), "cpu")


def test_a_bias_of_zeros_and_whole_numbers_of_zero_are_weights(broken):
    def alter(state):
        state[next(name for name, tensor in state.items() if tensor.ndim == 1)][:] = 0

    assert WEIGHTS not in problems(altered_weights(broken, alter))


def test_weights_with_changed_bytes_are_found_though_torch_reads_them(broken):
    tensor = next(t for t in torch.load(broken.weights, weights_only=True).values() if t.numel() > 500)
    raw = bytearray(broken.weights.read_bytes())
    start = raw.find(tensor.numpy().tobytes())
    raw[start + 100 : start + 104] = bytes(byte ^ 0x55 for byte in raw[start + 100 : start + 104])
    broken.weights.write_bytes(raw)
    assert torch.load(broken.weights, weights_only=True)
    assert "the file is damaged" in problems(broken)[WEIGHTS]
    with pytest.raises(BundleError, match="the file is damaged"):
        load_network(broken, load_config(broken, "inference", {}), "cpu")


@pytest.mark.parametrize(
    "content", [b"", b"PK", bytes(range(256)) * 9, "schön".encode("latin-1"), b"\x80\x02."]
)
def test_whatever_stands_in_the_file_of_weights_ends_in_a_line(content, broken):
    broken.weights.write_bytes(content)
    with pytest.raises(BundleError, match="no readable checkpoint|holds"):
        load_network(broken, load_config(broken, "inference", {}), "cpu")


def test_weights_that_are_not_those_that_metadata_names_are_refused_before_they_are_read(broken):
    change(broken, "metadata", weights_sha256=hashlib.sha256(broken.weights.read_bytes()).hexdigest())
    assert problems(find_bundle(broken.folder)) == {}
    change(broken, "metadata", weights_sha256="0" * 64)
    bundle = find_bundle(broken.folder)
    assert "metadata.json names 000000000000" in problems(bundle)[WEIGHTS]
    with pytest.raises(BundleError, match="was damaged or replaced"):
        load_network(bundle, load_config(bundle, "inference", {}), "cpu")
    change(broken, "metadata", weights_sha256=5)
    assert "5 is not of type" in problems(find_bundle(broken.folder))["metadata (MONAI verify_metadata)"]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "5", "{", "\udc80"])
def test_a_config_that_is_no_json_object_is_named(text, broken):
    (broken.folder / "configs" / "inference.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(BundleError, match="inference.json"):
        load_config(broken, "inference", {})


def test_the_first_of_our_own_errors_is_the_reason_and_not_what_caused_it(broken):
    """MONAI's "Failed to evaluate" around "last.pt is no readable checkpoint" around torch's own words."""
    last = str(broken.folder / "models" / "last.pt")
    (broken.folder / "models" / "last.pt").write_bytes(b"PK cut")
    change(
        broken,
        "inference",
        inferer=f"$__import__('medseg.training.checkpoints').training.checkpoints."
        f"load_checkpoint(__import__('pathlib').Path('{last}'))",
    )
    parser = load_config(broken, "inference", {})
    with pytest.raises(BundleError, match="^[^:]*last.pt is no readable checkpoint"):
        build(broken, parser, "inferer")


def test_a_network_that_differs_between_training_and_inference_is_found(broken):
    change(broken, "train", network_def={"_target_": "torch.nn.Identity"})
    assert "different networks" in problems(broken)["train and inference agree"]


GATE = "gate, and the image is held against it as it was read"


def test_a_bundle_without_a_sound_gate_is_named(broken):
    gate = broken.folder / "configs" / "gate.json"
    content = json.loads(gate.read_text())
    gate.write_text(json.dumps({**content, "limit": -1}))
    assert "covariance or limit is not positive" in problems(broken)[GATE]
    gate.unlink()
    found = problems(broken)
    assert found["files of the bundle layout"] == "missing: configs/gate.json" and "gate.json" in found[GATE]


def test_the_gate_has_to_follow_the_reader_and_the_region(broken):
    inference = json.loads((broken.folder / "configs" / "inference.json").read_text())
    steps = inference["preprocessing"]["transforms"]
    gate = next(step for step in steps if step["_target_"].endswith("CheckInputd"))
    rest = [step for step in steps if step is not gate]

    def said(*transforms) -> str:
        change(broken, "inference", preprocessing={"_target_": "Compose", "transforms": list(transforms)})
        return problems(broken)[GATE]

    assert "0 steps medseg.transforms.CheckInputd" in said(*rest)
    assert "2 steps medseg.transforms.CheckInputd" in said(rest[0], gate, gate, *rest[1:])
    assert "comes after nothing" in said(gate, *rest)
    assert "CropWithind comes after medseg.transforms.CheckInputd" in said(rest[0], gate, *rest[1:])
    assert (
        "CheckInputd comes after medseg.transforms.LoadSeriesd; expected it right after the reader"
        in said(*rest[:3], gate, *rest[3:])
    )
    other = {**gate, "gate": "/elsewhere/gate.json"}
    assert "reads /elsewhere/gate.json" in said(*rest[:2], other, *rest[2:])
    change(broken, "inference", preprocessing=inference["preprocessing"])
    assert GATE not in problems(broken)


def test_unknown_overrides_are_refused_with_the_names_there_are(broken):
    with pytest.raises(BundleError, match="no setting 'windows_hu'.*window_hu"):
        load_config(broken, "inference", {"windows_hu": [0, 1]})
    with pytest.raises(BundleError, match="no setting 'network_def#channel'"):
        load_config(broken, "inference", {"network_def#channel": 3})
    parser = load_config(broken, "inference", {"network_def#fold": 4})
    assert parser["network_def"]["fold"] == 4


def test_a_folder_that_is_no_bundle_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(BundleError, match="mm_gtv"):
        find_bundle(tmp_path)


@pytest.mark.parametrize("name", ["ct_gtv", "./ct_gtv"])
def test_a_bundle_that_was_retired_is_refused_in_one_line_that_says_what_to_use(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError) as caught:
        find_bundle(name)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("bundle ct_gtv: retired. Use mm_gtv: it") == (name == "ct_gtv")


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


# ---- several series of a case ------------------------------------------------------------------------------


@pytest.fixture
def declared(several_bundle, tmp_path, every_bundle_trusted):
    """A function that copies a bundle of CT, PET and MR with other words in its metadata.json."""

    def copied(**changes):
        folder = tmp_path / "several"
        shutil.copytree(several_bundle, folder)
        path = folder / "configs" / "metadata.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return find_bundle(folder)

    return copied


def test_a_bundle_says_which_series_it_takes_and_which_it_can_do_without(declared):
    bundle = declared(optional_modalities=["mr"])
    assert bundle.modalities == {"image": "CT", "pt": "PT", "mr": "MR"} and bundle.optional == ("mr",)
    alone = find_bundle("ct_head_neck")
    assert alone.modalities == {"image": "CT"} and alone.optional == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modalities": {"pt": "PT"}}, 'among them "image"'),
        ({"modalities": ["CT", "PT"]}, "each with a modality of its own"),
        ({"modalities": {"image": "CT", "pt": "CT"}}, "each with a modality of its own"),
        ({"optional_modalities": ["image"]}, 'not "image"'),
        ({"optional_modalities": ["us"]}, "expected some of its modalities"),
        ({"modalities": {"image": "CT", "pt": "PT"}, "optional_modalities": []}, "inference.json loads"),
    ],
)
def test_what_is_odd_about_a_bundle_s_series_is_found(declared, changes, words):
    found = dict(verify(declared(**changes)))["series of a case"]
    assert words in found
