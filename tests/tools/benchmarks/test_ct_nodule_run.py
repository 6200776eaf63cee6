"""The benchmark of lung nodules on phantoms: its command, its judge of masks, and a table from end to end."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser

from medseg.cases.results import Boxes
from medseg.cases.volume import Case, open_case
from medseg.phantoms.series import stack_geometry
from medseg.training.checkpoints import save_weights

ROOT = Path(__file__).resolve().parents[3]


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUN = load(ROOT / "tools" / "benchmarks" / "ct_nodule" / "run.py")
PHANTOMS = load(ROOT / "tools" / "datasets" / "nodule_phantoms.py")


def test_the_training_is_the_bundle_s_own_and_a_stopped_one_goes_on(tmp_path):
    options = argparse.Namespace(data=tmp_path, run=tmp_path, variant="mask_rcnn_small", set=["epochs=3"])
    words = RUN.training_command(options)
    assert words[1:5] == ["-m", "monai.bundle", "run", "training"]
    assert "train.json" in words[6] and "mask_rcnn_small.json" in words[6]
    assert words[words.index("--resume") + 1] == "False" and words[-2:] == ["--epochs", "3"]
    (tmp_path / "last.pt").touch()
    assert RUN.training_command(options)[words.index("--resume") + 1] == "True"


def test_masks_are_compared_with_the_nodules_by_their_numbers(tmp_path):
    PHANTOMS.main([str(tmp_path), *"--training 0 --validation 0 --test 1 --shape 34 40 40".split(), *SPACING])
    case = open_case(str(tmp_path / "ct_te0000.nii.gz"))
    labels = np.zeros(case.shape, dtype=int)
    labels[5:7, 5:7, 5:7], labels[9, 9, 9] = 1, 2
    first, half = labels == 1, (labels == 1) & (np.arange(case.shape[0]) == 5)[:, None, None]
    boxes = Boxes(case, [[[0, 0, 0], [1, 1, 1]]] * 2, [0.9, 0.8], ("nodule",) * 2, (first, half))
    assert RUN.mask_overlaps(boxes, labels, 2).tolist() == [[1.0, 0.0], [0.5, 0.0]]


SPACING = ["--spacing-mm", "4"]


def test_a_table_with_intervals_from_end_to_end(tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    counts = "--training 0 --validation 1 --test 2 --shape 34 40 40".split()
    assert PHANTOMS.main([str(data), *counts, *SPACING]) == 0
    parser = ConfigParser(json.loads((RUN.BUNDLE / "configs" / "inference.json").read_text()))
    small = json.loads((RUN.BUNDLE / "configs" / "retinanet_small.json").read_text())
    parser.update({name: value for name, value in small.items() if name in parser.config})
    torch.manual_seed(0)
    run.mkdir()
    save_weights(parser.get_parsed_content("network_def").state_dict(), run / "model.pt")
    assert RUN.main(["score", str(data), str(run), "--draws", "5", "--plot", str(run / "froc.png")]) == 0
    printed = capsys.readouterr().out
    assert "2 unseen phantoms" in printed and "| **CPM** | " in printed
    assert "| sensitivity at 0.125 false per CT |" in printed and "of masks" not in printed
    assert json.loads((run / "thresholds.json").read_text())["thresholds"].keys() == {"nodule"}
    assert (run / "froc.png").stat().st_size > 5000

    kept = {"chosen": "elsewhere", "thresholds": {"nodule": 0.25}}  # other phantoms choose no threshold anew
    (run / "thresholds.json").write_text(json.dumps(kept))
    assert RUN.main(["score", str(data), str(run), "--draws", "5"]) == 0
    assert "threshold 0.250: elsewhere" in capsys.readouterr().out
    assert json.loads((run / "thresholds.json").read_text()) == kept


def test_a_ct_without_a_candidate_needs_no_mask(tmp_path):
    class Silent:
        def of(self, image):
            grid = stack_geometry((4, 4, 4))
            return Boxes(
                Case(str(image), np.zeros(grid.shape), grid, None), np.zeros((0, 2, 3)), np.zeros(0), ()
            )

    box = {"class": "nodule", "low": [0, 0, 0], "high": [4, 4, 4]}
    candidates, boxes = RUN.judge(Silent(), tmp_path, {"image": "a", "patient_id": "a", "label": [box]})
    assert len(candidates.sizes) == 1 and boxes.mask_overlaps.shape == (0, 1)
