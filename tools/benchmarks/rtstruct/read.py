"""The `read` part of run.py: real structure sets and seven analytic bodies, volumes, Dice and seconds."""

import argparse
import csv
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from analytic import BODIES, SIZE, true_mask, write_analytic_rtstruct
from runs import Failed, run_peer, table

from medseg.dicom import find_series, read_series, read_structure_set
from medseg.dicom.images.scan import Found
from medseg.dicom.rtstruct.volumes import structure_set_volumes
from medseg.errors import MedsegError
from medseg.metrics import dice
from medseg.phantoms.series import stack_geometry, write_series

READERS = (
    "medseg",
    "plastimatch",
    "plastimatch --xor-contours",
    "rt-utils",
    "DicomRTTool",
    "dcmrtstruct2nii",
    "PlatiPy",
)

IBSI_MASK = Path("ibsi1_lung_gtv", "nifti", "mask", "mask.nii.gz")
ECLIPSE = Path("structure_sets", "eclipse81_prostate")


def benchmark_read(pythons: list[str], given: argparse.Namespace) -> str:
    """All tables of reading, as Markdown."""
    data: Path = given.data
    with tempfile.TemporaryDirectory() as folder:
        cases, left_out = real_cases(data, Path(folder))
        runs = {}
        for number, (name, (ct_dir, structures)) in enumerate(cases.items()):
            runs[name] = read_with_all(
                pythons, ct_dir, structures, Path(folder, f"case_{number}"), given.repeats
            )
        bodies = analytic_case(Path(folder, "analytic"))
        analytic = read_with_all(pythons, *bodies, Path(folder, "bodies"), given.repeats)
        parts = [
            f"Seconds of processor time (one core), medians of up to {given.repeats} runs (none begins after "
            f"20 s), imports "
            "left out: to masks in memory / to masks in uncompressed files; (n x) is the ratio of the latter "
            "to medseg's. "
            "plastimatch and dcmrtstruct2nii only write files. DicomRTTool is run once for each ROI, because "
            "its label map "
            "lets no two overlap.\n\n" + time_table(runs, analytic),
            "Volumes of the masks in cc, beside area of the contours times spacing (needs no images).\n\n"
            + volume_table(cases, runs),
            ibsi_table(data, cases, runs),
            "Volumes without images, from contour area times spacing, beside the table that the planning "
            "system "
            "(Eclipse 8.1) made itself.\n\n" + eclipse_table(data),
            "Seven bodies of 1 mm voxels on 200 slices, contours from their formulas with 360 vertices, "
            "holes as nested "
            "contours: Dice against the voxel centres inside the formula.\n\n" + analytic_table(analytic),
            "Structure sets that were not read, with medseg's reason:\n\n"
            + "\n".join(f"- {line}" for line in left_out),
        ]
    return "\n\n".join(parts)


# ---- cases -------------------------------------------------------------------------------------------------


