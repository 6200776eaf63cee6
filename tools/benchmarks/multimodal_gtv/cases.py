"""The 33 patients of the benchmark: read once, cut into folds, each with the box that a user might draw."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg.cases.multimodal import sampled_on
from medseg.cases.volume import open_case
from medseg.errors import InputError
from medseg.geometry import Geometry

BUNDLE = Path(__file__).parents[3] / "monai_bundles" / "mm_gtv"
FOLDS = 5
MARGIN_MM = (5.0, 20.0)
SETS = {"CT": (), "CT+PET": ("pt",), "CT+MR": ("mr",), "CT+PET+MR": ("pt", "mr")}
"""The series that are left beside the CT, by what the tables call them."""


@dataclass(frozen=True, eq=False)
class Patient:
    """``item``: what the bundle's deterministic transforms make. ``truth``: bool [slice, row, column] on the
    CT's own ``grid``. ``box``: slices of that array, the drawn box."""

    name: str
    item: dict
    truth: np.ndarray
    grid: Geometry
    box: tuple[slice, slice, slice]

    @property
    def box_grid(self) -> Geometry:
        return part_of(self.grid, self.box)

    def sampled(self, size: tuple[int, ...]) -> tuple[torch.Tensor, Geometry]:
        """The stacked image (5, x, y, z) in the box on ``size`` voxels, and where these lie."""
        shape = np.array(self.box_grid.shape)
        affine = self.box_grid.affine_lps.copy()
        step = shape / np.array(size[::-1])
        affine[:3, 3] += affine[:3, :3] @ (step / 2 - 0.5)  # voxels meet at the edges of the box
        affine[:3, :3] *= step
        small = Geometry.from_lps_affine(affine, size[::-1])
        image: MetaTensor = self.item["image"]
        whole = Geometry.from_ras_affine(np.asarray(image.affine), image.shape[1:])
        channels = [sampled_on(c.numpy().transpose(2, 1, 0), whole, small)[0] for c in image.as_tensor()]
        return torch.from_numpy(np.stack(channels).transpose(0, 3, 2, 1).copy()), small


def part_of(grid: Geometry, box: tuple[slice, slice, slice]) -> Geometry:
    """The grid of ``array[box]``."""
    shape = tuple(side.stop - side.start for side in box)
    first = grid.origins_lps_mm[box[0]] + (
        box[1].start * grid.row_step_lps_mm + box[2].start * grid.column_step_lps_mm
    )
    return Geometry(shape, first, grid.row_step_lps_mm, grid.column_step_lps_mm)


def drawn_box(truth: np.ndarray, spacing_mm: tuple[float, ...], name: str) -> tuple[slice, slice, slice]:
    """The tumour's box and a margin uniform in MARGIN_MM for each side, always the same for a patient."""
    margins_mm = np.random.default_rng(zlib.crc32(name.encode())).uniform(*MARGIN_MM, size=(2, 3))
    places = np.argwhere(truth)
    low = places.min(0) - np.rint(margins_mm[0] / spacing_mm).astype(int)
    high = places.max(0) + 1 + np.rint(margins_mm[1] / spacing_mm).astype(int)
    ends = zip(low.clip(min=0).tolist(), np.minimum(high, truth.shape).tolist(), strict=True)
    return tuple(slice(a, b) for a, b in ends)


def folds_of(volumes_cc: dict[str, float], count: int = FOLDS, seed: int = 123) -> dict[str, int]:
    """Fold of each patient: of every ``count`` patients next to each other in GTV volume one goes to each."""
    ordered = sorted(volumes_cc, key=lambda name: (volumes_cc[name], name))
    draw, folds = random.Random(seed), {}
    for first in range(0, len(ordered), count):
        numbers = draw.sample(range(count), count)
        folds.update(zip(ordered[first : first + count], numbers, strict=False))
    return folds


def entry(name: str) -> dict[str, str]:
    """A patient's line of a datalist; paths count from DATASET_DIR."""
    return {
        "image": f"sts_gtv/{name}/ct.nii.gz",
        "label": f"sts_gtv/{name}/gtv.nii.gz",
        "pt": f"sts_pet/{name}/pet_suv.nii.gz",
        "mr": f"sts_mr/{name}/mr_t1.nii.gz",
        "case_id": name,
    }


def prepare(dataset_dir: Path, names: list[str]) -> list[dict]:
    """What the bundle's deterministic transforms make of each patient's CT, PET, MR and GTV."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "train.json")
    transform = Compose(parser.get_parsed_content("train#deterministic_transforms"))
    entries = [entry(name) for name in names]
    places = ("image", "label", "pt", "mr")
    return [
        transform({**found, **{key: str(dataset_dir / found[key]) for key in places}}) for found in entries
    ]


def patients(dataset_dir: Path, out: Path) -> list[Patient]:
    """All patients, by name; the prepared images are kept in ``out`` for the next call."""
    kept = out / "prepared.pt"
    names = sorted(path.parent.name for path in (dataset_dir / "sts_gtv").glob("*/gtv.nii.gz"))
    if not names:
        raise InputError(f"{dataset_dir} holds no sts_gtv/PATIENT/gtv.nii.gz.")
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(prepare(dataset_dir, names), kept)
    items = {item["case_id"]: item for item in torch.load(kept, weights_only=False)}  # our own file
    found = []
    for name in names:
        case = open_case(str(dataset_dir / "sts_gtv" / name / "gtv.nii.gz"))
        truth = case.volume > 0
        box = drawn_box(truth, case.geometry.spacing_mm, name)
        found.append(Patient(name, items[name], truth, case.geometry, box))
    return found
