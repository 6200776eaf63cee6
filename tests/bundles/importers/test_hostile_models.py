"""Model folders that would run code, or that say something else than nnU-Net does: one line, nothing run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from nnunet_models import LABELS, configuration, dataset_of, plans_of, write_model

from medseg.bundles.importers.names import side_of
from medseg.bundles.importers.nnunet import NnunetRequest, import_nnunet
from medseg.errors import BundleError, InputError, StructureError

pytest.importorskip("dynamic_network_architectures", reason="pip install 'medseg[nnunet]'")


@pytest.fixture(autouse=True)
def own_trust_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_TRUST_FILE", str(tmp_path / "trusted.json"))


@pytest.fixture
def tiny(tmp_path):
    """A model folder of one fold."""
    plans = plans_of({"3d_fullres": configuration([4, 3, 3], [8, 8, 8], ["CTNormalization"])})
    return write_model(tmp_path, plans, dataset_of(LABELS))


def change(path: Path, edit: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def arguments(plans: dict) -> dict:
    return plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]


def trap(folder: Path) -> str:
    return f"__import__('pathlib').Path({str(folder / 'was_run')!r}).touch()"


def test_an_expression_in_the_plans_is_not_run(tiny, tmp_path):
    change(tiny / "plans.json", lambda plans: arguments(plans).update(n_stages=f"${trap(tmp_path)}"))
    with pytest.raises(InputError, match="would be run by the bundle's config"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))
    assert not (tmp_path / "was_run").exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize("inside", [True, False])
def test_a_class_that_the_plans_name_is_not_called(inside, tiny, tmp_path):
    called = {"_target_": "os.mkdir", "path": str(tmp_path / "was_run")}
    edit = {"conv_bias": called} if inside else called
    change(tiny / "plans.json", lambda plans: arguments(plans).update(edit))
    with pytest.raises(InputError, match="key '_target_' would name a class"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("name", ["$print(1)", " $print(1)", "@bundle_root", "%configs/metadata.json"])
def test_a_label_that_a_config_would_execute_or_look_up_is_refused(name, tiny, tmp_path):
    labels = {"background": 0, name: 1, "B": 2, "C": 3}
    change(tiny / "dataset.json", lambda dataset: dataset.update(labels=labels))
    with pytest.raises(InputError, match="would be run by the bundle's config"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))


def test_a_licence_that_is_an_expression_is_refused(tiny, tmp_path):
    change(tiny / "dataset.json", lambda dataset: dataset.update(licence="$print(1)"))
    with pytest.raises(InputError, match="would be run"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))


def own(plans: dict) -> dict:
    return plans["configurations"]["3d_fullres"]


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("dataset.json", lambda d: d.update(labels=["background", "Heart"]), "as nnU-Net v2 writes them"),
        ("dataset.json", lambda d: d.update(labels={"0": "background", "1": "A"}), "its background is not 0"),
        ("dataset.json", lambda d: d["labels"].update(background=4), "its background is not 0"),
        ("dataset.json", lambda d: d["labels"].update(Twin=2), "'Lung_Left' and 'Twin' are both"),
        ("dataset.json", lambda d: d.update(channel_names=["CT"]), "as nnU-Net v2 writes"),
        ("plans.json", lambda p: own(p).pop("spacing"), "no 'spacing'"),
        ("plans.json", lambda p: own(p).update(spacing=[0, 1, 1]), "expected 3 sides in mm"),
        ("plans.json", lambda p: own(p).update(patch_size=[0, 8, 8]), "numbers of voxels"),
        ("plans.json", lambda p: own(p).update(architecture=7), "as nnU-Net v2 writes it"),
        ("plans.json", lambda p: p.update(transpose_forward=[0, 0, 1]), "an order of 0, 1, 2"),
        ("plans.json", lambda p: p.pop("foreground_intensity_properties_per_channel"), "no '0'"),
        ("plans.json", lambda p: arguments(p).update(n_stages=0), "describes no network"),
        ("plans.json", lambda p: arguments(p).update(features_per_stage=[4, 10**9]), "do not fit"),
    ],
)
def test_files_of_another_shape_are_refused_in_one_line(file, edit, message, tiny, tmp_path):
    change(tiny / file, edit)
    with pytest.raises(BundleError, match=message) as caught:
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))
    assert "\n" not in str(caught.value)


def test_a_copy_beside_a_fold_is_no_fold_and_none_is_counted_twice(tiny, tmp_path):
    shutil.copytree(tiny / "fold_0", tiny / "fold_0_old")
    bundle = import_nnunet(NnunetRequest(tiny, tmp_path / "b"))
    assert [name for name in bundle.metadata["imported"]["sha256"] if name.startswith("fold")] == [
        "fold_0/checkpoint_final.pth"
    ]
    for folds in (("0", "0"), ()):
        with pytest.raises(BundleError, match="expected each once"):
            import_nnunet(NnunetRequest(tiny, tmp_path / "c", folds=folds))


def test_postprocessing_that_is_not_there_or_of_another_model_is_refused(tiny, tmp_path):
    named = tmp_path / "postprocessing.json"
    request = NnunetRequest(tiny, tmp_path / "b", postprocessing=named)
    step = "remove_all_but_largest_component_from_segmentation"
    for content, message in (
        (None, "not a readable JSON file"),
        ({"steps": []}, "no lists"),
        ({"postprocessing_fns": [step], "postprocessing_kwargs": [7]}, "expected nnU-Net's"),
        ({"postprocessing_fns": [step], "postprocessing_kwargs": [{"labels_or_regions": [9]}]}, "label 9"),
    ):
        if content is not None:
            named.write_text(json.dumps(content))
        with pytest.raises(BundleError, match=message):
            import_nnunet(request)


def test_a_modality_is_one_of_three(tiny, tmp_path):
    with pytest.raises(InputError, match="'XX'; expected CT, MR or PT"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b", modalities=("XX",)))


@pytest.mark.parametrize("rows", ["label,name\nHeart\n", "label,name\nHeart,Heart,whole\n"])
def test_a_row_with_a_value_too_few_or_too_many_is_no_name(rows, tiny, tmp_path):
    (tmp_path / "map.csv").write_text(rows)
    with pytest.raises(InputError, match="line 2 has not a value for each of label,name"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b", names=tmp_path / "map.csv"))


def test_a_side_is_found_without_a_gap_too():
    assert {side_of(name) for name in ("RLung", "LungR", "rightlung", "lungright", "Lung_R", "Rt lung")} == {
        "R"
    }
    assert {side_of(name) for name in ("Lungs", "VB_L2", "Lung_LUL", "Liver", "Rectum", "RLung_L")} == {""}


def test_two_labels_whose_files_would_have_one_name_are_refused(tiny, tmp_path):
    labels = {"background": 0, "A/B": 1, "A_B": 2, "C": 3}
    change(tiny / "dataset.json", lambda dataset: dataset.update(labels=labels))
    with pytest.raises(StructureError, match="two structures are called 'A_B'"):
        import_nnunet(NnunetRequest(tiny, tmp_path / "b"))