def real_cases(data: Path, folder: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """({name: (CT_DIR with nothing but its slices, RS.dcm)}, why the other sets are not read)."""
    found, cases, left_out = find_series(data), {}, []
    for number, file in enumerate(sorted(found.structure_sets)):
        name = str(file.relative_to(data).with_suffix(""))
        series = [files for files in found.series.values() if fits(files, file)]
        if len(series) != 1 or len(series[0].records) < 2:
            left_out.append(f"{name}: {refusal(file, found)}")
            continue
        ct_dir = folder / f"ct_{number}"
        ct_dir.mkdir()
        for position, record in enumerate(series[0].records):
            os.symlink(record.path.resolve(), ct_dir / f"{position:04d}.dcm")
        cases[name] = ct_dir, file
    return cases, left_out


def fits(files, structure_set: Path) -> bool:
    found = read_structure_set(structure_set)
    frame = str(files.records[0].dataset.get("FrameOfReferenceUID") or "")
    return files.patient_id == found.patient_id and frame in found.frame_of_reference_uids


def refusal(file: Path, found: Found) -> str:
    """What medseg says when it is asked to lay the set on the images of its own folder."""
    from medseg.dicom.rtstruct.read import place

    records = [record for files in found.series.values() for record in files.records]
    images = [record.path for record in records if record.path.parent == file.parent]
    if not images:
        return "no images"
    try:
        masks, _ = place(read_structure_set(file), read_series(images))
    except MedsegError as error:
        return str(error).replace(str(file), file.name)
    return f"a single slice; {sum(bool(mask.any()) for mask in masks.values())} of {len(masks)} ROIs cross it"


def analytic_case(folder: Path) -> tuple[Path, Path]:
    geometry = stack_geometry((SIZE, SIZE, SIZE), gaps_mm=1.0, pixel_spacing_mm=(1.0, 1.0))
    write_series(np.zeros(geometry.shape, dtype=np.int16), geometry, folder / "ct")
    write_analytic_rtstruct(folder / "ct", folder / "rs.dcm")
    return folder / "ct", folder / "rs.dcm"


def read_with_all(
    pythons: list[str], ct_dir: Path, structures: Path, folder: Path, repeats: int
) -> dict[str, dict]:
    """{reader: {"read_s", "files_s", "masks": {key of ROI name: mask}} or {"failed": why}}"""
    runs = {}
    for reader in READERS:
        out_dir = folder / re.sub(r"\W+", "_", reader)
        try:
            report = run_peer(pythons, "read", reader, ct_dir, structures, out_dir, "--repeats", repeats)
        except Failed as failure:
            runs[reader] = {"failed": str(failure)}
            continue
        if report is not None:
            masks = {roi_key(path.stem): np.load(path) for path in out_dir.glob("*.npy")}
            runs[reader] = {**report, "masks": {key: np.packbits(mask) for key, mask in masks.items()}}
            runs[reader]["voxels"] = {key: int(mask.sum()) for key, mask in masks.items()}
            runs[reader]["shape"] = next(iter(masks.values())).shape if masks else None
        shutil.rmtree(out_dir, ignore_errors=True)
        print(f"read: {structures} with {reader}", file=sys.stderr)
    return runs


def roi_key(name: str) -> str:
    """Letters and digits of an ROI name in small letters: tools change the rest when they name files."""
    return re.sub(r"[^0-9a-z]", "", name.lower())


def unpacked(run: dict, name: str) -> np.ndarray | None:
    packed = run.get("masks", {}).get(roi_key(name))
    if packed is None:
        return None
    return np.unpackbits(packed, count=int(np.prod(run["shape"]))).astype(bool).reshape(run["shape"])


# ---- tables ------------------------------------------------------------------------------------------------


def present(runs: dict[str, dict[str, dict]]) -> list[str]:
    return [reader for reader in READERS if any(reader in run for run in runs.values())]


def time_table(runs: dict[str, dict[str, dict]], analytic: dict[str, dict]) -> str:
    sums = {reader: sum_of([run.get(reader, {}) for run in runs.values()]) for reader in present(runs)}
    largest = max(runs, key=lambda name: runs[name]["medseg"]["files_s"])
    columns = {largest: runs[largest], f"all {len(runs)} real sets": sums, "seven bodies": analytic}
    lines = []
    for reader in present(runs):
        version = next(
            (run[reader]["version"] for run in (*runs.values(), analytic) if "masks" in run.get(reader, {})),
            "",
        )
        lines.append([f"{reader} {version}", *(seconds(column, reader) for column in columns.values())])
    return table(["reader", *columns], lines)


def sum_of(runs: list[dict]) -> dict:
    """Seconds of several runs together; failed when one failed."""
    failed = sum("files_s" not in run for run in runs)
    if failed:
        return {"failed": f"{failed} of {len(runs)} sets failed"}
    in_memory = all(run["read_s"] is not None for run in runs)
    return {
        "read_s": sum(run["read_s"] for run in runs) if in_memory else None,
        "files_s": sum(run["files_s"] for run in runs),
    }


def seconds(runs: dict[str, dict], reader: str) -> str:
    run = runs.get(reader, {})
    if "files_s" not in run:
        return run.get("failed", "")
    memory = "–" if run["read_s"] is None else f"{run['read_s']:.2f}"
    return f"{memory} / {run['files_s']:.2f} s ({run['files_s'] / runs['medseg']['files_s']:.1f} x)"


def volume_table(cases: dict[str, tuple[Path, Path]], runs: dict[str, dict[str, dict]]) -> str:
    readers, lines = present(runs), []
    for name, (ct_dir, file) in cases.items():
        structure_set = read_structure_set(file)
        voxel_cc = float(np.prod(read_series(ct_dir).geometry.spacing_mm)) / 1000
        for roi, volume_cc in zip(structure_set.rois, structure_set_volumes(structure_set), strict=True):
            if not any(contour.bounds_an_area for contour in roi.contours):
                continue
            line = [name, roi.structure.name, "not known" if volume_cc is None else f"{volume_cc:.2f}"]
            for reader in readers:
                run = runs[name].get(reader, {})
                voxels = run.get("voxels", {}).get(roi_key(roi.structure.name))
                line.append("failed" if voxels is None else f"{voxels * voxel_cc:.2f}")
            lines.append(line)
    return table(["set", "ROI", "contours", *readers], lines)


def ibsi_table(data: Path, cases: dict[str, tuple[Path, Path]], runs: dict[str, dict[str, dict]]) -> str:
    """Dice with the mask that the distributor of the IBSI phantom made, turned to the array's directions by
    its affine."""
    name = next((name for name in cases if name.startswith(IBSI_MASK.parts[0])), None)
    if name is None:
        return "The IBSI phantom is not among the data."
    image = nibabel.as_closest_canonical(nibabel.load(data / IBSI_MASK))
    truth = np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1] > 0
    voxel_cc = float(np.prod(image.header.get_zooms()[:3])) / 1000
    lines = [["the distributor's own NIfTI mask", "1", f"{truth.sum() * voxel_cc:.2f}"]]
    for reader in present(runs):
        mask = unpacked(runs[name].get(reader, {}), "GTV-1")
        if mask is None:
            lines.append([reader, runs[name].get(reader, {}).get("failed", "failed"), ""])
        else:
            lines.append([reader, f"{dice(mask, truth):.5f}", f"{mask.sum() * voxel_cc:.2f}"])
    return "GTV-1 of the IBSI lung phantom.\n\n" + table(["reader", "Dice", "cc"], lines)


