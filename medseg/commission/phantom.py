"""A phantom whose volumes are known by formula, written and read back in every orientation and way there is.

Readers that medseg had no part in (plastimatch, dciodvfy, SimpleITK) are the referees where they are
installed: a self round trip proves nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from medseg.cases.nifti import write_mask
from medseg.commission.checks import FAIL, PASS, SKIP, Check
from medseg.dicom import Series, read_rtstruct, read_series, write_rtstruct, write_seg
from medseg.dicom.seg.read import read_seg
from medseg.errors import MedsegWarning
from medseg.metrics import centre_lps_mm, dice, volume_cc
from medseg.phantoms.chiral import ChiralPhantom, chiral_phantom
from medseg.phantoms.series import AXIAL, stack_geometry, write_series
from medseg.shapes.loops import HOLE_MODES

ORIENTATIONS = {
    "axial": dict(orientation=AXIAL),
    "axial, rows from the left": dict(orientation=(-1, 0, 0, 0, 1, 0)),
    "axial, prone": dict(orientation=(-1, 0, 0, 0, -1, 0)),
    "feet first": dict(orientation=(1, 0, 0, 0, -1, 0)),
    "coronal": dict(orientation=(1, 0, 0, 0, 0, -1)),
    "sagittal": dict(orientation=(0, 1, 0, 0, 0, -1)),
    "oblique": dict(orientation=(0.96, 0.28, 0.0, -0.27, 0.93, 0.26)),
    "tilted gantry": dict(orientation=AXIAL, tilt_degrees=12.0),
    "uneven slices": dict(orientation=AXIAL, gaps_mm=[2.0] * 16 + [3.0] * 17),
}
"""Stacks of the same phantom; what stands in each is an argument of stack_geometry."""

RADIUS_MM = 7.0
BALL_CC = 4 / 3 * np.pi * (RADIUS_MM / 10) ** 3
MOST_OFF = 0.03
"""Share of the ball's volume that counting voxels of this size may miss. The most of these stacks: 0.018."""

MOST_OFF_MM = 0.5
STRUCTURES = ("L", "Marker")


def phantom_checks() -> list[Check]:
    """A check per orientation and way of writing."""
    checks = []
    for name, stack in ORIENTATIONS.items():
        for holes in HOLE_MODES:
            run = partial(_with_phantom, stack, partial(_structure_set, holes=holes))
            checks.append(Check("Phantom", f"{name}: RTSTRUCT, holes as {holes}", run))
        checks.append(Check("Phantom", f"{name}: SEG", partial(_with_phantom, stack, _segmentation)))
        if name not in ("tilted gantry", "uneven slices"):
            checks.append(Check("Phantom", f"{name}: NIfTI", partial(_with_phantom, stack, _nifti)))
    referee = partial(_with_phantom, ORIENTATIONS["axial"], _plastimatch)
    dumped = partial(_with_phantom, ORIENTATIONS["sagittal"], _dcmdump)
    conform = partial(_with_phantom, ORIENTATIONS["oblique"], _dciodvfy)
    return [
        *checks,
        Check("Independent readers", "plastimatch reads the RTSTRUCT", referee),
        Check("Independent readers", "dcmdump (dcmtk) reads the RTSTRUCT", dumped),
        Check("Independent readers", "dciodvfy (dicom3tools) finds no error in the RTSTRUCT", conform),
    ]


def _with_phantom(stack: dict, look) -> tuple[str, str]:
    settings = {"gaps_mm": 2.5, "pixel_spacing_mm": (1.5, 1.25), "centre_lps_mm": (7, -20, 110), **stack}
    phantom = chiral_phantom(stack_geometry((34, 64, 72), **settings))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", MedsegWarning)
        write_series(phantom.volume_hu, phantom.geometry, Path(folder) / "CT")
        return look(phantom, read_series(Path(folder) / "CT"), Path(folder))


def _with_a_hole(phantom: ChiralPhantom) -> dict[str, np.ndarray]:
    """The structures, and the body with the L cut out of it."""
    masks = {name: phantom.masks[name] for name in STRUCTURES}
    return {**masks, "Rest": phantom.masks["Body"] & ~phantom.masks["L"]}


def _structure_set(phantom: ChiralPhantom, series: Series, folder: Path, holes: str) -> tuple[str, str]:
    masks = _with_a_hole(phantom)
    write_rtstruct(masks, series, folder / "RS.dcm", holes=holes)
    return _judged(phantom, masks, read_rtstruct(folder / "RS.dcm", series))


