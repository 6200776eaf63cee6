"""The patients of rt/sts through ``medseg segment``, with each set of series, read back from the RTSTRUCT.

Boxes, ROI and scores are those of ``medseg score mm_gtv --truth GTV=GTV_Mass_CT --region-margins-mm 5 20``,
which reads DICOM only: of six of these patients PET and MR are NIfTI files, so they are named one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from cases import MARGIN_MM, SETS

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.bundles.score import ellipsoid, region_box
from medseg.dicom import find_series, read_rtstruct, read_series
from medseg.errors import InputError, MedsegWarning
from medseg.metrics import dice, surface_distances, volume_cc
from medseg.transforms import ALLOWABLE_AT_THE_GATE

TRUTH, ANSWER = "GTV_Mass_CT", "GTV"
BESIDE = {"pt": ("PT", "sts_pet", "pet_suv.nii.gz"), "mr": ("MR", "sts_mr", "mr_t1.nii.gz")}


def rows(dataset_dir: Path, test_dir: Path, out: Path, seed: int = 0) -> Iterator[dict]:
    """Rows of :mod:`contour_scores`, fold -1, for every patient and set of series, and the ellipsoid."""
    rng = np.random.default_rng(seed)
    for folder in sorted(path for path in test_dir.iterdir() if path.is_dir()):
        with warnings.catch_warnings():  # what is odd about these sets, medseg inspect says
            warnings.simplefilter("ignore", MedsegWarning)
            series = read_series(folder)
            truth = read_rtstruct(find_series(folder).structure_sets[0], series)[TRUTH]
            box = region_box(truth, series.geometry, MARGIN_MM, rng)
            guess = ellipsoid(box, float(np.mean(MARGIN_MM)), series.geometry)
            yield _row(folder.name, "ellipsoid in the box", truth, guess, series.geometry)
            for name, kept in SETS.items():
                where = out / name.replace("+", "_") / folder.name
                mask = _contoured(folder, dataset_dir, where, kept, box, series)
                yield _row(folder.name, name, truth, mask, series.geometry)


def _contoured(folder: Path, dataset_dir: Path, out: Path, kept, box: np.ndarray, series) -> np.ndarray:
    others = [
        (modality, str(dataset_dir / place / folder.name / file))
        for key, (modality, place, file) in BESIDE.items()
        if key in kept
    ]
    request = Request(
        None,
        "mm_gtv",
        out,
        formats=("rtstruct", "preview"),
        device="cpu",
        within=",".join(f"{value:.1f}" for value in box.T.ravel()),
        allow=tuple(ALLOWABLE_AT_THE_GATE),
        series=(("CT", str(folder / "CT")), *others),
    )
    (record,) = segment(request)["cases"]
    if record["status"] == "failed":
        raise InputError(f"{folder.name}: {record['error']}")
    return read_rtstruct(Path(record["folder"]) / "RS.dcm", series)[ANSWER]


def _row(patient: str, method: str, truth: np.ndarray, mask: np.ndarray, geometry) -> dict:
    apart = surface_distances(truth, mask, geometry)
    return {
        "patient": patient,
        "fold": -1,
        "method": method,
        "gtv_cc": round(volume_cc(truth, geometry), 2),
        "answer_cc": round(volume_cc(mask, geometry), 2),
        "dsc": round(float(dice(truth, mask, geometry)), 4),
        "sdsc_3mm": round(apart.dice(3.0), 4),
        "hd95_mm": round(apart.hausdorff_mm(95.0), 2),
    }