def eclipse_table(data: Path) -> str:
    with (data / ECLIPSE / "EclipseProstate_DvhTable_Eclipse.csv").open(encoding="utf-8") as file:
        heads = next(csv.reader(file))
    stated = dict(re.findall(r"(\w+)_DvhArray Value \(% of ([\d.]+) cc\)", " ".join(heads)))
    stated = {roi_key(name.replace("Femoral", "Fem")): float(cc) for name, cc in stated.items()}
    structure_set = read_structure_set(data / ECLIPSE / "RS.dcm")
    lines = []
    for roi, volume_cc in zip(structure_set.rois, structure_set_volumes(structure_set), strict=True):
        planned = stated.get(roi_key(roi.structure.name.replace("Femoral", "Fem")))
        if planned:
            lines.append(
                [roi.structure.name, f"{planned:.1f}", f"{volume_cc:.2f}", f"{volume_cc / planned - 1:+.1%}"]
            )
    return table(["ROI", "Eclipse, cc", "medseg, cc", "difference"], lines)


def analytic_table(runs: dict[str, dict]) -> str:
    truths = {name: true_mask(name) for name in BODIES}
    lines = []
    for reader in present({"": runs}):
        run, line, worst = runs[reader], [reader], 0.0
        for name, truth in truths.items():
            mask = unpacked(run, name)
            line.append("failed" if mask is None or mask.shape != truth.shape else f"{dice(mask, truth):.4f}")
            if mask is not None:
                worst = max(worst, mask.sum() / truth.sum() - 1, key=abs)
        lines.append([*line, f"{worst:+.2%}" if "masks" in run else run.get("failed", "")])
    return table(["reader", *BODIES, "largest change of volume"], lines)
