"""The page about imports, walked command by command with tiny models."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from nnunet_models import LABELS, configuration, dataset_of, plans_of, write_model

from medseg.cli.main import main
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series

pytest.importorskip("dynamic_network_architectures", reason="pip install 'medseg[nnunet]'")
pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.MedsegWarning")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how_to" / "import_models.md"
BLOCKS = re.findall(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("medseg ")]


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """The files that the page names, in the current folder: a model, two patients with contours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDSEG_TRUST_FILE", str(tmp_path / "trusted.json"))
    plans = plans_of({"3d_fullres": configuration([6, 4, 4], [8, 8, 8], ["CTNormalization"])})
    write_model(tmp_path / "x", plans, dataset_of(LABELS), mirror=None).rename("MODEL_FOLDER")
    phantom = chiral_phantom()
    for folder, patient in (
        ("CT_FOLDER", "A"),
        ("PATIENTS/A/CT", "A"),
        ("EXPORTS/A/CT", "A"),
        ("EXPORTS/B/CT", "B"),
    ):
        write_series(phantom.volume_hu, phantom.geometry, tmp_path / folder, seed=patient, PatientID=patient)
        structure_set = tmp_path / folder / "RS.dcm"
        if folder != "CT_FOLDER":
            write_rtstruct({"Heart": phantom.masks["L"]}, read_series(tmp_path / folder), structure_set)
    (tmp_path / "rois.json").write_text('{"Heart": ["heart"]}')
    (tmp_path / "map.csv").write_text(next(block for block in BLOCKS if block.startswith("label,name")))
    return tmp_path


def run(start: str, capsys, *more: str) -> None:
    """The one command of the page that starts so, with ``more`` words behind it."""
    (line,) = [command for command in COMMANDS if command.startswith(start)]
    assert main([*shlex.split(line)[1:], *more]) == 0, capsys.readouterr().err


def test_the_page_leads_from_a_model_folder_to_an_rtstruct_and_its_score(clinic, capsys):
    run("medseg bundles import nnunet", capsys)
    run("medseg bundles verify", capsys)
    run("medseg segment CT_FOLDER --bundle ./my_bundle", capsys)
    rois = read_rtstruct(clinic / "contours" / "CT_FOLDER" / "RS.dcm", read_series(clinic / "CT_FOLDER"))
    assert set(rois) == {"Heart", "Lung_L", "Lung_R"}
    card = clinic / "my_bundle" / "docs" / "README.md"
    assert "Not evaluated by medseg" in card.read_text()
    run("medseg score", capsys)
    assert (
        "Not evaluated by medseg" not in card.read_text() and "Scored by medseg on 1 case" in card.read_text()
    )
    assert (
        main(["segment", "CT_FOLDER", "--bundle", "./my_bundle", "-o", "contours"]) == 0
    )  # trusted as before


def test_the_page_leads_from_exports_to_a_data_set_of_nnunet(clinic, capsys):
    run("medseg datalist", capsys, "--validation", "0.5")
    run("medseg bundles export nnunet-dataset", capsys, "--folds", "2")
    assert len(list((clinic / "Dataset501_Heart" / "labelsTr").iterdir())) == 2


def test_every_command_of_the_page_is_run_here_or_elsewhere():
    elsewhere = ("medseg bundles import totalsegmentator", "medseg segment CT_FOLDER --bundle ./total")
    zoo = "medseg segment CT_FOLDER --bundle ./spleen_ct_segmentation"  # tests/bundles/importers/test_zoo.py
    walked = (
        "medseg bundles import nnunet",
        "medseg bundles verify",
        "medseg segment CT_FOLDER --bundle ./my",
    )
    walked += ("medseg score", "medseg datalist", "medseg bundles export")
    assert [line for line in COMMANDS if not line.startswith((*elsewhere, zoo, *walked))] == []
