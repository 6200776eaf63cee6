"""Every command of the documentation is run on a phantom, or listed here with the reason why it is not."""

from __future__ import annotations

import json
import shlex
import shutil
import warnings

import numpy as np
import pytest
from test_docs import PAGES, ROOT, commands

from medseg.cli.main import main
from medseg.dicom import read_series, write_rtstruct
from medseg.errors import MedsegWarning
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series
from medseg.phantoms.thigh import write_thigh_phantom

RUN_HERE = ("README.md", "docs/getting_started.md")
RUN_IN_ORDER = "docs/how_to/compare_and_margin.md"
"""Run by tests/test_docs.py, each on the files of those before it."""

ONLY_PARSED = {
    "medseg serve": "runs until it is stopped; tests/serve/web/test_run.py starts and stops it",
    "medseg segment demo_output/": "what medseg demo says it does; tests/cli/test_demo.py runs that",
    "medseg audit --data LABELS": "needs labels with errors in them; tests/audit/test_run.py plants some",
    "medseg audit": "trains, for minutes to hours; tests/audit/test_folds.py does so on small volumes",
    "medseg datalist": "needs exports of patients; tests/workbench/test_clinic_datalist.py makes some",
    "medseg cohort": "needs an archive; tests/bundles/many and tests/cli/test_cohort.py make some",
    "medseg commission site": "needs plans of a clinic; tests/commission/test_site.py makes some",
    "medseg commission -o READY": "takes a minute; tests/commission/test_readiness.py runs its checks",
    "medseg node": "runs until it is stopped; tests/serve/dicom_node/test_processes.py does so",
    "medseg records": "needs an archive and its records; tests/cli/test_records.py makes some",
    "medseg label": "serves until Ctrl-C; tests/serve/monai_label starts it",
    "medseg train": "trains for hours; tests/cli/test_train.py does so for one epoch",
    "medseg evaluate": "needs validation cases and the weights of a training",
    "medseg score": "needs the data set that the model card names; tests/bundles/test_score.py makes cases",
    "medseg segment FILM.dcm": "needs a chest radiograph; tests/bundles/test_radiographs.py has one",
    "medseg segment CT_DIR --bundle ./MY": "needs a chest CT and a training; tests/bundles/test_ct_nodule.py",
    "medseg segment FILM.png": "needs a hip and a training; tests/bundles/test_hip_osteoporosis.py",
    "medseg segment FOLDER": "needs chest radiographs; tests/bundles/test_radiographs.py has some",
    "medseg segment PHOTOS --bundle eye_lesion": "needs eyes; tests/bundles/test_eye_lesion.py has some",
    "medseg segment PATIENT --bundle mm_gtv": "tests/bundles/test_several_series.py has one",
    "medseg segment --bundle mm_gtv": "the same, each series by its path",
    "medseg inspect PATIENT": "the same patient; tests/workbench/test_inspect.py looks at one",
    "medseg bundles copy": "needs the weights of a training; tests/bundles/test_copies.py makes some",
    "medseg bundles import": "tests/bundles/importers/test_how_to.py and test_totalsegmentator.py do so",
    "medseg bundles verify ./my_bundle": "the same pages' bundle; tests/bundles/importers/test_how_to.py",
    "medseg bundles export": "needs a datalist; tests/bundles/importers/test_how_to.py makes one",
    "medseg segment CT_FOLDER --bundle ./": "imported bundles; tests/bundles/importers has tiny ones",
    "medseg demo --bundle mm_gtv": "tests/cli/test_demo.py does it",
    "medseg segment DICOM_DIR": "a whole head-and-neck CT takes minutes; tests/bundles/test_ct_head_neck.py",
}
"""Start of a command, and why it is not run."""


def reason_not_to_run(command: str) -> str | None:
    return next((why for start, why in ONLY_PARSED.items() if command.startswith(start)), None)


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)[1:]


def page_name(page) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_command_of_a_page_is_run_or_has_a_reason_why_not(page):
    if page_name(page) in (*RUN_HERE, RUN_IN_ORDER):
        return
    assert [command for command in commands(page) if reason_not_to_run(command) is None] == []


def test_every_reason_is_needed():
    written = [command for page in PAGES for command in commands(page)]
    assert [start for start in ONLY_PARSED if not any(line.startswith(start) for line in written)] == []


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """The files that README and the first steps name: a thigh with a rough outline of its tumour, and a small
    CT with two structure sets."""
    folder = tmp_path_factory.mktemp("clinic")
    thigh = write_thigh_phantom(folder / "thigh")
    (folder / "thigh" / "CT").rename(folder / "CT_FOLDER")
    region = np.zeros_like(thigh.truth["GTV"])
    around_voxels = (4, 12, 12)  # 12 mm, within the 5 to 20 that the page asks for
    inside = zip(thigh.truth["GTV"].nonzero(), around_voxels, strict=True)
    region[tuple(slice(index.min() - n, index.max() + n + 1) for index, n in inside)] = True
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, folder / "CT")
    rois = {
        name: phantom.masks[own] for name, own in (("GTV", "Marker"), ("CTV", "Marker"), ("BODY", "Body"))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        write_rtstruct({"Region": region}, read_series(folder / "CT_FOLDER"), folder / "CT_FOLDER" / "RS.dcm")
        for name in ("RS.dcm", "AUTO.dcm"):
            write_rtstruct(rois, read_series(folder / "CT"), folder / name)
    for name in ("EXPORT", "EXPORT_FOLDER"):
        shutil.copytree(folder / "CT", folder / name / "CT")
    return folder


@pytest.mark.parametrize("name", RUN_HERE)
def test_the_commands_of_the_first_pages_run(name, clinic, monkeypatch, capsys):
    monkeypatch.chdir(clinic)
    lines = [line for line in commands(ROOT / name) if reason_not_to_run(line) is None]
    assert len(lines) >= 2
    for line in lines:
        assert main(words(line)) == 0, f"{line}: {capsys.readouterr().err}"


def test_the_notebook_runs_from_top_to_bottom_and_is_stored_without_outputs(tmp_path, monkeypatch):
    notebook = json.loads((ROOT / "docs" / "quick_start.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 5 and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        for number, cell in enumerate(cells, 1):
            exec(compile("".join(cell["source"]), f"quick_start.ipynb, code cell {number}", "exec"), names)
    assert names["record"]["cases"][0]["status"] == "done"
    (row,) = names["comparison"].agreements
    assert row.name == "GTV" and row.dsc > 0.8 and "PTV" in names["comparison"].only_other_cc