def _segmentation(phantom: ChiralPhantom, series: Series, folder: Path) -> tuple[str, str]:
    masks = _with_a_hole(phantom)
    write_seg(masks, series, folder / "SEG.dcm")
    read = {structure.name: mask for structure, mask in read_seg(folder / "SEG.dcm", series).items()}
    return _judged(phantom, masks, read)


def _nifti(phantom: ChiralPhantom, series: Series, folder: Path) -> tuple[str, str]:
    """SimpleITK, which had no part in the writing, finds the ball where it is."""
    import SimpleITK

    write_mask(phantom.masks["Marker"], series.geometry, folder / "Marker.nii.gz")
    image = SimpleITK.ReadImage(str(folder / "Marker.nii.gz"))
    indices = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1].mean(axis=0)
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint(indices.tolist()))
    voxel_cc = float(np.prod(image.GetSpacing())) / 1000
    cc = float(SimpleITK.GetArrayFromImage(image).sum()) * voxel_cc
    return _verdict(1.0, cc, float(np.linalg.norm(centre - phantom.points_lps_mm["Marker"])), "SimpleITK: ")


def _judged(
    phantom: ChiralPhantom, masks: dict[str, np.ndarray], read: dict[str, np.ndarray]
) -> tuple[str, str]:
    worst = min(dice(masks[name], read[name]) for name in masks)
    away = centre_lps_mm(read["Marker"], phantom.geometry) - phantom.points_lps_mm["Marker"]
    return _verdict(worst, volume_cc(read["Marker"], phantom.geometry), float(np.linalg.norm(away)))


def _verdict(worst_dice: float, cc: float, away_mm: float, who: str = "") -> tuple[str, str]:
    good = worst_dice == 1.0 and abs(cc / BALL_CC - 1) <= MOST_OFF and away_mm <= MOST_OFF_MM
    words = f"{who}Dice {worst_dice:.4f}; ball {cc:.3f} cc of {BALL_CC:.3f}, {away_mm:.2f} mm from its place"
    return (PASS if good else FAIL), words


# ---- independent programs ----------------------------------------------------------------------------------


def _plastimatch(phantom: ChiralPhantom, series: Series, folder: Path) -> tuple[str, str]:
    import SimpleITK

    program = shutil.which("plastimatch")
    if program is None:
        return SKIP, "plastimatch is not installed"
    masks = {name: phantom.masks[name] for name in STRUCTURES}
    write_rtstruct(masks, series, folder / "RS.dcm")
    command = [program, "convert", "--input", "RS.dcm", "--referenced-ct", "CT", "--output-prefix", "masks"]
    subprocess.run(
        [*command, "--prefix-format", "nrrd"], cwd=folder, check=True, capture_output=True, timeout=120
    )
    worst = 1.0
    for name, mask in masks.items():
        image = SimpleITK.ReadImage(str(folder / "masks" / f"{name}.nrrd"))
        worst = min(worst, dice(mask, SimpleITK.GetArrayFromImage(image) > 0))
    return (PASS if worst == 1.0 else FAIL), f"Dice {worst:.4f} with what was written"


def _dciodvfy(phantom: ChiralPhantom, series: Series, folder: Path) -> tuple[str, str]:
    program = shutil.which("dciodvfy")
    if program is None:
        return SKIP, "dicom3tools is not installed"
    write_rtstruct(_with_a_hole(phantom), series, folder / "RS.dcm")
    found = subprocess.run(
        [program, "-new", str(folder / "RS.dcm")], capture_output=True, text=True, timeout=120, check=False
    )
    lines = (found.stdout + found.stderr).splitlines()
    errors = [line for line in lines if line.startswith("Error")]
    return (FAIL if errors else PASS), f"{len(errors)} errors{': ' + errors[0] if errors else ''}"


def _dcmdump(phantom: ChiralPhantom, series: Series, folder: Path) -> tuple[str, str]:
    program = shutil.which("dcmdump")
    if program is None:
        return SKIP, "dcmtk is not installed"
    masks = _with_a_hole(phantom)
    write_rtstruct(masks, series, folder / "RS.dcm")
    command = [program, "+P", "ROIName", "-q", str(folder / "RS.dcm")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    names = [line.partition("[")[2].partition("]")[0] for line in found.stdout.splitlines()]
    return (PASS if names == list(masks) else FAIL), f"finds {', '.join(names) or 'no structure'}"
