"""How long medseg takes over a whole CT, and how much memory, beside MONAI's plain path in the same run.

    python tools/benchmarks/inference/run.py whole   --data DIR   DICOM in, RTSTRUCT out, by stage; both paths, one
process each python tools/benchmarks/inference/run.py memory               100 structures x 384^3, merged and
packed; equality on 128^3 python tools/benchmarks/inference/run.py engines --data DIR   voxels that another engine
or number format moves python tools/benchmarks/inference/run.py cohort  --data DIR   eight patients, overlapped and
one after the other

DIR holds lung1_001/CT, lung1_001/RTSTRUCT.dcm and sts/STS_0NN/CT. Seconds are wall clock; "processor" is the
time of all cores, which other programs on the computer disturb less. Every path runs in a process of its own,
whose peak is RSS.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

from page_section import put_section

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
    "medseg": "the bundle as it is: --engine auto",
    "medseg, no body crop": "the same without CropBodyd: the windows then lie where MONAI's lie",
}


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def child(*arguments: str) -> dict:
    """Run this script in a fresh process and read the JSON on its last line."""
    run = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    return json.loads(run.stdout.strip().splitlines()[-1])


def note() -> str:
    import torch

    busy = os.getloadavg()[0]
    return (
        f"{len(os.sched_getaffinity(0))} cores, torch {torch.__version__}, load of the computer at the "
        f"end {busy:.1f}."
    )


# ---- whole: one CT, stage by stage -------------------------------------------------------------------------


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

    from medseg.bundles.find import find_bundle
    from medseg.bundles.job import Pipeline, Request

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
        engine = {"MONAI plain": "auto", "medseg, torch": "torch"}.get(path, "auto")
        request = Request(
            Path(source), str(folder), Path(scratch), formats=("rtstruct",), device="cpu", engine=engine
        )
        pipeline = Pipeline(find_bundle(str(folder)), request, ("rtstruct",), Path(scratch))
        stages["start"] = [0.0, 0.0, peak_gb()]
        item = pipeline.prepare({"image": source, "case_name": "case"}, timed)
        structures = pipeline.finish(pipeline.predict(item, timed), timed)
        packed = {s.name: np.packbits(mask >= 0.5) for s, mask in structures.masks.items()}
        np.savez(out, **packed)
    return stages


def whole(given) -> str:
    import numpy as np

    source = str((given.data / "lung1_001" / "CT").resolve())
    results, masks = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, path in enumerate(PATHS):
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
        rows.append([path, *cells, whole_time, times, f"{peak:.1f} GB"])
    head = ["path", *ORDER[1:], "whole", "times faster", "peak memory"]
    memory = [[path, *(f"{stages[name][2]:.1f}" for name in ORDER)] for path, stages in results.items()]
    same, other = masks["MONAI plain"], masks["medseg, no body crop"]
    apart = {name: int(np.unpackbits(same[name] ^ other[name]).sum()) for name in same}
    size = {name: int(np.unpackbits(same[name]).sum()) for name in same}
    total = 100 * sum(apart.values()) / (8 * sum(bits.size for bits in same.values()))
    filled = {name: 100 * apart[name] / size[name] for name in same if size[name]}
    worst = max(filled, key=filled.get, default=None)
    said = f" Of the structure most concerned, {worst}, {filled[worst]:.3f} % of its voxels." if worst else ""
    what = f"LUNG1-001 (134 slices of 512 x 512) with `{given.bundle}`"
    return "\n\n".join(
        [
            f"{what}: seconds by stage, processor seconds in brackets. {note()}",
            table(head, rows),
            "Peak memory by the end of each stage, GB (start: Python, torch, MONAI and the weights).",
            table(["path", *ORDER], memory),
            "\n".join(f"- {path}: {meaning}" for path, meaning in PATHS.items()),
            f"Masks of MONAI's path and of medseg's without the crop differ in {total:.5f} % of all "
            f"voxels.{said}",
        ]
    )


# ---- memory: many structures -------------------------------------------------------------------------------


def run_memory(side: str, roi: str, compare: str) -> dict:
    """A network of 100 outputs over side^3 voxels of noise, packed; with ``compare`` the voxels unlike
    MONAI's result."""
    import torch
    from monai.inferers import sliding_window_inference

    from medseg.inference.sliding_window import SlidingWindow, unpacked

    torch.manual_seed(0)
    layers = [torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(8, 100, 1)]
    network = torch.nn.Sequential(*layers).eval()
    image = torch.randn(1, 1, *[int(side)] * 3)
    began = time.process_time()
    window = {"overlap": 0.25, "mode": "gaussian"}
    bits = SlidingWindow([int(roi)] * 3, **window, keep="masks")(image, network)
    answer = {"processor": time.process_time() - began, "peak": peak_gb()}
    if compare == "yes":
        with torch.no_grad():
            plain = sliding_window_inference(image, [int(roi)] * 3, 1, network, **window)[0] >= 0
        answer["differ"] = sum(
            int((unpacked(b, int(side)) != p.numpy()).sum()) for b, p in zip(bits[0], plain, strict=True)
        )
        answer["peak_plain"] = peak_gb()
    return answer


def memory(given) -> str:
    rows = []
    for side, roi, compare in ((128, 64, "yes"), (384, 64, "no"), (384, 96, "no")):
        result = child("memory", str(side), str(roi), compare)
        differ = f"{result['differ']} of {100 * side**3}" if compare == "yes" else "not computed"
        plain = (
            f"{result['peak_plain']:.1f} GB"
            if compare == "yes"
            else f"{100 * side**3 * 4 / 1e9:.1f} GB for its result alone"
        )
        rows.append(
            [
                f"{side}^3",
                f"{roi}^3",
                f"{result['peak']:.2f} GB",
                plain,
                differ,
                f"{result['processor']:.0f} s",
            ]
        )
    head = [
        "image",
        "window",
        "peak memory",
        "MONAI's sliding window",
        "voxels unlike MONAI's",
        "processor time",
    ]
    return (
        f"100 overlapping structures everywhere in noise, windows overlapping by a quarter. "
        f"{note()}\n\n{table(head, rows)}"
    )


