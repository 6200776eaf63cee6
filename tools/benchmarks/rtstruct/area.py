"""`area`: what the contours of masks enclose, and how many bytes they take, with the corners of stairs cut
and left."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
import shapely

from medseg.cases.nifti import load_image
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import MedsegWarning
from medseg.metrics import dice, volume_cc
from medseg.phantoms.series import stack_geometry, write_series
from medseg.phantoms.thigh import write_thigh_phantom
from medseg.shapes import loops


def benchmark_area(_pythons, given) -> str:
    """A row per set of masks and way of writing."""
    lines = [
        "| masks | corners of stairs | bytes | area off, worst structure | worst slice | smallest Dice "
        "read back | plastimatch: volume off |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        for name, ct, masks in _sets(Path(folder), given.data):
            for words in ("cut", "left"):
                out = Path(folder) / f"{words}.dcm"
                series = read_series(ct)
                cut = loops.cut_stairs if words == "cut" else list
                with mock.patch.object(loops, "cut_stairs", cut):
                    write_rtstruct(masks, series, out)
                lines.append(
                    f"| {name} | {words} | {out.stat().st_size} | {_judged(out, ct, series, masks)} |"
                )
    return "\n".join(lines)


def _sets(folder: Path, data: Path | None):
    """(name, CT folder, {name: mask}) of each set."""
    if data is not None:
        ct = next(path.parent for path in sorted(data.rglob("*.dcm")) if _modality(path) == "CT")
        rs = next(path for path in sorted(data.rglob("*.dcm")) if _modality(path) == "RTSTRUCT")
        yield f"{data.name}", ct, read_rtstruct(rs, read_series(ct))
    thigh = write_thigh_phantom(folder / "thigh")
    yield "thigh phantom", thigh.ct_dir, thigh.truth
    geometry = stack_geometry((12, 96, 96), gaps_mm=3.0, pixel_spacing_mm=(1.0, 1.0))
    write_series(np.zeros(geometry.shape), geometry, folder / "CT")
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:96, :96] - 47.7
    single = np.zeros(geometry.shape, dtype=bool)
    single[:, 5::9, 5::9] = True
    rough = np.hypot(row, column) + rng.uniform(-1.5, 1.5, geometry.shape) < 30
    yield "isolated voxels", folder / "CT", {"Single": single}
    yield "disc, its surface noisy by a voxel", folder / "CT", {"Rough": rough}
    yield "noise, 30 % set", folder / "CT", {"Noise": rng.random(geometry.shape) < 0.3}


def _modality(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"]).Modality)


def _judged(out: Path, ct: Path, series, masks) -> str:
    """The cells about one written set."""
    found = read_rtstruct(out, series)
    dataset = pydicom.dcmread(out)
    names = {int(row.ROINumber): row.ROIName for row in dataset.StructureSetROISequence}
    by_name = {getattr(key, "name", key): mask for key, mask in masks.items()}
    whole, slices, dices = [], [], []
    for row in dataset.ROIContourSequence:
        name = names[int(row.ReferencedROINumber)]
        mask = by_name[name]
        areas = np.zeros(len(mask))
        for contour in row.get("ContourSequence", ()):
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            index, _ = series.geometry.nearest_slice(points)
            # A keyhole's channel runs there and back and encloses nothing, so the signed area is the area.
            in_plane = series.geometry.rows_columns(index, points)
            ring = shapely.LinearRing(in_plane)
            areas[index] += shapely.Polygon(ring).area
        true = mask.sum(axis=(1, 2))
        if true.any():
            whole.append(areas.sum() / true.sum() - 1)
            slices += (areas[true > 0] / true[true > 0] - 1).tolist()
            dices.append(dice(found[name], mask))
    worst, worst_slice = (max(values, key=abs) for values in (whole, slices))
    cells = [f"{100 * worst:+.4f} %", f"{100 * worst_slice:+.4f} %", f"{min(dices):.4f}"]
    return " | ".join([*cells, _by_plastimatch(out, ct, series, by_name)])


def _by_plastimatch(out: Path, ct: Path, series, masks) -> str:
    """The worst volume of plastimatch's masks, in % off; "" where it is not installed."""
    if shutil.which("plastimatch") is None:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        run = ["plastimatch", "convert", "--input", str(out), "--referenced-ct", str(ct), "--xor-contours"]
        run += ["--output-prefix", folder, "--prefix-format", "nii.gz"]
        subprocess.run(run, check=True, capture_output=True)
        off = []
        for path in Path(folder).glob("*.nii.gz"):
            name = path.name.removesuffix(".nii.gz")
            if name in masks and masks[name].any():
                image, array = load_image(path)
                cc = np.count_nonzero(array) * abs(np.linalg.det(image.affine[:3, :3])) / 1000
                off.append(cc / volume_cc(masks[name], series.geometry) - 1)
        return f"{100 * max(off, key=abs):+.3f} %" if off else "no structure of these names"
