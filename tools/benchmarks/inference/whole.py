"""The `whole` part of run.py: one CT from DICOM to RTSTRUCT, stage by stage."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

from measuring import child, note, peak_gb, table

STAGES = {
    "LoadCased": "read",
    "network": "network",
    "Activationsd": "restore",
    "Invertd": "restore",
    "AsDiscreted": "restore",
    "ToStructuresd": "restore",
    "RestoreStructuresd": "restore",
    "KeepComponentsd": "restore",
    "SaveRTStructd": "contours + write",
}
"""Which steps of a bundle are counted together; every other step is preprocessing."""


ORDER = ("start", "read", "preprocess", "network", "restore", "contours + write")


PATHS = {
    "MONAI plain": (
        "SlidingWindowInferer on torch float32, Invertd and AsDiscreted on all channels, the same writer"
    ),
    "medseg, torch": "medseg's path with --engine torch",
    "medseg": "the bundle as it is: --engine auto, float32",
    "medseg, no body crop": "the same without CropBodyd: the windows then lie where MONAI's lie",
    "medseg, bfloat16": "medseg's path with --engine openvino-bf16: other masks, see Bfloat16",
}

ENGINES = {"medseg, torch": "torch", "medseg, bfloat16": "openvino-bf16"}


def changed_bundle(name: str, path: str, folder: Path) -> Path:
    """A copy of a bundle that takes one of PATHS."""
    from medseg.bundles.find import find_bundle

    target = folder / name
    shutil.copytree(find_bundle(name).folder, target)
    file = target / "configs" / "inference.json"
    config = json.loads(file.read_text())
    before, after = config["preprocessing"]["transforms"], config["postprocessing"]["transforms"]
    if path in ("MONAI plain", "medseg, no body crop"):
        before[:] = [step for step in before if not step["_target_"].endswith("CropBodyd")]
    if path == "MONAI plain":
        window = {
            key: value
            for key, value in config["inferer"].items()
            if key not in ("_target_", "engine", "air_at_most")
        }
        config["inferer"] = {"_target_": "SlidingWindowInferer", **window}
        named = {key: after[0][key] for key in ("structures", "within")}
        inverse = {
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        }
        after[:1] = [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {"_target_": "Invertd", "keys": "pred", **inverse},
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
            {"_target_": "medseg.transforms.ToStructuresd", "keys": "pred", **named},
        ]
    file.write_text(json.dumps(config))
    return target


def run_whole(source: str, bundle_name: str, path: str, out: str) -> dict:
    """One path over one CT: {stage: [seconds, processor seconds, peak GB]}; the masks go to ``out``."""
    import numpy as np

    from medseg.bundles.find import Bundle, find_bundle
    from medseg.bundles.job import Pipeline
    from medseg.bundles.request import Request

    stages: dict[str, list[float]] = {}

    @contextmanager
    def timed(step: str):
        wall, processor = time.perf_counter(), time.process_time()
        yield
        entry = stages.setdefault(STAGES.get(step, "preprocess"), [0.0, 0.0, 0.0])
        entry[0] += time.perf_counter() - wall
        entry[1] += time.process_time() - processor
        entry[2] = peak_gb()

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = changed_bundle(bundle_name, path, Path(scratch))
        kind = {"formats": ("rtstruct",), "device": "cpu", "engine": ENGINES.get(path, "auto")}
        request = Request(Path(source), str(folder), Path(scratch), **kind, allow=("out_of_distribution",))
        changed = Bundle(bundle_name, folder, derived_from=find_bundle(bundle_name))
        pipeline = Pipeline(changed, request, ("rtstruct",), Path(scratch))
        stages["start"] = [0.0, 0.0, peak_gb()]
        item = pipeline.prepare({"image": source, "case_name": "case"}, timed)
        structures = pipeline.finish(pipeline.predict(item, timed), timed)
        packed = {s.name: np.packbits(mask >= 0.5) for s, mask in structures.masks.items()}
        np.savez(out, **packed)
    return stages


def whole(given) -> str:
    import numpy as np

    from medseg.inference.engines import processor_formats

    source = str((given.data / "lung1_001" / "CT").resolve())
    results, masks = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, path in enumerate(PATHS):
            if ENGINES.get(path) == "openvino-bf16" and "BF16" not in processor_formats():
                continue
            file = f"{scratch}/{number}.npz"
            results[path] = child("whole", source, given.bundle, path, file)
            masks[path] = dict(np.load(file))
    rows = []
    sums = {
        path: np.sum([stage[:2] for stage in stages.values()], axis=0) for path, stages in results.items()
    }
    for path, stages in results.items():
        cells = [f"{stages[name][0]:.1f} ({stages[name][1]:.1f})" for name in ORDER[1:]]
        peak = max(stage[2] for stage in stages.values())
        ratio = sums["MONAI plain"] / sums[path]
        whole_time, times = f"{sums[path][0]:.1f} ({sums[path][1]:.1f})", f"{ratio[0]:.1f} ({ratio[1]:.1f})"
        moved = f"{unlike(masks[path], masks['MONAI plain'])[0]:.3f} %"
        rows.append([path, *cells, whole_time, times, moved, f"{peak:.1f} GB"])
    head = ["path", *ORDER[1:], "whole", "times faster", "unlike MONAI's", "peak memory"]
    memory = [[path, *(f"{stages[name][2]:.1f}" for name in ORDER)] for path, stages in results.items()]
    _, worst, most = unlike(masks["medseg, no body crop"], masks["MONAI plain"])
    return "\n\n".join(
        [
            f"LUNG1-001 (134 slices of 512 x 512) with `{given.bundle}`: seconds by stage, processor seconds "
            f"in brackets; unlike MONAI's: voxels unlike those of MONAI's path, of all structures' voxels. "
            f"{note()}",
            table(head, rows),
            "Peak memory by the end of each stage, GB (start: Python, torch, MONAI and the weights).",
            table(["path", *ORDER], memory),
            "\n".join(f"- {path}: {PATHS[path]}" for path in results),
            f"Of medseg's path without the crop the structure furthest from MONAI's is {worst}: {most:.3f} % "
            f"of its voxels.",
        ]
    )


def unlike(masks: dict, reference: dict) -> tuple[float, str, float]:
    """Of packed masks: the percentage of the reference's voxels by which all structures together differ, and
    the structure of which it is most, with its own. Of structures without a voxel nothing is said."""
    import numpy as np

    apart = {name: int(np.bitwise_count(masks[name] ^ reference[name]).sum()) for name in reference}
    size = {name: int(np.bitwise_count(reference[name]).sum()) for name in reference}
    share = {name: 100 * apart[name] / size[name] for name in size if size[name]}
    worst = max(share, key=share.get)
    return 100 * sum(apart.values()) / sum(size.values()), worst, share[worst]
