"""The words of `medseg node`: what would happen, how it stands, and what cannot be meant."""

from __future__ import annotations

import json

from dicom_peers import node_config, small_study

from medseg.cli.main import main
from medseg.serve.dicom_node.answers import Answers
from medseg.serve.dicom_node.index import Index


def test_a_dry_run_prints_rules_and_what_files_would_become(tmp_path, capsys):
    _, path = node_config(tmp_path)
    small_study(tmp_path / "ct", seed=1)
    words = ["node", "start", str(path), "--dry-run", "--study", str(tmp_path / "ct"), "--sender", "CT1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "would listen as MEDSEG" in out and "(4 images)" in out


def test_a_start_with_a_wrong_file_or_bundle_ends_with_2_and_a_line(tmp_path, capsys):
    path = tmp_path / "node.json"
    path.write_text("{")
    assert main(["node", "start", str(path)]) == 2
    _, path = node_config(tmp_path, rules=[{"bundle": "ct_head_nekc"}])
    assert main(["node", "start", str(path)]) == 2
    _, path = node_config(tmp_path)
    assert main(["node", "start", str(path), "--study", str(tmp_path)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 3 and all(line.startswith("error: ") for line in err)
    assert (
        "cannot be read as JSON" in err[0] and "Did you mean ct_head_neck" in err[1] and "--dry-run" in err[2]
    )


def test_status_of_a_node_that_never_ran_and_of_one_that_did(tmp_path, capsys):
    config, path = node_config(tmp_path)
    assert main(["node", "status", str(path)]) == 2
    assert "has not run with this folder yet" in capsys.readouterr().err
    Index(config.folder), Answers(config.folder)
    assert main(["node", "status", str(path)]) == 0
    assert capsys.readouterr().out.startswith("receiver: NOT LISTENING\nobjects: 0 received")
    assert main(["node", "status", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["studies_complete"] == 0
