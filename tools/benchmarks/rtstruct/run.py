"""Measure RTSTRUCT writing and reading beside other tools, on masks and images made here.

    python tools/benchmarks/rtstruct/run.py write [--peer-python PY ...] [--markdown FILE]   nine structures, 512 x
512 x 120 python tools/benchmarks/rtstruct/run.py read  [--peer-python PY ...] [--markdown FILE] --data DIR   real
structure sets python tools/benchmarks/rtstruct/run.py odd   [--peer-python PY ...] [--markdown FILE]   awkward
geometry and shapes python tools/benchmarks/rtstruct/run.py holes [--peer-python PY ...] [--markdown FILE]   hole
encodings by reader

Tools are looked for in this Python and in each --peer-python (another environment's python, for tools that
need other versions of pydicom); one that is found nowhere is skipped with a line. --markdown replaces that
file's section of the same name. medseg never judges its own files: `write` is read back by plastimatch
--xor-contours, `odd` by a test of every voxel centre that knows only each slice's own ImagePositionPatient.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from matplotlib.path import Path as Outline
from page_section import put_section
from rtstruct_reading import benchmark_read
from rtstruct_runs import Failed, read_back, run_peer, table
from scipy import ndimage

from medseg.geometry import Geometry
from medseg.metrics.surfaces import dice
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm, write_series
from medseg.shapes.outlines import HOLE_MODES

WRITERS = ("medseg", "rt-utils", "DicomRTTool", "plastimatch")
READERS = (
    "medseg",
    "plastimatch --xor-contours",
    "plastimatch",
    "rt-utils",
    "DicomRTTool",
    "dcmrtstruct2nii",
    "PlatiPy",
)


def save_case(folder: Path, masks: dict[str, np.ndarray], geometry: Geometry) -> tuple[Path, Path]:
    """(CT_DIR, MASK_DIR) of a case whose images are empty: only their geometry matters here."""
    ct_dir, mask_dir = folder / "ct", folder / "masks"
    write_series(np.zeros(geometry.shape, dtype=np.int16), geometry, ct_dir)
    mask_dir.mkdir()
    for name, mask in masks.items():
        np.save(mask_dir / f"{name}.npy", mask)
    return ct_dir, mask_dir


# ---- write: nine structures --------------------------------------------------------------------------------


def nine_structures(geometry: Geometry) -> dict[str, np.ndarray]:
    """Balls of 5, 12 and 30 mm, a cord, a ring with a hole, body, body less lungs, lungs and a rough
    bowel."""
    (slices, rows, columns), spacing_mm = geometry.shape, geometry.spacing_mm
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(geometry.shape, spacing_mm, strict=True)]
    z, y, x = np.ix_(*axes)

    def ellipsoid(centre_zyx_mm, radii_zyx_mm):
        parts = zip((z, y, x), centre_zyx_mm, radii_zyx_mm, strict=True)
        return sum(((axis - c) / r) ** 2 for axis, c, r in parts) <= 1

    long = 1e6
    body = ellipsoid((0, 0, 0), (long, 120, 190))
    lungs = ellipsoid((0, 0, -95), (130, 75, 55)) | ellipsoid((0, 0, 95), (130, 75, 55))
    noise = np.random.default_rng(0).standard_normal((slices, rows, columns), dtype=np.float32)
    rough = ndimage.gaussian_filter(noise, (1, 3, 3)) > 0
    return {
        "GTVp1": ellipsoid((10, 30, 20), (5, 5, 5)),
        "GTVp2": ellipsoid((-20, -20, -30), (12, 12, 12)),
        "CTVp2": ellipsoid((-20, -20, -30), (30, 30, 30)),
        "SpinalCord": ellipsoid((0, 70, 0), (long, 6, 7)),
        "Bladder_Wall": ellipsoid((-60, -30, 0), (50, 45, 45)) & ~ellipsoid((-60, -30, 0), (long, 36, 36)),
        "External": body,
        "Body-Lungs": body & ~lungs,
        "Lungs": lungs,
        "Bowel": rough & ellipsoid((-60, -30, 0), (60, 60, 80)),
    }


def benchmark_write(pythons: list[str], given: argparse.Namespace) -> str:
    geometry = stack_geometry((given.slices, 512, 512), gaps_mm=2.5, pixel_spacing_mm=(0.977, 0.977))
    masks = nine_structures(geometry)
    lines, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        ct_dir, mask_dir = save_case(Path(folder), masks, geometry)
        for name in WRITERS:
            out_dir = Path(folder, name)
            try:
                report = run_peer(pythons, "write", name, ct_dir, mask_dir, out_dir, "--repeats", 5)
                if report is None:
                    continue
                found = read_back(
                    pythons, "plastimatch --xor-contours", ct_dir, report["file"], out_dir / "read"
                )
            except Failed as failure:
                lines.append([name, f"failed: {failure}", *[""] * 7])
                continue
            first = first or report
            lines.append(write_line(name, report, first, masks, found))
            shutil.rmtree(out_dir)
    heads = [
        "writer",
        "convert + save",
        "with reading CT and masks",
        "file",
        "dciodvfy errors",
        "worst Dice of nine",
        "Dice of GTV 5 mm",
        "Dice of cord",
        "largest change of volume",
    ]
    return (
        f"Nine structures on 512 x 512 x {given.slices}, 0.977 x 2.5 mm. Times are processor seconds (one "
        f"core), medians of "
        "up to 5 runs; (n x) is the ratio to medseg. Read back by plastimatch --xor-contours.\n\n"
        + table(heads, lines)
    )


def write_line(name: str, report: dict, first: dict, masks: dict, found: dict) -> list[str]:
    """One writer's row of the table of nine structures."""
    empty = np.zeros_like(next(iter(masks.values())))
    scores = {roi: dice(mask, found.get(roi, empty)) for roi, mask in masks.items()}
    change = {roi: found.get(roi, empty).sum() / mask.sum() - 1 for roi, mask in masks.items()}
    worst, largest = min(scores, key=scores.get), max(change, key=lambda roi: abs(change[roi]))
    seconds = [
        f"{report[key]:.2f} s ({report[key] / first[key]:.1f} x)" if report[key] else ""
        for key in ("save_s", "whole_s")
    ]
    return [
        f"{name} {report['version']}",
        *seconds,
        f"{Path(report['file']).stat().st_size / 1e6:.1f} MB",
        dciodvfy_errors(report["file"]),
        f"{scores[worst]:.4f} ({worst})",
        f"{scores['GTVp1']:.4f}",
        f"{scores['SpinalCord']:.4f}",
        f"{change[largest]:+.2%} ({largest})",
    ]


