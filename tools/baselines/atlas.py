"""What no network scores on ct_head_neck: contours of training patients, moved onto a test patient by affine
registration.

    python tools/baselines/atlas.py DATASET_DIR [--section test] [--atlases 5]

The atlases are the first training patients of the bundle's datalist in whom every structure was contoured.
Each is registered to the patient (SimpleITK: affine, mutual information, on 8 mm voxels; the start is
moments), its structures are moved along, and a voxel is inside where at least half of the atlases say so.
Prints the mean Dice of every structure on the patient's own grid with 95 % bootstrap intervals, as
`medseg score` does for the network.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from medseg.bundles.find import find_bundle
from medseg.metrics import dice
from medseg.metrics.intervals import mean_interval

COARSE_MM = 8.0
AIR_HU, BRIGHT_HU = -500.0, 500.0


def read(dataset_dir: Path, case: dict) -> tuple[sitk.Image, sitk.Image]:
    """CT (float32, HU clipped to -500..500) and bit field of a case."""
    image = sitk.ReadImage(str(dataset_dir / case["image"]), sitk.sitkFloat32)
    return sitk.Clamp(image, sitk.sitkFloat32, AIR_HU, BRIGHT_HU), sitk.ReadImage(
        str(dataset_dir / case["label"])
    )


def coarse(image: sitk.Image) -> sitk.Image:
    size = [
        max(1, round(n * mm / COARSE_MM)) for n, mm in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    smooth = sitk.SmoothingRecursiveGaussian(image, COARSE_MM / 2)
    return sitk.Resample(
        smooth,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        [COARSE_MM] * 3,
        image.GetDirection(),
        AIR_HU,
    )


def register(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """The affine transform from points of ``fixed`` to points of ``moving``, both coarse."""
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    tissue = [sitk.Cast(image > AIR_HU + 200, sitk.sitkFloat32) for image in (fixed, moving)]
    start = sitk.CenteredTransformInitializer(*tissue, start, sitk.CenteredTransformInitializerFilter.MOMENTS)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.01, 150)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start)
    return method.Execute(fixed, moving)


def moved_structures(atlases: list, image: sitk.Image, bits: dict[str, int]) -> dict[str, np.ndarray]:
    """{structure: bool mask on the image's grid} by the votes of the atlases (coarse CT, bit field)."""
    fixed, votes = coarse(image), {name: 0 for name in bits}
    for moving, field in atlases:
        transform = register(fixed, moving)
        moved = sitk.GetArrayFromImage(sitk.Resample(field, image, transform, sitk.sitkNearestNeighbor, 0))
        for name, mask in bits.items():
            votes[name] = votes[name] + ((moved & mask) != 0)
    return {name: count * 2 >= len(atlases) for name, count in votes.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("--section", default="test", choices=("validation", "test"))
    parser.add_argument("--atlases", type=int, default=5)
    options = parser.parse_args()
    configs = find_bundle("ct_head_neck").folder / "configs"
    numbers = json.loads((configs / "train.json").read_text(encoding="utf-8"))["bits"]
    bits = {name: sum(1 << n for n in bit_numbers) for name, bit_numbers in numbers.items()}
    datalist = json.loads((configs / "datalist.json").read_text(encoding="utf-8"))
    whole = [case for case in datalist["training"] if set(case["present"]) == set(bits)][: options.atlases]
    atlases = [(coarse(image), field) for image, field in (read(options.dataset_dir, case) for case in whole)]
    scores: dict[str, list[float]] = {name: [] for name in bits}
    for case in datalist[options.section]:
        image, field = read(options.dataset_dir, case)
        truth = sitk.GetArrayViewFromImage(field)
        moved = moved_structures(atlases, image, bits)
        for name in case["present"]:
            scores[name].append(dice((truth & bits[name]) != 0, moved[name]))
    print(f"atlases: {', '.join(case['case_id'] for case in whole)}")
    print("| structure | n | DSC |\n|---|--:|--:|")
    for name, values in scores.items():
        mean, low, high = mean_interval(np.array(values))
        print(f"| {name} | {len(values)} | {mean:.3f} ({low:.3f} to {high:.3f}) |")
    organs = [np.mean(values) for name, values in scores.items() if name != "PTV"]
    print(f"| **mean of {len(organs)} organs** | | **{np.mean(organs):.3f}** |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
