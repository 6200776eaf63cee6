"""The `odd` part of run.py: awkward geometry and shapes, judged by a test of every voxel centre."""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from matplotlib.path import Path as Outline
from runs import WRITERS, Failed, run_peer, save_case, table

from medseg.geometry import Geometry
from medseg.metrics import dice
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm


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
