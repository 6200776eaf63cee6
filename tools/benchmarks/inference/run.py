"""How long medseg takes over a whole CT, and how much memory, beside MONAI's plain path in the same run.

    python tools/benchmarks/inference/run.py whole --data DIR      DICOM in, RTSTRUCT out, by stage
    python tools/benchmarks/inference/run.py memory                100 structures x 384^3, merged and packed
    python tools/benchmarks/inference/run.py engines --data DIR    voxels that another engine or format moves
    python tools/benchmarks/inference/run.py cohort --data DIR     eight patients, overlapped and in sequence
    python tools/benchmarks/inference/run.py bfloat16 --data DIR --dataset DATASET_DIR
                                                                   what bfloat16 costs on labelled patients

DIR holds lung1_001/CT, lung1_001/RTSTRUCT.dcm and sts/STS_0NN/CT. Seconds are wall clock; "processor" is the
time of all cores, which other programs on the computer disturb less. Every path runs in a process of its own,
whose peak is RSS.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from bfloat16 import bfloat16
from cohort import cohort, run_cohort
from engines import engines, run_engines
from memory import memory, run_memory
from whole import run_whole, whole

BENCHMARKS = {"whole": whole, "memory": memory, "engines": engines, "cohort": cohort, "bfloat16": bfloat16}
CHILDREN = {"whole": run_whole, "memory": run_memory, "engines": run_engines, "cohort": run_cohort}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(CHILDREN[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=BENCHMARKS)
    parser.add_argument("--data", type=Path, help="folder with lung1_001/ and sts/")
    parser.add_argument("--dataset", type=Path, help="bfloat16: where the bundle's datalist begins")
    parser.add_argument("--bundle", default="ct_head_neck", help="whole, bfloat16: the bundle to run")
    parser.add_argument("--markdown", type=Path, help="file whose section of this name is replaced")
    given = parser.parse_args()
    if given.what != "memory" and given.data is None:
        parser.error(f"{given.what} needs --data DIR")
    if given.what == "bfloat16" and given.dataset is None:
        parser.error("bfloat16 needs --dataset DATASET_DIR")
    text = BENCHMARKS[given.what](given)
    print(text)
    if given.markdown:
        sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
        from page_section import put_section

        data = [] if given.what == "memory" else ["--data", "DATA"]
        data += ["--dataset", "DATASET_DIR"] if given.what == "bfloat16" else []
        command = shlex.join(["python", "tools/benchmarks/inference/run.py", given.what, *data])
        put_section(given.markdown, given.what, f"`{command}`\n\n{text}")


if __name__ == "__main__":
    main()
