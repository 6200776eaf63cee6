"""K folds of a bundle and its own weights: every label meets a network that never saw it."""

from __future__ import annotations

import json

import pytest
from audit.drawing import BUNDLE, TINY, silent

from medseg.audit.evidence import file_stem, load_evidence
from medseg.audit.patients import patient_folds
from medseg.audit.run import AuditRequest, audit
from medseg.errors import BundleError, InputError


def test_cases_go_to_folds_by_patient():
    cases = [{"case_id": f"c{n}", "patient_id": f"p{n // 3}"} for n in range(15)]
    folds = patient_folds(cases, 3, seed=1)
    assert sorted(set(folds)) == [0, 1, 2] and max(map(folds.count, folds)) == 6
    assert all(len({folds[n] for n in range(15) if n // 3 == patient}) == 1 for patient in range(5))
    assert folds == patient_folds(cases, 3, seed=1) != patient_folds(cases, 3, seed=2)
    for wrong in (1, 6):
        with pytest.raises(InputError, match="folds of 5 patients"):
            patient_folds(cases, wrong)


def test_folds_are_trained_once_and_every_label_is_predicted_by_a_network_that_never_saw_it(volumes):
    said, out = [], volumes / "out"
    request = AuditRequest(
        volumes, out, bundle=str(BUNDLE), datalist=volumes / "datalist.json", folds=2, settings=TINY
    )
    content = audit(request, said.append)
    assert content["labels"] == 6 and said == [
        "fold_1: epoch 1 of 1",
        "fold_1: 3 cases predicted",
        "fold_2: epoch 1 of 1",
        "fold_2: 3 cases predicted",
        *said[4:],
    ]
    assert {row["slices"] for row in content["findings"]} == {16}
    for number in (1, 2):
        listed = json.loads((out / "folds" / f"fold_{number}" / "datalist.json").read_text())
        held_out = {case["case_id"] for case in listed["validation"]}
        assert len(held_out) == 3 and not held_out & {case["case_id"] for case in listed["training"]}
        assert {load_evidence(out / "cases" / f"{file_stem(case)}.npz").fold for case in held_out} == {
            number - 1
        }
    kept = (out / "folds" / "fold_1" / "last.pt").stat().st_mtime_ns
    said.clear()
    assert audit(request, said.append)["findings"] == content["findings"]
    assert said[:2] == ["fold_1: done before", "fold_2: done before"]
    assert (out / "folds" / "fold_1" / "last.pt").stat().st_mtime_ns == kept
    other = AuditRequest(
        volumes, out, bundle=str(BUNDLE), datalist=volumes / "datalist.json", folds=3, settings=TINY
    )
    with pytest.raises(BundleError, match="trained with other data, labels or settings"):
        audit(other, silent)


def test_the_bundles_own_weights_predict_new_cases_and_no_case_they_learned_from(volumes, bright_bundle):
    settings = {"device": "cpu", "val_margin_mm": 100.0}
    request = AuditRequest(
        volumes,
        volumes / "weights",
        str(bright_bundle),
        None,
        volumes / "datalist.json",
        0,
        settings=settings,
    )
    assert audit(request, silent)["labels"] == 6
    own = json.loads((volumes / "datalist.json").read_text())
    seen = json.loads((bright_bundle / "configs" / "datalist.json").read_text())["training"][0]["case_id"]
    own["training"][0] |= {"case_id": "new name", "patient_id": seen}
    (volumes / "patient.json").write_text(json.dumps(own))
    with pytest.raises(BundleError, match="learned from 1 of these cases, the first new name"):
        audit(
            AuditRequest(volumes, volumes / "seen", str(bright_bundle), None, volumes / "patient.json", 0),
            silent,
        )
    own["training"][0]["case_id"] = seen
    (volumes / "seen.json").write_text(json.dumps(own))
    with pytest.raises(BundleError, match=f"learned from 1 of these cases, the first {seen}"):
        audit(
            AuditRequest(volumes, volumes / "seen", str(bright_bundle), None, volumes / "seen.json", 0),
            silent,
        )
