"""Train the bundle cxr_findings on every fold of a set in turn; a stopped run goes on where it was.

    python tools/datasets/mass_nodule.py DATASET_DIR LISTS_DIR --folds 5
    python tools/benchmarks/cxr_findings/folds.py DATASET_DIR LISTS_DIR RUNS_DIR --set val_interval=4

RUNS_DIR/fold_K gets model.pt, last.pt and train.log of fold_K.json; a fold whose last epoch is done is left
alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from medseg.training.checkpoints import load_checkpoint

BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "cxr_findings"


def command(options: argparse.Namespace, datalist: Path, run: Path) -> list[str]:
    """``python -m monai.bundle run training`` of one fold."""
    configs = BUNDLE / "configs"
    given = [
        word
        for setting in options.set
        for word in ("--" + setting.partition("=")[0], setting.partition("=")[2])
    ]
    return [
        *(sys.executable, "-m", "monai.bundle", "run", "training"),
        *("--config_file", str(configs / "train.json"), "--meta_file", str(configs / "metadata.json")),
        *("--logging_file", str(configs / "logging.conf"), "--bundle_root", str(BUNDLE)),
        *("--dataset_dir", str(options.data), "--datalist", str(datalist)),
        *("--ckpt_dir", str(run), "--output_dir", str(run), "--resume", str((run / "last.pt").exists())),
        *given,
    ]


def is_done(run: Path, epochs: int) -> bool:
    """Whether a fold's last epoch is in its checkpoint."""
    last = run / "last.pt"
    return last.exists() and load_checkpoint(last)["trainer"]["epoch"] >= epochs


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument("lists", type=Path, metavar="LISTS_DIR")
    parser.add_argument("runs", type=Path, metavar="RUNS_DIR")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--set", action="append", default=[], metavar="ID=VALUE")
    options = parser.parse_args()
    options.set.append(f"epochs={options.epochs}")
    for datalist in sorted(options.lists.glob("fold_*.json")):
        run = options.runs / datalist.stem
        run.mkdir(parents=True, exist_ok=True)
        if is_done(run, options.epochs):
            continue
        with open(run / "train.log", "a", encoding="utf-8") as log:
            status = subprocess.run(command(options, datalist, run), stdout=log, stderr=log, check=False)
        if status.returncode:
            print(f"{datalist.name}: stopped, see {run / 'train.log'}", file=sys.stderr)
            return 1
        print(f"{datalist.name}: done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
