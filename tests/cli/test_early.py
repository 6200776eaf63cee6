"""A request that cannot be meant is refused in one line before torch is loaded, and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

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
        ((*SEGMENT, "ct_gtv", "--within", " "), "within is empty"),
        ((*SEGMENT, "ct_gtv", "--format", "rtstruct,dicom"), "format 'dicom': expected some of"),
        ((*SEGMENT, "ct_gtv", "--set", "device=cuda"), "setting device: use --device"),
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
    (tmp_path / "CT").mkdir()
    (tmp_path / "a_file").write_text("")
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert re.match(f"error: .*{words}", done.stderr) and done.stderr.count("\n") == 1, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CT", "a_file"]
