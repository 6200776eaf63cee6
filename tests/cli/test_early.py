"""A request that cannot be meant is refused in one line before torch is loaded, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from medseg.bundles.find import find_bundle

WITHOUT_TORCH = "import sys; sys.modules['torch'] = sys.modules['monai'] = None\n"
WITHOUT_TORCH += "from medseg.cli.main import main; sys.exit(main(sys.argv[1:]))"

SEGMENT = ("segment", "CT", "-o", "out", "--bundle")
TRAIN = ("ct_gtv", "--data", "CT", "-o")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*SEGMENT, "ct_gtvv"), "no bundle 'ct_gtvv'.*Did you mean ct_gtv"),
        ((*SEGMENT, "ct_gtv", "--within", "1,2,3"), "--within '1,2,3': expected x0,x1,y0,y1,z0,z1"),
        ((*SEGMENT, "ct_gtv", "--within", "9,1,0,1,0,1"), "--within 9,1,0,1,0,1: each pair must ascend"),
        ((*SEGMENT, "ct_gtv", "--within", " "), "--within is empty"),
        ((*SEGMENT, "ct_gtv", "--format", "rtstruct,dicom"), "format 'dicom': expected some of"),
        ((*SEGMENT, "ct_gtv", "--set", "device=cuda"), "setting device: use --device"),
        (
            (*SEGMENT, "ct_gtv", "--set", "min_volum_cc=1"),
            "no setting 'min_volum_cc'. Did you mean min_volume_cc",
        ),
        ((*SEGMENT, "ct_gtv", "--ctv-mm", "nan"), "ctv_margin_mm=NaN: expected a number"),
        (
            (*SEGMENT, "ct_gtv", "--ctv-not-into", "Bone,,Lung"),
            "--ctv-not-into 'Bone,,Lung': a name is empty",
        ),
        ((*SEGMENT, "ct_gtv", "--allow", "out_of_distribtion"), "expected some of .*out_of_distribution"),
        (
            ("segment", "CT/a.nii.gz", "--bundle", "ct_gtv", "-o", "a_file"),
            "a_file is a file; expected a folder",
        ),
        ((*SEGMENT, "./no_bundle"), "no_bundle: no configs/metadata.json in it"),
        ((*SEGMENT, "./cut"), "cut: .*model.pt has SHA-256 .*damaged or replaced"),
        (("train", "ct_gtvv", "--data", "CT", "-o", "out"), "no bundle 'ct_gtvv'"),
        (("train", *TRAIN, "out", "--set", "no_such=1"), "train.json has no setting 'no_such'"),
        (("train", *TRAIN, "a_file"), "a_file is a file; expected a folder"),
        (("evaluate", *TRAIN, "a_file"), "a_file is a file; expected a folder"),
        (("audit", "ct_gtvv", "--data", "CT", "-o", "out"), "no bundle 'ct_gtvv'"),
        (("score", "ct_gtvv", "--data", "CT", "-o", "out"), "no bundle 'ct_gtvv'"),
        (("bundles", "verify", "ct_gtvv"), "no bundle 'ct_gtvv'"),
    ],
)
def test_it_is_refused_before_torch_is_loaded(arguments, words, tmp_path):
    made = ["CT", "a_file", "cut", "no_bundle"]
    (tmp_path / "CT").mkdir()
    (tmp_path / "CT" / "a.nii.gz").write_bytes(b"")
    (tmp_path / "no_bundle").mkdir()
    (tmp_path / "a_file").write_text("")
    shutil.copytree(find_bundle("ct_gtv").folder, tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "models" / "model.pt", 1000)
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert re.match(f"error: .*{words}", done.stderr) and done.stderr.count("\n") == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == made
