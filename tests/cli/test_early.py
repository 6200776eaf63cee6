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
TRAIN = ("mm_gtv", "--data", "CT", "-o")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*SEGMENT, "mm_gtvv"), "no bundle 'mm_gtvv'.*Did you mean mm_gtv"),
        ((*SEGMENT, "mm_gtv", "--within", "1,2,3"), "--within '1,2,3': expected x0,x1,y0,y1,z0,z1"),
        ((*SEGMENT, "mm_gtv", "--within", "9,1,0,1,0,1"), "--within 9,1,0,1,0,1: each pair must ascend"),
        ((*SEGMENT, "mm_gtv", "--within", " "), "--within is empty"),
        ((*SEGMENT, "mm_gtv", "--format", "rtstruct,dicom"), "format 'dicom': expected some of"),
        ((*SEGMENT, "mm_gtv", "--set", "device=cuda"), "setting device: use --device"),
        (
            (*SEGMENT, "mm_gtv", "--set", "min_volum_cc=1"),
            "no setting 'min_volum_cc'. Did you mean min_volume_cc",
        ),
        ((*SEGMENT, "mm_gtv", "--ctv-mm", "nan"), "ctv_margin_mm=NaN: expected a number"),
        (
            (*SEGMENT, "mm_gtv", "--ctv-not-into", "Bone,,Lung"),
            "--ctv-not-into 'Bone,,Lung': a name is empty",
        ),
        ((*SEGMENT, "mm_gtv", "--allow", "out_of_distribtion"), "expected some of .*out_of_distribution"),
        (
            ("segment", "CT/a.nii.gz", "--bundle", "mm_gtv", "-o", "a_file"),
            "a_file is a file; expected a folder",
        ),
        ((*SEGMENT, "./no_bundle"), "no_bundle: no configs/metadata.json in it"),
        ((*SEGMENT, "./cut"), "cut: .*model.pt has SHA-256 .*damaged or replaced"),
        (("train", "mm_gtvv", "--data", "CT", "-o", "out"), "no bundle 'mm_gtvv'"),
        (("train", *TRAIN, "out", "--set", "no_such=1"), "train.json has no setting 'no_such'"),
        (("train", *TRAIN, "a_file"), "a_file is a file; expected a folder"),
        (("evaluate", *TRAIN, "a_file"), "a_file is a file; expected a folder"),
        (("audit", "mm_gtvv", "--data", "CT", "-o", "out"), "no bundle 'mm_gtvv'"),
        (("score", "mm_gtvv", "--data", "CT", "-o", "out"), "no bundle 'mm_gtvv'"),
        (("bundles", "verify", "mm_gtvv"), "no bundle 'mm_gtvv'"),
    ],
)
def test_it_is_refused_before_torch_is_loaded(arguments, words, tmp_path):
    made = ["CT", "a_file", "cut", "no_bundle"]
    (tmp_path / "CT").mkdir()
    (tmp_path / "CT" / "a.nii.gz").write_bytes(b"")
    (tmp_path / "no_bundle").mkdir()
    (tmp_path / "a_file").write_text("")
    shutil.copytree(find_bundle("mm_gtv").folder, tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "models" / "model.pt", 1000)
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert re.match(f"error: .*{words}", done.stderr) and done.stderr.count("\n") == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == made
