"""Images and records paired by `medseg records pair`, timed beside pandas' merge_asof on the same tables.

    python tools/benchmarks/records/run.py --rows 1000000

Makes two CSV files of that many rows in a temporary folder: a third as many patients, dates of eight years, T
scores drawn from a normal distribution. Each way runs in a process of its own, so that its peak of memory is
its own. merge_asof reads, pairs and no more: it sees neither ties nor images that share a record. medseg also
says why an image was left out, splits by patient and writes the datalist and the list of what was left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas

DAYS = 183
COLUMNS = {"patient": "pid", "date": "day", "t_score": "neck"}


def make(folder: Path, rows: int) -> None:
    draw = np.random.default_rng(0)

    def table(name: str, columns: dict) -> None:
        patient, day = draw.integers(0, max(1, rows // 3), rows), draw.integers(0, 8 * 365, rows)
        dates = (np.datetime64("2015-01-01") + day).astype("datetime64[D]").astype(str)
        frame = {"pid": np.char.mod("P%07d", patient), "day": dates} | columns
        pandas.DataFrame(frame).to_csv(folder / name, index=False)

    table("images.csv", {"path": np.char.mod("%d.dcm", np.arange(rows))})
    table("records.csv", {"neck": np.round(draw.normal(-1.5, 1.2, rows), 1)})


def with_medseg(folder: Path) -> dict[str, int]:
    """What the whole of `medseg records pair` reports: images paired and left out."""
    from medseg.workbench.record_pairs import PairRequest, pair

    report = pair(
        PairRequest(
            images=folder / "images.csv",
            records=str(folder / "records.csv"),
            out=folder / "datalist.json",
            record_columns=COLUMNS,
            image_columns={"patient": "pid", "date": "day", "image": "path"},
            most_days=DAYS,
        )
    )
    return {"paired": report["paired"], **report["left_out"]}


def with_merge_asof(folder: Path) -> dict[str, int]:
    """How many images pandas finds a record for."""
    text = {"dtype": {"pid": "str", "path": "str"}, "parse_dates": ["day"]}
    images = pandas.read_csv(folder / "images.csv", **text).sort_values("day")
    records = pandas.read_csv(folder / "records.csv", **text).dropna().sort_values("day")
    found = pandas.merge_asof(
        images, records, on="day", by="pid", direction="nearest", tolerance=pandas.Timedelta(days=DAYS)
    )
    return {"paired": int(found["neck"].notna().sum())}


WAYS = {"medseg records pair": with_medseg, "pandas merge_asof": with_merge_asof}


def measured(name: str, folder: Path, answers: multiprocessing.Queue) -> None:
    """Run one way and put (seconds, peak MB, counts) into the queue."""
    began = time.perf_counter()
    counts = WAYS[name](folder)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answers.put((time.perf_counter() - began, peak_mb, counts))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), rows)
        print(f"| {rows} images, {rows} records | seconds | peak MB | images |\n|---|--:|--:|---|")
        for name in WAYS:
            answers = context.Queue()
            process = context.Process(target=measured, args=(name, Path(folder), answers))
            process.start()
            seconds, peak_mb, counts = answers.get()
            process.join()
            said = ", ".join(f"{count} {what}" for what, count in counts.items())
            print(f"| {name} | {seconds:.1f} | {peak_mb:.0f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
