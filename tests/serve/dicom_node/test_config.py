"""The node's file says what is meant, or is refused in a line; rules choose series by what they say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from dicom_peers import node_config, small_study
from plain_bundle import plain_bundle

from medseg.errors import BundleError, InputError
from medseg.serve.dicom_node.config import Rule, SeriesFacts, check_bundles, read_config
from medseg.serve.dicom_node.plan import plan
from medseg.serve.dicom_node.report import dry_run
from medseg.serve.dicom_node.supervise import check_places

SERIES = SeriesFacts("1.2", "CT", "Thigh 3 mm", "RT planning", "THIGH", "CT1", 64)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({}, True),
        ({"modality": "CT", "body_part": "THIGH", "sender": "CT1", "at_least": 64}, True),
        ({"modality": "MR"}, False),
        ({"body_part": "Thigh"}, False),
        ({"sender": "CT2"}, False),
        ({"at_least": 65}, False),
        ({"description": "*thigh*"}, True),
        ({"description": "rt plan*"}, True),
        ({"description": "thigh"}, False),
        ({"description": "*pelvis*"}, False),
    ],
)
def test_a_rule_matches_series_by_all_that_it_says(rule, matches):
    assert Rule("ct_head_neck", **rule).matches(SERIES) is matches


def base(**changes):
    content = {"folder": "node", "listen": {"allowed": ["CT1"]}, "rules": [{"bundle": "ct_head_neck"}]}
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "the file is list; expected an object"),
        (base(folder=None), "`folder` is None; expected text"),
        (base(listen=None), "`listen`: `allowed` is missing"),
        (base(rules=[]), "`rules` is no list with a rule in it"),
        (base(rule=[]), "unknown key 'rule'.*Did you mean rules"),
        (base(listen={"allowed": ["CT1"], "prot": 11112}), "`listen`: unknown key 'prot'.*Did you mean port"),
        (base(listen={"allowed": "CT1"}), "`allowed` is 'CT1'; expected texts"),
        (base(listen={"allowed": ["CT1"], "port": "11112"}), "`port` is '11112'; expected int"),
        (base(listen={"allowed": ["CT1"], "quiet_s": True}), "`quiet_s` is True; expected float"),
        (base(rules=[{"modality": "CT"}]), "rule 1: `bundle` is missing"),
        (
            base(rules=[{"bundle": "ct_head_neck", "targets": ["PACS"]}]),
            r"rule 1: no target 'PACS'.*\(none\)",
        ),
        (
            base(rules=[{"bundle": "ct_head_neck", "bodypart": "x"}]),
            "rule 1: unknown key 'bodypart'.*body_part",
        ),
        (base(rules=[{"bundle": "ct_head_neck", "name": "a"}] * 2), "two rules have the name 'a'"),
        (base(targets={"PACS": {"ae_title": "X"}}), "targets/PACS: a target has"),
        (base(targets={"PACS": {"stow": "ftp://x"}}), "`stow` is no http"),
        (base(listen={"allowed": ["CT1"], "tls": {}}), "tls: `authority` is missing"),
        (base(listen={"allowed": []}), r"`allowed` is \(\); expected AE titles, or"),
        (base(listen={"allowed": ["CT1", "X" * 17]}), "expected 1 to 16 ASCII characters"),
        (base(listen={"allowed": ["CT1"], "ae_title": " "}), "`ae_title` is ' '; expected 1 to 16"),
        (base(listen={"allowed": ["CT1"], "port": 70_000}), "`port` is 70000; expected 1 to 65535"),
        (base(listen={"allowed": ["CT1"], "associations": 0}), "`associations` is 0; expected 1 to 1000"),
        (base(listen={"allowed": ["CT1"], "quiet_s": float("nan")}), "`quiet_s` is nan; expected 0 to"),
        (base(listen={"allowed": ["CT1"], "commitment": {"CT1": "host"}}), '"AE title": "host:port"'),
        (base(listen={"allowed": ["CT1"], "tls": {"authority": "no.pem"}}), "no.pem'; expected a PEM file"),
        (base(workers=0), "`workers` is 0; expected 1 to 64"),
        (base(keep_days=-1), "`keep_days` is -1; expected 0.01 to"),
        (base(rules=[{"bundle": "ct_head_neck", "modality": "ct"}]), "expected the code of the images, 'CT'"),
        (base(rules=[{"bundle": "ct_head_neck", "formats": []}]), "expected at least one"),
        (
            base(
                targets={"P": {"stow": "http://x"}},
                rules=[{"bundle": "ct_head_neck", "targets": ["P"], "formats": ["nifti"]}],
            ),
            "format 'nifti' cannot be sent",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_name(content, words, tmp_path):
    path = tmp_path / "node.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words) as refused:
        read_config(path)
    assert str(refused.value).startswith(str(path))


def test_a_bundle_that_may_not_run_or_takes_no_such_setting_is_refused_at_the_start(tmp_path):
    for rule, words in (
        ({"bundle": "nonsense"}, "no bundle 'nonsense'"),
        ({"bundle": "ct_head_neck", "settings": {"min_volume": 1}}, "no setting 'min_volume'"),
        ({"bundle": "ct_head_neck", "allow": ["holes"]}, "fault 'holes'"),
        ({"bundle": "cxr_anatomy"}, "format rtstruct"),
        ({"bundle": "eye_lesion", "formats": ["rtstruct"]}, "format rtstruct"),
    ):
        with pytest.raises((BundleError, InputError), match=words):
            check_bundles(node_config(tmp_path, rules=[rule])[0])
    check_bundles(node_config(tmp_path)[0])


def facts(uid, modality, images=64, description=""):
    return SeriesFacts(uid, modality, description, "", "", "CT1", images)


def planned(tmp_path, rules, series):
    config, _ = node_config(tmp_path, rules=rules)
    return [(job.rule.name, [row.series_uid for row in job.series]) for job in plan(config, series)]


def test_a_bundle_of_one_image_gets_a_job_for_each_series_and_the_first_rule_wins(tmp_path):
    rules = [
        {
            "name": "thigh",
            "bundle": "ct_head_neck",
            "modality": "CT",
            "description": "*thigh*",
            "at_least": 10,
        },
        {"name": "any", "bundle": "ct_head_neck", "modality": "CT", "at_least": 10},
        {"name": "other", "bundle": str(plain_bundle(tmp_path / "plain")), "description": "head*"},
    ]
    series = [
        facts("1.1", "CT", description="Thigh"),
        facts("1.2", "CT", description="Head"),
        facts("1.3", "CT", images=2, description="thigh scout"),
        facts("1.4", "MR", description="Head"),
    ]
    assert planned(tmp_path, rules, series) == [("thigh", ["1.1"]), ("any", ["1.2"]), ("other", ["1.2"])]
    assert planned(tmp_path, rules, [facts("1.4", "MR", description="thigh")]) == []


def test_a_bundle_of_several_series_gets_one_job_with_all_of_its_modalities(tmp_path):
    series = [
        facts("1.1", "MR"),
        facts("1.2", "PT"),
        facts("1.3", "CT"),
        facts("1.4", "REG", 1),
        facts("1.5", "US"),
    ]
    rules = [{"bundle": "mm_gtv", "modality": "CT"}]
    assert planned(tmp_path, rules, series) == [("rule-1", ["1.3", "1.1", "1.2", "1.4"])]
    assert planned(tmp_path, rules, series[:2]) == []


def test_a_dry_run_says_what_would_happen_and_does_nothing(tmp_path):
    small_study(tmp_path / "files" / "ct", seed=1, slices=5, SeriesDescription="Thigh")
    small_study(tmp_path / "files" / "mr", seed=1, slices=3, modality="MR")
    (tmp_path / "files" / "notes.txt").write_text("no DICOM")
    config, path = node_config(
        tmp_path,
        listen={"allowed": ["CT1", "CT2"], "port": 11112, "quiet_s": 30},
        rules=[{"bundle": "ct_head_neck", "description": "*thigh*", "targets": ["PACS"], "sender": "CT2"}],
        targets={"PACS": {"ae_title": "ORTHANC", "port": 4242}},
    )
    config.incoming.rmdir()
    before = sorted(tmp_path.rglob("*"))
    lines = list(dry_run(config, tmp_path / "files", "CT2"))
    assert sorted(tmp_path.rglob("*")) == before
    text = "\n".join(lines)
    assert "would listen as MEDSEG on 127.0.0.1:11112 for CT1, CT2, 50 associations at once" in text
    assert "target PACS: C-STORE to ORTHANC at 127.0.0.1:4242" in text
    assert "rule rule-1: description *thigh*, sender CT2 -> ct_head_neck" in text
    assert [line for line in lines if line.startswith("  rule")][0].endswith("(5 images)")
    assert [line for line in lines if line.startswith("  no rule")][0].endswith("(3 images)")
    assert not any(line.startswith("  rule") for line in dry_run(config, tmp_path / "files", "CT1"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no DICOM files"):
        list(dry_run(config, tmp_path / "empty"))


def test_relative_paths_count_from_the_files_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(Path("/"))
    config, _ = node_config(tmp_path, queue="../jobs.sqlite")
    assert config.folder == tmp_path / "node"
    assert config.queue_url == str(tmp_path / "../jobs.sqlite")
    assert node_config(tmp_path, queue="postgresql://host/jobs")[0].queue_url == "postgresql://host/jobs"


def test_the_file_of_the_how_to_page_is_a_node_that_may_start(tmp_path):
    page = Path(__file__).resolve().parents[3] / "docs" / "how_to" / "dicom_node.md"
    example = page.read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    (tmp_path / "node.json").write_text(example)
    config = read_config(tmp_path / "node.json")
    check_bundles(config)
    assert set(config.targets) == {"PLANNING", "PACS"} and config.rules[0].matches(
        SeriesFacts("1.2", "CT", "Neck 2 mm", "", "", "CT1", 90)
    )


def test_files_of_tls_count_from_the_nodes_file(tmp_path, monkeypatch):
    (tmp_path / "ca.pem").write_text("a certificate")
    path = tmp_path / "node.json"
    path.write_text(json.dumps(base(listen={"allowed": ["CT1"], "tls": {"authority": "ca.pem"}})))
    monkeypatch.chdir("/")
    assert read_config(path).listen.tls.authority == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folder": "file.txt"}, "is a file; expected a folder"),
        ({"queue": "mysql://x"}, "postgresql://"),
        ({"listen": {"host": "no-such-host.invalid"}}, "choose another `host`"),
    ],
)
def test_a_node_that_could_not_work_does_not_start(changes, words, tmp_path):
    config, _ = node_config(tmp_path)
    (tmp_path / "file.txt").touch()
    listen = dataclasses.replace(config.listen, **changes.get("listen", {}))
    folder = tmp_path / changes.get("folder", "node")
    changed = dataclasses.replace(config, listen=listen, folder=folder, queue=changes.get("queue"))
    with pytest.raises(InputError, match=words):
        check_places(changed)
    check_places(config)
