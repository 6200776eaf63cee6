"""The `memory` part of run.py: many structures in little memory, and equality with MONAI."""

from __future__ import annotations

import time

from measuring import child, note, peak_gb, table


def run_memory(side: str, roi: str, compare: str) -> dict:
    """A network of 100 outputs over side^3 voxels of noise, packed; with ``compare`` the voxels unlike
    MONAI's result."""
    import torch
    from monai.inferers import sliding_window_inference

    from medseg.inference.sliding_window import SlidingWindow, unpack

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
            int((unpack(b, int(side)) != p.numpy()).sum()) for b, p in zip(bits[0], plain, strict=True)
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
