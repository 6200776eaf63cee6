"""Labels and predictions with planted errors: pictures, CTs with structure sets, and volumes to train on."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from audit.drawing import ellipse, nifti, noise_with_box, picture

from medseg.dicom import read_series, write_rtstruct
from medseg.phantoms.series import stack_geometry, write_series


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> Path:
    """Ten pictures of two lungs and a heart, as labels/ and pred/; errors in cases 3 (shift), 5 (swap), 7
    (crop) and 9."""
    root, rng = tmp_path_factory.mktemp("png"), np.random.default_rng(0)
    for number in range(10):
        dy, dx = rng.integers(-3, 4, 2)
        right, left = (
            ellipse((64, 80), (30 + dy, 22 + dx), (18, 10)),
            ellipse((64, 80), (30 + dy, 56 + dx), (18, 10)),
        )
        heart = ellipse((64, 80), (44 + dy, 40 + dx), (10, 9))
        own = {"Lung_R": right, "Lung_L": left, "Heart": heart}
        for name, mask in own.items():
            picture(
                np.roll(mask, rng.integers(-1, 2, 2), (0, 1)), root / "pred" / f"c{number}" / f"{name}.png"
            )
        if number == 3:
            own["Heart"] = np.roll(heart, -9, 0)
        if number == 5:
            own["Lung_R"], own["Lung_L"] = left, right
        if number == 7:
            own["Lung_L"] = left & (np.indices(left.shape)[0] < 36 + dy)
        if number == 9:
            own["Heart"] = heart & False
        for name, mask in own.items():
            picture(mask, root / "labels" / f"c{number}" / f"{name}.png")
        picture(0.5 - 0.3 * (right | left), root / "labels" / f"c{number}" / "image.png")
    return root


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    """Seven CTs, each with its structure set in labels/<case>/, and probabilities as NIfTI in pred/<case>/;
    p4 shifted."""
    root = tmp_path_factory.mktemp("clinic")
    geometry = stack_geometry((12, 32, 30), gaps_mm=3.0, pixel_spacing_mm=(2.0, 2.0))
    for number in range(7):
        folder = root / "labels" / f"p{number}"
        prediction = ellipse(geometry.shape, (6, 15 + number % 2, 14), (4, 8, 7))
        label = np.roll(prediction, (2 if number == 4 else 0, number % 3 - 1), (0, 2))
        write_series(np.where(prediction, 60, -80), geometry, folder, seed=number)
        series = read_series(folder)
        write_rtstruct({"Larynx": label}, series, folder / "RS.dcm")
        out = root / "pred" / f"p{number}" / "Larynx.nii.gz"
        out.parent.mkdir(parents=True)
        affine = series.geometry.affine_ras
        smooth = np.where(prediction, 0.8, 0.1).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(smooth.transpose(2, 1, 0), affine), out)
    return root


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    """Six volumes of noise with a brighter box that is the label."""
    folder, rng, entries = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0), []
    for number in range(6):
        image, label = noise_with_box(rng, height=4 + number % 3)
        nifti(image, folder / f"{number}_ct.nii.gz")
        nifti(label, folder / f"{number}_gtv.nii.gz")
        entries.append(
            {"image": f"{number}_ct.nii.gz", "label": f"{number}_gtv.nii.gz", "case_id": f"study/{number}"}
        )
    (folder / "datalist.json").write_text(json.dumps({"training": entries}))
    return folder