def dciodvfy_errors(path: str) -> str:
    if shutil.which("dciodvfy") is None:
        return "dciodvfy not installed"
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace")
    return str(len(re.findall(r"^Error", done.stderr + done.stdout, flags=re.M)))


# ---- odd: awkward geometry and shapes ----------------------------------------------------------------------


def odd_cases() -> dict[str, tuple[Geometry, dict[str, np.ndarray]]]:
    """Case name: its geometry and masks. Geometries carry two balls and a body, shapes a plain axial
    stack."""
    shape, turn = (24, 96, 96), np.radians(15)
    axial = {"pixel_spacing_mm": (1.0, 1.0), "gaps_mm": 2.5}
    oblique = (np.cos(turn), np.sin(turn), 0, -np.sin(turn) * np.cos(turn), np.cos(turn) ** 2, np.sin(turn))
    geometries = {
        "uneven, 2.5 then 5 mm": stack_geometry(shape, gaps_mm=[2.5] * 12 + [5.0] * 11),
        "gantry tilt 15 degrees": stack_geometry(shape, **axial, tilt_degrees=15),
        "oblique 15 degrees about two axes": stack_geometry(shape, **axial, orientation=oblique),
        "coronal": stack_geometry(shape, **axial, orientation=(1, 0, 0, 0, 0, -1)),
        "96 x 128 pixels of 0.8 x 1.3 mm": stack_geometry(
            (24, 96, 128), gaps_mm=3.0, pixel_spacing_mm=(0.8, 1.3)
        ),
    }
    cases = {name: (geometry, balls(geometry)) for name, geometry in geometries.items()}
    plain = stack_geometry(shape, **axial)
    shapes = {
        "touching the image border": {"Cut": np.s_[3:9, :30, 50:]},
        "filling the slice": {"Full": np.s_[3:9]},
        "one pixel": {"Pixel": np.s_[5:6, 40, 50]},
        "one-pixel-wide line": {"Line": np.s_[5:8, 40, 20:60]},
    }
    for name, boxes in shapes.items():
        masks = {}
        for roi, box in boxes.items():
            masks[roi] = np.zeros(shape, dtype=bool)
            masks[roi][box] = True
        cases[name] = (plain, masks)
    island, diagonal = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for half, value in ((30, True), (20, False), (8, True)):
        island[4:9, 48 - half : 48 + half, 48 - half : 48 + half] = value
    diagonal[4:9] = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((12, 12))) > 0
    return {
        **cases,
        "island in a hole": (plain, {"Island": island}),
        "diagonal touch": (plain, {"Chess": diagonal}),
    }


