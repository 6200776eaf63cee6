"""A patient with a planning CT, a PET and an MR, each on a grid of its own, made of formulas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from scipy.ndimage import gaussian_filter

from medseg.cases.multimodal import sampled_on
from medseg.geometry import Geometry
from medseg.phantoms.registration import write_registration
from medseg.phantoms.series import phantom_uid, stack_geometry, write_series
from medseg.phantoms.thigh import Phantom, write_thigh_phantom

WEIGHT_KG, DOSE_BQ, HALF_LIFE_S, UPTAKE_MIN = 70.0, 350e6, 6586.2, 60.0
PET_BLUR_MM = 6.0
"""Full width at half maximum of a clinical scanner, about."""

MR_TO_CT = np.array(
    [
        [0.97814760, -0.20791169, 0.0, 15.0],
        [0.20740523, 0.97576484, -0.06975647, -10.0],
        [0.01450319, 0.06823210, 0.99756405, 40.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""From LPS mm of the MR's frame to the CT's: 12 degrees about z, then 4 about x, then a shift."""


@dataclass(frozen=True)
class Patient:
    """What write_companions wrote. ``mr_to_ct``: 4x4 from LPS mm of the MR's frame to the CT's."""

    pet_dir: Path
    mr_dir: Path
    registration: Path
    mr_to_ct: np.ndarray


def write_patient_phantom(out_dir: str | Path, seed: int = 0) -> Phantom:
    """The thigh of :func:`medseg.phantoms.thigh.write_thigh_phantom` with a PET in the CT's frame and an MR
    in another, which ``out_dir``/REG.dcm registers: ``out_dir``/CT, PET, MR and truth.

    The tumour takes up FDG (SUV 5, its middle 3), muscle little, fat hardly any; on the MR (T1) fat is
    bright, muscle grey and the tumour darker. The MR covers the middle of the CT. The same seed, the same
    bytes.
    """
    phantom = write_thigh_phantom(out_dir, seed)
    from medseg.dicom import read_series

    ct_hu = read_series(phantom.ct_dir).volume()
    tumour = phantom.truth["GTV"]
    middle = gaussian_filter(tumour.astype(np.float32), (3, 8, 8)) > 0.9
    tissue, soft = ct_hu > -300, gaussian_filter(ct_hu, (0.5, 1.5, 1.5))
    suv = np.where(tissue, np.interp(soft, (-110, -20, 50), (0.2, 0.5, 0.7)), 0.0)
    suv = np.where(tumour, np.where(middle, 3.0, 5.0), suv)
    t1 = np.where(tissue, np.interp(soft, (-110, 0, 60, 250, 600), (1000, 500, 380, 150, 60)), 0.0)
    t1 = np.where(tumour, 300.0, t1)
    write_companions(out_dir, phantom.geometry, suv, t1, seed=f"thigh-{seed}")
    return phantom


def write_companions(
    out_dir: str | Path, geometry: Geometry, suv: np.ndarray, mr: np.ndarray, *, seed: int | str = 0
) -> Patient:
    """Write ``out_dir``/PET, MR and REG.dcm of the patient whose CT has ``geometry`` and was written with
    ``seed``.

    ``suv`` and ``mr``: what PET and MR would show at the CT's voxels. The PET (BQML, corrected to the start
    of the scan) has voxels of 4 mm and shares the CT's frame. The MR lies in a frame of its own, turned by
    MR_TO_CT, and leaves out the outer eighth of the CT's slices on either side.
    """
    out_dir = Path(out_dir)
    rows_mm, columns_mm = (
        n * mm for n, mm in zip(geometry.shape[1:], geometry.pixel_spacing_mm, strict=True)
    )
    height_mm = float(np.ptp(geometry.slice_positions_mm))
    centre = (
        geometry.points_lps_mm(0, [_middle(geometry)])[0] + geometry.points_lps_mm(-1, [_middle(geometry)])[0]
    ) / 2
    frame_uid = geometry.frame_of_reference_uid or phantom_uid("frame of reference", seed)

    pet_grid = stack_geometry(
        (int(height_mm / 4) + 1, int(rows_mm / 4), int(columns_mm / 4)),
        gaps_mm=4.0,
        pixel_spacing_mm=(4.0, 4.0),
        centre_lps_mm=centre,
        frame_of_reference_uid=frame_uid,
    )
    blur = [
        PET_BLUR_MM / 2.355 / mm
        for mm in (height_mm / max(geometry.shape[0] - 1, 1), *geometry.pixel_spacing_mm)
    ]
    pet, _ = sampled_on(gaussian_filter(suv.astype(np.float32), blur), geometry, pet_grid)
    decayed_bq = DOSE_BQ * 2.0 ** (-UPTAKE_MIN * 60 / HALF_LIFE_S)
    becquerel = pet * decayed_bq / (1000 * WEIGHT_KG)
    write_series(becquerel, pet_grid, out_dir / "PET", modality="PT", seed=seed, **_pet_header(becquerel))

    mr_frame_uid = phantom_uid("frame of reference of the MR", seed)
    mr_grid = stack_geometry(
        (max(int(0.75 * height_mm / 3), 2), int(rows_mm / 1.5), int(columns_mm / 1.5)),
        pixel_spacing_mm=(1.5, 1.5),
        centre_lps_mm=np.linalg.solve(MR_TO_CT, [*centre, 1.0])[:3],
        frame_of_reference_uid=mr_frame_uid,
    )
    turned, _ = sampled_on(mr, geometry, mr_grid, MR_TO_CT)
    words = {"SeriesDescription": "T1 phantom", "SeriesNumber": 3}
    write_series(np.rint(turned), mr_grid, out_dir / "MR", modality="MR", seed=seed, **words)
    registration = write_registration(out_dir / "REG.dcm", frame_uid, {mr_frame_uid: MR_TO_CT}, seed=seed)
    return Patient(out_dir / "PET", out_dir / "MR", registration, MR_TO_CT)


def _middle(geometry: Geometry) -> tuple[float, float]:
    return (geometry.shape[1] - 1) / 2, (geometry.shape[2] - 1) / 2


def _pet_header(becquerel: np.ndarray) -> dict:
    """Injection at 11:00, scan at noon; the slope makes use of int16."""
    tracer, code = Dataset(), Dataset()
    tracer.Radiopharmaceutical = "FDG"
    tracer.RadiopharmaceuticalStartTime = "110000"
    tracer.RadiopharmaceuticalStartDateTime = "20260101110000"
    tracer.RadionuclideTotalDose, tracer.RadionuclideHalfLife = f"{DOSE_BQ:.0f}", str(HALF_LIFE_S)
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-111A1", "SRT", "^18^Fluorine"
    tracer.RadionuclideCodeSequence = Items([code])
    return {
        "PatientWeight": str(WEIGHT_KG),
        "RadiopharmaceuticalInformationSequence": Items([tracer]),
        "RescaleSlope": f"{max(float(becquerel.max()), 1.0) / 32000:.8g}",
        "SeriesDescription": "FDG phantom",
        "SeriesNumber": 2,
    }
