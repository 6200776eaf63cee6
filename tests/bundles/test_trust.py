"""A bundle is a program: which may run, what is said of the others, and that looking at one runs nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medseg.bundles.config import load_config, run_config
from medseg.bundles.find import Bundle, bundle_folders, find_bundle
from medseg.bundles.trust import code_of, is_trusted, require_trusted, trust
from medseg.bundles.verify import NOT_DONE, verify
from medseg.cli.main import main
from medseg.errors import BundleError, InputError


@pytest.fixture(autouse=True)
def own_list(tmp_path, monkeypatch) -> Path:
    """A list of trusted bundles of this test alone, empty at first."""
    monkeypatch.setenv("MEDSEG_TRUST_FILE", str(tmp_path / "user" / "trusted.json"))
    return tmp_path / "user" / "trusted.json"


def programs(ran: Path) -> dict[str, tuple[str, str, object]]:
    """{name: (config, setting, value)} of configs that would make the file ``ran``, if anything ran."""
    call = {"_target_": "pathlib.Path.touch", "self": f"$__import__('pathlib').Path('{ran}')"}
    expression = f"$__import__('pathlib').Path('{ran}').touch()"
    return {
        "call": ("inference", "network_def", call),
        "expression": ("inference", "network_def", expression),
        "initialize": ("train", "initialize", [expression]),
        "imports": ("inference", "imports", [expression]),
        "disabled": ("inference", "network_def", {"_target_": "torch.nn.Identity", "_disabled_": expression}),
        "builtin": ("inference", "network_def", {"_target_": "open", "file": f"{ran}", "mode": "w"}),
    }


@pytest.fixture(params=["call", "expression", "initialize", "imports", "disabled", "builtin"])
def program(request, tmp_path) -> tuple[Bundle, Path]:
    """(a bundle with code of its own, the file that appears when it runs)."""
    folder, ran = tmp_path / "bundle", tmp_path / "ran"
    shutil.copytree(bundle_folders()["mm_gtv"], folder)
    config, setting, value = programs(ran)[request.param]
    path = folder / "configs" / f"{config}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    return find_bundle(folder), ran


def test_verifying_a_bundle_runs_nothing_of_it_and_lists_its_own_code(program):
    bundle, ran = program
    results = dict(verify(bundle))
    assert not ran.exists()
    assert "that no bundle of medseg has" in results["expressions and calls in the configs"]
    assert [problem for problem in results.values() if problem == NOT_DONE] == [NOT_DONE] * 2


def test_the_command_that_verifies_does_not_call_it_good(program, capsys):
    bundle, ran = program
    assert main(["bundles", "verify", str(bundle.folder)]) == 2 and not ran.exists()
    said = capsys.readouterr().out
    assert "FAIL  expressions and calls in the configs" in said and "skip  network input" in said
    assert "--trust-bundle" in said


@pytest.mark.parametrize("command", ["segment", "train", "evaluate", "score", "audit"])
def test_no_command_runs_a_bundle_that_is_not_trusted(command, program, tmp_path, capsys):
    bundle, ran = program
    (tmp_path / "data").mkdir()
    rest = {
        "segment": [f"{tmp_path / 'data'}", "--bundle", f"{bundle.folder}"],
    }.get(command, [f"{bundle.folder}", "--data", f"{tmp_path / 'data'}"])
    assert main([command, *rest, "-o", f"{tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: bundle bundle in") and said.count("\n") == 1
    assert "a bundle is a program" in said and "--trust-bundle" in said and not ran.exists()
    assert not (tmp_path / "out").exists()


def test_the_library_builds_and_runs_nothing_of_it_either(program, tmp_path):
    bundle, ran = program
    with pytest.raises(BundleError, match="a bundle is a program"):
        load_config(bundle, "inference", {})
    with pytest.raises(BundleError, match="a bundle is a program"):
        run_config(bundle, ["train"], "training", {"dataset_dir": str(tmp_path)})
    assert not ran.exists()


def test_the_message_counts_what_would_run(tmp_path):
    configs = tmp_path / "small" / "configs"
    configs.mkdir(parents=True)
    (configs / "metadata.json").write_text('{"version": "0.0.1"}')
    network = {"_target_": "somewhere.Net", "n": "$1 + 1", "inner": {"_target_": "torch.nn.ReLU"}}
    (configs / "inference.json").write_text(json.dumps({"network_def": network, "two": "$2"}))
    with pytest.raises(BundleError, match="evaluate 2 expressions and call 2 .*, 3 of a kind"):
        require_trusted(find_bundle(tmp_path / "small"))
    foreign = code_of(find_bundle(tmp_path / "small")).foreign
    assert sorted(foreign) == [
        "inference.json, network_def#_target_: calls somewhere.Net",
        "inference.json, network_def#n: $1 + 1",
        "inference.json, two: $2",
    ]


@pytest.mark.parametrize("name", sorted(bundle_folders()))
def test_shipped_bundles_hold_nothing_foreign_and_run_and_so_do_plain_copies_with_other_weights(
    name, tmp_path
):
    shutil.copytree(bundle_folders()[name], tmp_path / name)
    copy = find_bundle(tmp_path / name)
    (copy.folder / "models").mkdir(exist_ok=True)
    (copy.folder / "models" / "model.pt").write_bytes(b"other weights are no code")
    for bundle in (find_bundle(name), copy):
        assert code_of(bundle).foreign == () and is_trusted(bundle)


@pytest.mark.parametrize(
    "target", ["exec", "os.system", "subprocess.run", "builtins.eval", "NoSuchTransformd", "scripts.Net"]
)
def test_a_call_into_another_library_or_a_builtin_is_foreign(target, tmp_path):
    shutil.copytree(bundle_folders()["mm_gtv"], tmp_path / "copy")
    path = tmp_path / "copy" / "configs" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "loss": {"_target_": target}}))
    assert code_of(find_bundle(tmp_path / "copy")).foreign == (f"train.json, loss#_target_: calls {target}",)


def test_a_class_of_monai_or_torch_that_no_shipped_bundle_names_is_not_foreign(tmp_path):
    shutil.copytree(bundle_folders()["mm_gtv"], tmp_path / "copy")
    path = tmp_path / "copy" / "configs" / "train.json"
    for target in ("FocalLoss", "torch.nn.Hardswish"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "loss": {"_target_": target}}))
        assert code_of(find_bundle(tmp_path / "copy")).foreign == ()


def test_python_other_files_and_another_logging_conf_are_named(tmp_path):
    shutil.copytree(bundle_folders()["mm_gtv"], tmp_path / "copy")
    configs = tmp_path / "copy" / "configs"
    (tmp_path / "copy" / "torch.py").write_text("")
    (configs / "extra.yaml").write_text("a: 1")
    (configs / "logging.conf").write_text("[formatters]\nkeys=a\n")  # Python evaluates parts of such a file
    (configs / "more.json").write_text(json.dumps({"network_def": "%/elsewhere/net.json::net"}))
    assert code_of(find_bundle(tmp_path / "copy")).foreign == (
        "extra.yaml: no JSON; not looked into",
        "logging.conf: no JSON; not looked into",
        "more.json, network_def: takes /elsewhere/net.json::net in",
        "torch.py: Python that could be imported",
    )


def test_trust_is_given_once_and_ends_with_any_change_of_code_but_not_of_weights(tmp_path, own_list):
    shutil.copytree(bundle_folders()["mm_gtv"], tmp_path / "copy")
    path = tmp_path / "copy" / "configs" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "epochs": 3}))
    bundle = find_bundle(tmp_path / "copy")
    assert not is_trusted(bundle)
    require_trusted(bundle, trust_bundle=True)
    require_trusted(find_bundle(tmp_path / "copy"))
    (entry,) = json.loads(own_list.read_text())["bundles"].values()
    assert entry["name"] == "copy" and entry["folder"] == str(bundle.folder)
    metadata = tmp_path / "copy" / "configs" / "metadata.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "weights_sha256": "0" * 64}))
    (tmp_path / "copy" / "models" / "model.pt").write_bytes(b"")
    assert is_trusted(bundle), "what a training writes is no code"
    (tmp_path / "copy" / "monai.py").write_text("")
    assert not is_trusted(bundle), "MONAI would import it"
    (tmp_path / "copy" / "monai.py").unlink()
    path.write_text(path.read_text() + " ")
    assert not is_trusted(bundle)


def test_a_copy_that_medseg_makes_itself_may_run_when_its_original_may(tmp_path, own_list):
    shutil.copytree(bundle_folders()["mm_gtv"], tmp_path / "copy")
    (tmp_path / "copy" / "configs" / "inference.json").write_text("{}")
    assert is_trusted(Bundle("mm_gtv", tmp_path / "copy", derived_from=find_bundle("mm_gtv")))
    assert not is_trusted(Bundle("x", bundle_folders()["mm_gtv"], Bundle("x", tmp_path / "copy")))


def test_a_list_that_cannot_be_read_trusts_nobody_and_says_so(tmp_path, own_list):
    shutil.copytree(bundle_folders()["mm_gtv"], tmp_path / "copy")
    (tmp_path / "copy" / "configs" / "extra.json").write_text("{}")
    own_list.parent.mkdir()
    for text in ("{", '{"bundles": []}', "[]", "[" * 100_000):
        own_list.write_text(text)
        with pytest.raises(InputError, match="trusted bundles.*delete it"):
            trust(find_bundle(tmp_path / "copy"))


def test_a_folder_in_the_current_directory_never_stands_for_a_shipped_bundle(tmp_path, monkeypatch):
    for name in ("mm_gtv", "mine"):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "metadata.json").write_text('{"version": "6.6.6"}')
    monkeypatch.chdir(tmp_path)
    assert find_bundle("mm_gtv").folder == bundle_folders()["mm_gtv"]
    assert find_bundle("./mm_gtv").version == "6.6.6" == find_bundle(Path("mm_gtv")).version
    with pytest.raises(BundleError, match="For the folder of that name write ./mine"):
        find_bundle("mine")
    with pytest.raises(BundleError, match="Did you mean mm_gtv"):
        find_bundle("mm-gtv")