def balls(geometry: Geometry) -> dict[str, np.ndarray]:
    centre = voxel_points_lps_mm(geometry, geometry.shape[0] // 2)[
        geometry.shape[1] // 2, geometry.shape[2] // 2
    ]
    distance_mm = np.stack(
        [
            np.linalg.norm(voxel_points_lps_mm(geometry, index) - centre, axis=-1)
            for index in range(geometry.shape[0])
        ]
    )
    return {"GTVp1": distance_mm <= 6, "CTVp1": distance_mm <= 14, "External": distance_mm <= 35}


def referee(path: str, geometry: Geometry, ct_dir: Path) -> dict[str, np.ndarray]:
    """Masks of a structure set: every voxel centre against every contour, with pydicom and matplotlib
    alone."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in ct_dir.iterdir()]
    normal = np.cross(
        np.reshape(headers[0].ImageOrientationPatient, (2, 3))[0], headers[0].ImageOrientationPatient[3:]
    )
    headers.sort(key=lambda header: normal @ np.array(header.ImagePositionPatient, dtype=float))
    positions = np.array([header.ImagePositionPatient for header in headers], dtype=float)
    along_columns, along_rows = np.reshape(np.array(headers[0].ImageOrientationPatient, dtype=float), (2, 3))
    row_mm, column_mm = map(float, headers[0].PixelSpacing)
    centres = np.argwhere(np.ones(geometry.shape[1:]))
    dataset = pydicom.dcmread(path, force=True)
    names = {item.ROINumber: str(item.ROIName) for item in dataset.get("StructureSetROISequence", [])}
    masks = {name: np.zeros(geometry.shape, dtype=bool) for name in names.values()}
    for item in dataset.get("ROIContourSequence", []):
        for contour in item.get("ContourSequence", []):
            if not contour.get("ContourData"):
                continue
            points = np.reshape(np.array(contour.ContourData, dtype=float), (-1, 3))
            index = int(np.abs((positions - points.mean(axis=0)) @ normal).argmin())
            flat = (points - positions[index]) @ np.stack(
                [along_rows / row_mm, along_columns / column_mm], axis=1
            )
            if len(flat) >= 3:
                inside = Outline(flat, closed=False).contains_points(centres)
                masks[names[item.ReferencedROINumber]][index] ^= inside.reshape(geometry.shape[1:])
    return masks


def benchmark_odd(pythons: list[str], given: argparse.Namespace) -> str:
    lines = []
    for case, (geometry, masks) in odd_cases().items():
        line = [case]
        with tempfile.TemporaryDirectory() as folder:
            ct_dir, mask_dir = save_case(Path(folder), masks, geometry)
            for name in WRITERS:
                try:
                    report = run_peer(pythons, "write", name, ct_dir, mask_dir, Path(folder, name))
                    found = report and referee(report["file"], geometry, ct_dir)
                    scores = (
                        [dice(mask, found.get(roi, mask & ~mask)) for roi, mask in masks.items()]
                        if report
                        else []
                    )
                    line.append(f"{min(scores):.4f}" if scores else "")
                except Failed as failure:
                    line.append(f"refused: {failure}")
        lines.append(line)
        print(f"measured: {case}", file=sys.stderr)
    return "Worst Dice of each case's structures.\n\n" + table(["case", *WRITERS], lines)


# ---- holes: which encoding do readers understand -----------------------------------------------------------


def hole_masks(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """A ring, an island in a hole, a plate with many holes, and a rough sponge."""
    z, y, x = np.indices(shape)
    radius = np.hypot(y - shape[1] / 2 + 0.3, x - shape[2] / 2 - 0.2)
    level = (z > 2) & (z < shape[0] - 3)
    noise = np.random.default_rng(1).standard_normal(shape)
    return {
        "Ring": level & (radius < 40) & (radius >= 25),
        "Island": level & (radius < 40) & ((radius >= 25) | (radius < 12)),
        "Plate": level & (radius < 42) & ((y % 12 > 4) | (x % 12 > 4)),
        "Sponge": level & (radius < 42) & (ndimage.gaussian_filter(noise, (1, 3, 3)) > -0.01),
    }


def benchmark_holes(pythons: list[str], given: argparse.Namespace) -> str:
    geometry = stack_geometry((16, 96, 96), gaps_mm=2.5, pixel_spacing_mm=(0.977, 0.977))
    masks, modes = hole_masks(geometry.shape), list(HOLE_MODES)
    lines, worst = [], {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory() as folder:
        ct_dir, mask_dir = save_case(Path(folder), masks, geometry)
        files = {
            m: run_peer(pythons, "write", "medseg", ct_dir, mask_dir, Path(folder, m), "--holes", m)
            for m in modes
        }
        for reader in READERS:
            line = [reader]
            for mode in modes:
                try:
                    out_dir = Path(folder, "read", f"{reader} {mode}".replace(" ", "_"))
                    found = read_back(pythons, reader, ct_dir, files[mode]["file"], out_dir)
                except Failed as failure:
                    line.append(f"failed: {failure}")
                    worst[mode].append(0.0)
                    continue
                if found is None:
                    break
                scores = [dice(mask, found.get(roi, mask & ~mask)) for roi, mask in masks.items()]
                line.append(f"{min(scores):.4f} ({', '.join(f'{score:.3f}' for score in scores)})")
                worst[mode].append(min(scores))
            if len(line) > 1:
                lines.append(line)
    lines.append(["worst reader", *[f"{min(worst[mode]):.4f}" for mode in modes]])
    best = max(modes, key=lambda mode: (min(worst[mode]), np.mean(worst[mode])))
    return (
        "What each reader makes of medseg's file: worst Dice (ring, island in a hole, plate with holes, "
        "sponge). "
        "A reader that fails counts as 0.\n\n"
        + table(["reader", *[f"{mode} ({HOLE_MODES[mode]})" for mode in modes]], lines)
        + f"\n\nBest supported: **{best}**, by the worst reader and then by the mean."
    )


# ---- output ------------------------------------------------------------------------------------------------


BENCHMARKS = {
    "write": benchmark_write,
    "read": benchmark_read,
    "odd": benchmark_odd,
    "holes": benchmark_holes,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="write", choices=BENCHMARKS)
    parser.add_argument(
        "--peer-python", action="append", default=[], help="python of an environment with other tools"
    )
    parser.add_argument("--slices", type=int, default=120, help="slices of the nine structures")
    parser.add_argument(
        "--repeats", type=int, default=5, help="read: runs of each reader, as far as 20 s allow"
    )
    parser.add_argument("--data", type=Path, help="read: folder of real structure sets with their CT series")
    parser.add_argument("--markdown", type=Path, help="file whose section of this name is replaced")
    given = parser.parse_args()
    if given.what == "read" and given.data is None:
        parser.error("read needs --data DIR")
    text = BENCHMARKS[given.what]([sys.executable, *given.peer_python], given)
    print(text)
    if given.markdown:
        peers = "".join(f" --peer-python PYTHON_{n + 1}" for n in range(len(given.peer_python)))
        data = f" --data DATA --repeats {given.repeats}" if given.what == "read" else ""
        command = shlex.join(["python", "tools/benchmarks/rtstruct/run.py", given.what]) + data + peers
        put_section(given.markdown, given.what, f"`{command}`\n\n{text}")


if __name__ == "__main__":
    main()