# ---- engines: equality -------------------------------------------------------------------------------------


def run_engines(data: str, bundle_name: str) -> dict:
    """{variant: voxels unlike torch float32, all voxels, seconds of one window, processor seconds, set
    voxels}."""
    import torch

    from medseg.bundles.find import find_bundle
    from medseg.bundles.job import Pipeline, Request
    from medseg.inference.engines import OpenVINOEngine, TorchEngine
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
            Request(Path(source), bundle_name, Path(scratch), within=within),
            ("rtstruct",),
            Path(scratch),
        )
        image = pipeline.prepare({"image": source, "case_name": "case"}, untimed)["image"][None].as_tensor()
    network, inferer = pipeline.network, pipeline.inferer

    def bfloat16(batch):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(batch).float()

    variants = {
        "torch, float32": TorchEngine(network),
        "torch, bfloat16": bfloat16,
        "openvino, float32": OpenVINOEngine(network),
        "openvino, bfloat16": OpenVINOEngine(network, precision="bf16"),
    }
    answers, reference, window = {}, None, torch.rand(1, 1, *inferer.roi_size)
    for name, run in variants.items():
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


def engines(given) -> str:
    from medseg.bundles.find import bundle_folders

    rows = []
    for bundle, folder in sorted(bundle_folders().items()):
        described = json.loads((folder / "configs" / "metadata.json").read_text())["network_data_format"]
        if not (folder / "models" / "model.pt").is_file() or described["inputs"]["image"]["modality"] != "CT":
            continue
        for name, (apart, voxels, wall, processor, filled) in child(
            "engines", str(given.data.resolve()), bundle
        ).items():
            share = [f"{100 * apart / voxels:.4f} %", f"{100 * apart / max(filled, 1):.3f} %"]
            rows.append([bundle, name, *share, f"{wall:.2f} s ({processor:.2f})"])
    head = [
        "bundle",
        "engine",
        "voxels unlike torch float32",
        "the same, of the structures' voxels",
        "one window",
    ]
    what = "LUNG1-001 on the network's grid (ct_gtv: within GTV-1). Processor seconds in brackets"
    return f"{what}. {note()}\n\n{table(head, rows)}"


# ---- cohort: overlapped or one after the other -------------------------------------------------------------


def run_cohort(data: str) -> dict:
    """Seconds of eight patients overlapped and in sequence, in turns: {way: [wall, processor] of each
    round}."""
    from medseg.bundles.cohort import in_turn
    from medseg.bundles.find import find_bundle
    from medseg.bundles.job import Job, Pipeline, Request
    from medseg.cases.find import find_cases
    from medseg.cases.volume import _open

    bundle = find_bundle("ct_gtv")
    answers: dict[str, list[list[float]]] = {"overlapped": [], "in sequence": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            for way in answers:
                with tempfile.TemporaryDirectory() as scratch:
                    request = Request(
                        Path(data) / "sts", "ct_gtv", Path(scratch) / "out", within="RS.dcm:GTV_Mass_CT"
                    )
                    pipeline = Pipeline(bundle, request, ("rtstruct", "preview"), Path(scratch) / "staging")
                    cases = find_cases(request.input, "CT")[0]
                    jobs = [Job(name, source, pipeline, bundle, request) for name, source in cases]
                    _open.cache_clear()
                    wall, processor = time.perf_counter(), time.process_time()
                    done = (
                        in_turn(jobs)
                        if way == "overlapped"
                        else (job.prepare().predict().finish() for job in jobs)
                    )
                    statuses = [record["status"] for record in done]
                    answers[way].append([time.perf_counter() - wall, time.process_time() - processor])
                    assert statuses == ["done"] * 8, statuses
    return answers


def cohort(given) -> str:
    answers = child("cohort", str(given.data.resolve()))
    rows = [
        [way, *(f"{wall:.1f} ({processor:.1f})" for wall, processor in rounds)]
        for way, rounds in answers.items()
    ]
    best = {way: min(wall for wall, _ in rounds) for way, rounds in answers.items()}
    gain = 100 * (1 - best["overlapped"] / best["in sequence"])
    text = (
        "Eight sarcoma patients, `ct_gtv`, RTSTRUCT and preview: seconds, processor seconds in brackets. "
        f"{note()}"
    )
    rounds = table(["way", "first", "second", "third"], rows)
    return f"{text}\n\n{rounds}\n\nBest against best: {gain:.0f} % less time overlapped."


# ---- command line ------------------------------------------------------------------------------------------

BENCHMARKS = {"whole": whole, "memory": memory, "engines": engines, "cohort": cohort}
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
    parser.add_argument("--bundle", default="ct_head_neck", help="whole: the bundle to run")
    parser.add_argument("--markdown", type=Path, help="file whose section of this name is replaced")
    given = parser.parse_args()
    if given.what != "memory" and given.data is None:
        parser.error(f"{given.what} needs --data DIR")
    text = BENCHMARKS[given.what](given)
    print(text)
    if given.markdown:
        data = [] if given.what == "memory" else ["--data", "DATA"]
        command = shlex.join(["python", "tools/benchmarks/inference/run.py", given.what, *data])
        put_section(given.markdown, given.what, f"`{command}`\n\n{text}")


if __name__ == "__main__":
    main()
