"""Measure RTSTRUCT writing and reading beside other tools, on masks and images made here.

    python tools/benchmarks/rtstruct/run.py write              nine structures, 512 x 512 x 120
    python tools/benchmarks/rtstruct/run.py read --data DIR    real structure sets
    python tools/benchmarks/rtstruct/run.py times --data DIR   the same sets, medseg and plastimatch
    python tools/benchmarks/rtstruct/run.py odd                awkward geometry and shapes
    python tools/benchmarks/rtstruct/run.py holes              hole encodings by reader
    python tools/benchmarks/rtstruct/run.py area --data DIR    area and bytes with stairs cut and left

Tools are looked for in this Python and in each --peer-python (another environment's python, for tools that
need other versions of pydicom); one that is found nowhere is skipped with a line. --markdown replaces that
file's section of the same name. medseg never judges its own files: `write` is read back by plastimatch
--xor-contours, `odd` by a test of every voxel centre that knows only each slice's own ImagePositionPatient.
"""

import argparse
import shlex
import sys
from pathlib import Path

from area import benchmark_area
from holes import benchmark_holes
from odd import benchmark_odd
from read import benchmark_read
from times import benchmark_times
from write import benchmark_write

BENCHMARKS = {
    "write": benchmark_write,
    "read": benchmark_read,
    "times": benchmark_times,
    "odd": benchmark_odd,
    "holes": benchmark_holes,
    "area": benchmark_area,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="write", choices=BENCHMARKS)
    parser.add_argument(
        "--peer-python", action="append", default=[], help="python of an environment with other tools"
    )
    parser.add_argument("--slices", type=int, default=120, help="slices of the nine structures")
    parser.add_argument(
        "--repeats", type=int, default=5, help="read, times: runs of each reader, as far as 20 s allow"
    )
    parser.add_argument(
        "--data", type=Path, help="read, times, area: folder of real structure sets with their CT series"
    )
    parser.add_argument("--markdown", type=Path, help="file whose section of this name is replaced")
    given = parser.parse_args()
    if given.what in ("read", "times") and given.data is None:
        parser.error(f"{given.what} needs --data DIR")
    text = BENCHMARKS[given.what]([sys.executable, *given.peer_python], given)
    print(text)
    if given.markdown:
        sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
        from page_section import put_section

        peers = "".join(f" --peer-python PYTHON_{n + 1}" for n in range(len(given.peer_python)))
        data = f" --data DATA --repeats {given.repeats}" if given.what in ("read", "times") else ""
        command = shlex.join(["python", "tools/benchmarks/rtstruct/run.py", given.what]) + data + peers
        put_section(given.markdown, given.what, f"`{command}`\n\n{text}")


if __name__ == "__main__":
    main()
