"""The `bfloat16` part of run.py: what computing in bfloat16 costs, on patients whose contours are known."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path

from measuring import child, note, table
from whole import unlike

ENGINES = ("openvino", "openvino-bf16")


def scores(given, engine: str, folder: Path) -> dict:
    """{patient: {structure: DSC}} of the validation patients, through the bundle's own steps; nan where a
    structure was not contoured by the clinic."""
    from medseg.bundles.find import Bundle, find_bundle
    from medseg.bundles.score import score_structures
    from medseg.bundles.score_request import ScoreRequest

    bundle = find_bundle(given.bundle)
    copy = folder / engine / bundle.name
    shutil.copytree(bundle.folder, copy)
    file = copy / "configs" / "inference.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "engine": engine}))
    copied = Bundle(bundle.name, copy, derived_from=bundle)
    wanted = ScoreRequest(copied, given.dataset, folder / engine / "out", section="validation", device="cpu")
    scored = score_structures(wanted)
    if scored.failed:
        raise SystemExit(f"{engine}: {scored.failed}")
    return {case: {name: row["DSC"] for name, row in rows.items()} for case, rows in scored.cases.items()}


def apart_on(source: Path, bundle: str) -> dict[str, tuple[float, float]]:
    """{structure: (voxels apart, % of the float32 ones; largest distance of the surfaces in mm)} of one CT;
    nan for a structure that neither drew. SystemExit for one that only one of them drew."""
    import numpy as np

    from medseg.cases.volume import open_case
    from medseg.metrics import surface_distances

    geometry = open_case(str(source)).geometry
    masks = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in ("medseg", "medseg, bfloat16"):
            child("whole", str(source), bundle, path, f"{scratch}/masks.npz")
            masks.append(dict(np.load(f"{scratch}/masks.npz")))
    found = {}
    for name in masks[0]:
        exact, fast = (
            np.unpackbits(bits[name], count=int(np.prod(geometry.shape))).reshape(geometry.shape).view(bool)
            for bits in masks
        )
        if exact.any() != fast.any():
            raise SystemExit(f"{name}: drawn by one engine alone; that is no small difference.")
        if exact.any():
            share = unlike({name: masks[1][name]}, {name: masks[0][name]})[0]
            found[name] = (share, surface_distances(exact, fast, geometry).hausdorff_mm(100.0))
        else:
            found[name] = (float("nan"),) * 2
    return found


def bfloat16(given) -> str:
    import numpy as np

    from medseg.metrics.intervals import mean_interval

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact, fast = (scores(given, engine, Path(scratch)) for engine in ENGINES)
        lung = apart_on((given.data / "lung1_001" / "CT").resolve(), given.bundle)
    names = list(next(iter(exact.values())))
    rows, of_all = [], []
    for name in names:
        pairs = np.array([[exact[case][name], fast[case][name]] for case in exact])
        of_all.append(pairs)
        share, largest_mm = lung[name]
        on_lung = ["not drawn"] * 2 if np.isnan(share) else [f"{share:.3f} %", f"{largest_mm:.1f} mm"]
        rows.append([name, *_row(pairs, mean_interval), *on_lung])
    rows.append(["mean of each patient's", *_row(np.nanmean(of_all, axis=0), mean_interval), "", ""])
    head = [
        "structure",
        "patients",
        "DSC float32",
        "DSC bfloat16",
        "bfloat16 - float32 (95 % interval)",
        "furthest patient",
        "LUNG1-001: voxels apart",
        "LUNG1-001: surfaces apart, at most",
    ]
    what = (
        f"The {len(exact)} validation patients of `{given.bundle}`, contoured with each engine and scored as "
        "`medseg score` does; the difference is paired, the interval drawn over patients. LUNG1-001, which "
        "is no patient of the kind that the bundle learned from, has no contours to score by: there bfloat16 "
        "is held against float32."
    )
    return f"{what} {note()}\n\n{table(head, rows)}"


def _row(pairs, mean_interval) -> list[str]:
    """Cells of the DSC of patients (n, 2) in float32 and bfloat16."""
    import numpy as np

    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    change = pairs[:, 1] - pairs[:, 0]
    mean = mean_interval(change)
    furthest = change[np.abs(change).argmax()]
    dsc = [f"{value:.4f}" for value in pairs.mean(axis=0)]
    interval = f"{mean.value:+.5f} ({mean.low:+.5f} to {mean.high:+.5f})"
    return [str(len(pairs)), *dsc, interval, f"{furthest:+.4f}"]
