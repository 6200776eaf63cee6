"""The `engines` part of run.py: voxels that another engine or number format moves."""

from __future__ import annotations

import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

from measuring import child, note, table


def run_engines(data: str, bundle_name: str) -> dict:
    """{variant: voxels unlike torch float32, all voxels, seconds of one window, processor seconds, set
    voxels}."""
    import torch

    from medseg.bundles.find import find_bundle
    from medseg.bundles.job import Pipeline
    from medseg.bundles.request import Request
    from medseg.inference import FlipAverage
    from medseg.inference.sliding_window import SlidingWindow

    bundle = find_bundle(bundle_name)
    source = f"{data}/lung1_001/CT"

    @contextmanager
    def untimed(step: str):
        yield

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        within = "RTSTRUCT.dcm:GTV-1" if bundle.metadata.get("requires_region") else None
        pipeline = Pipeline(
            bundle,
            Request(Path(source), bundle_name, Path(scratch), within=within, allow=("out_of_distribution",)),
            ("rtstruct",),
            Path(scratch),
        )
        image = pipeline.prepare({"image": source, "case_name": "case"}, untimed)["image"][None].as_tensor()
    inferer = pipeline.inferer
    if isinstance(inferer, FlipAverage):
        inferer = inferer.inferer  # of eight passes one, so that engines are compared and not means

    answers, reference, window = {}, None, torch.rand(1, image.shape[1], *inferer.roi_size)
    for name, run in _variants(pipeline.network).items():
        with torch.no_grad():
            run(window)
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(3):
                run(window)
            wall, processor = (time.perf_counter() - wall) / 3, (time.process_time() - processor) / 3
            masks = (
                SlidingWindow(inferer.roi_size, overlap=inferer.overlap, mode=inferer.mode)(image, run) >= 0
            )
        reference = masks if reference is None else reference
        answers[name] = [
            int((masks != reference).sum()),
            masks.numel(),
            wall,
            processor,
            int(reference.sum()),
        ]
    return answers


def _variants(network) -> dict:
    """What answers a window, by name; the first is what the others are compared with."""
    import torch

    from medseg.inference.engines import OpenVINOEngine, TorchEngine

    def bfloat16(batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(batch).float()

    return {
        "torch, float32": TorchEngine(network),
        "torch, bfloat16": bfloat16,
        "openvino, float32": OpenVINOEngine(network),
        "openvino, bfloat16": OpenVINOEngine(network, precision="bf16"),
    }


def engines(given) -> str:
    from medseg.bundles.find import bundle_folders, find_bundle

    rows = []
    for bundle in map(find_bundle, sorted(bundle_folders())):
        if not bundle.has_weights or bundle.modalities["image"] != "CT":
            continue
        for name, (apart, voxels, wall, processor, filled) in child(
            "engines", str(given.data.resolve()), bundle.name
        ).items():
            share = [f"{100 * apart / voxels:.4f} %", f"{100 * apart / max(filled, 1):.3f} %"]
            rows.append([bundle.name, name, *share, f"{wall:.2f} s ({processor:.2f})"])
    head = [
        "bundle",
        "engine",
        "voxels unlike torch float32",
        "the same, of the structures' voxels",
        "one window",
    ]
    shown = "LUNG1-001 on the network's grid (mm_gtv: CT alone within GTV-1, one of its eight passes)"
    what = f"{shown}. Processor seconds in brackets"
    return f"{what}. {note()}\n\n{table(head, rows)}"
