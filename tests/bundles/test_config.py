"""What ends a training or an evaluation: the settings' fault is named, ours stays one."""

from __future__ import annotations

import json

import monai.bundle
import pytest

from medseg.bundles.config import run_config
from medseg.bundles.find import find_bundle
from medseg.errors import BundleError

LOST = RuntimeError("Error(s) in loading state_dict for ResUNetSE: size mismatch for head.weight")
AT_WORK = "Failed to evaluate ConfigExpression: \n\"$__local_refs['validate::evaluator'].run()\""
BUILDING = (
    "Failed to evaluate ConfigExpression: \n\"$__local_refs['network_def'].to(__local_refs['device'])\""
)
COMPONENT = "Failed to instantiate component 'torch.optim.AdamW' with keywords: params,lr"


def ends_with(monkeypatch, tmp_path, chain: list[Exception]) -> None:
    """Run a training that MONAI ends with the first of the errors, each caused by the next."""

    def fail(**_):
        for outer, inner in zip(chain, chain[1:], strict=False):
            outer.__cause__ = inner
        raise chain[0]

    monkeypatch.setattr(monai.bundle, "run", fail)
    cases = [{"image": "i.png", "label": "i.png", "case_id": name} for name in "ab"]
    (tmp_path / "i.png").touch()
    (tmp_path / "list.json").write_text(json.dumps({"training": cases[:1], "validation": cases[1:]}))
    settings = {"dataset_dir": str(tmp_path), "datalist": str(tmp_path / "list.json")}
    run_config(find_bundle("cxr_anatomy"), ["train"], "training", settings)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([RuntimeError(AT_WORK), LOST], r"the weights do not fit the network_def .*head.weight"),
        (
            [RuntimeError(BUILDING), RuntimeError("no such device")],
            r"@network_def.to\(@device\) cannot be built with these settings and data: .*no such device",
        ),
        (
            [RuntimeError(AT_WORK), RuntimeError(COMPONENT), ValueError("Invalid learning rate: -1")],
            r"torch.optim.AdamW cannot be built .*ValueError: Invalid learning rate: -1",
        ),
        ([RuntimeError(AT_WORK), BundleError("the words of medseg")], "^the words of medseg$"),
    ],
)
def test_what_a_setting_breaks_is_said_in_one_line(chain, words, monkeypatch, tmp_path):
    with pytest.raises(BundleError, match=words) as caught:
        ends_with(monkeypatch, tmp_path, chain)
    assert "\n" not in str(caught.value)


def test_an_error_at_work_stays_a_fault_of_ours_and_a_full_disk_that_of_the_disk(monkeypatch, tmp_path):
    with pytest.raises(RuntimeError, match="Failed to evaluate"):
        ends_with(monkeypatch, tmp_path, [RuntimeError(AT_WORK), ZeroDivisionError("ours")])
    with pytest.raises(OSError, match="No space left"):
        ends_with(monkeypatch, tmp_path, [RuntimeError(AT_WORK), OSError(28, "No space left on device")])
