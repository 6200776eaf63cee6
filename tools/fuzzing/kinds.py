"""What is fuzzed: for each kind of file sound originals, a way to damage them, and its reader."""

from __future__ import annotations

import hashlib
import random
import shutil
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pydicom
from mutations import (
    Damaged,
    damage_dicom,
    damage_json,
    damage_nifti,
    damage_picture,
    damage_zip,
)
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from medseg.dicom import read_rtstruct, read_series, write_rtstruct, write_seg
from medseg.dicom.registration import read_registration
from medseg.dicom.seg.read import read_seg
from medseg.errors import noted_in
from medseg.files import write_json
from medseg.phantoms.registration import write_registration
from medseg.phantoms.series import stack_geometry, write_series
from medseg.phantoms.several import write_companions

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPE = (4, 32, 36)


@dataclass(frozen=True)
class Kind:
    """``originals``: sound files. ``damage``: of one of them. ``read``: (digest of what was read, notices) of
    a file in the place of an original. ``is_dicom``: silent changes are told and classed."""

    originals: tuple[Path, ...]
    damage: Callable[[bytes, random.Random], Damaged]
    read: Callable[[Path], tuple[str, list[str]]]
    is_dicom: bool = False

    @cached_property
    def expected(self) -> dict[Path, str]:
        """Digests of the originals, read first: what a reader loads once is then not an input's."""
        return {original: self.read(original)[0] for original in self.originals}


def digest(*parts: Any) -> str:
    """Of arrays and words, in order."""
    told = hashlib.sha256()
    for part in parts:
        told.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return told.hexdigest()


def prepare(root: Path, names: list[str]) -> dict[str, Kind]:
    """The kinds asked for, their originals written below ``root``."""
    kinds = {}
    for name in names:
        with patch("uuid.uuid4", partial(_uuid, random.Random(name))):
            kinds[name] = KINDS[name](root / name)
    assert all(len(kind.expected) for kind in kinds.values()), "every original is read once"
    return kinds


def _uuid(chance: random.Random) -> uuid.UUID:
    """The same ones in every run, and with them the same UIDs in the originals."""
    return uuid.UUID(int=chance.getrandbits(128), version=4)


def _at_noon(path: Path) -> Path:
    """A file whose dates and times, and the UID that highdicom draws, are not those of this run."""
    dataset = pydicom.dcmread(path)
    times = {"DA": "20260101", "TM": "120000", "DT": "20260101120000"}

    def set_clock(inside: pydicom.Dataset, element: pydicom.DataElement) -> None:
        element.value = times.get(element.VR, element.value)
        if element.keyword == "DimensionOrganizationUID":
            element.value = "2.25.1"

    dataset.walk(set_clock)
    dataset.save_as(path)
    return path


def _masks() -> dict[str, np.ndarray]:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:3, 4:20, 3:18] = True
    ring = mask.copy()
    ring[:, 8:12, 8:12] = False
    return {"GTV": mask, "Ring": ring}


def _series(folder: Path, syntax=None) -> list[Path]:
    volume = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.float32)
    files = write_series(volume, stack_geometry(SHAPE), folder, RescaleIntercept=0)
    for file in files if syntax else ():
        dataset = pydicom.dcmread(file)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(file)
    return [Path(file) for file in files]


def ct(root: Path) -> Kind:
    """One of four slices of a series, plain or compressed in three ways."""
    syntaxes = {"plain": None, "rle": RLELossless, "jpegls": JPEGLSLossless, "jpeg2000": JPEG2000Lossless}
    originals = tuple(_series(root / name, syntax)[1] for name, syntax in syntaxes.items())

    def read(path: Path) -> tuple[str, list[str]]:
        series = read_series(path.parent)
        volume, geometry = series.volume(), series.geometry
        words = digest(volume, geometry.origins_lps_mm, geometry.row_step_lps_mm, geometry.column_step_lps_mm)
        return words, list(series.warnings)

    return Kind(originals, damage_dicom, read, is_dicom=True)


def rtstruct(root: Path) -> Kind:
    """A structure set of two ROIs, one with a hole, as medseg and as pydicom (explicit VR) write it."""
    series = read_series(_series(root / "series")[0].parent)
    first = _at_noon(Path(write_rtstruct(_masks(), series, root / "RS.dcm")))
    dataset = pydicom.dcmread(first)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    for item in pydicom.dcmread(first).ROIContourSequence:
        item.ContourSequence  # noqa: B018 - parsed, so that it is written in the other VR
    second = root / "RS_explicit.dcm"
    pydicom.dcmwrite(second, dataset, implicit_vr=False, little_endian=True)

    def read(path: Path) -> tuple[str, list[str]]:
        notes: list[str] = []
        with noted_in(notes):
            masks = read_rtstruct(path, series)
        return digest(*(part for name in sorted(masks) for part in (name, masks[name]))), notes

    return Kind((first, second), damage_dicom, read, is_dicom=True)


def seg(root: Path) -> Kind:
    """A segmentation of two segments."""
    series = read_series(_series(root / "series")[0].parent)
    path = _at_noon(Path(write_seg(_masks(), series, root / "SEG.dcm")))

    def read(path: Path) -> tuple[str, list[str]]:
        notes: list[str] = []
        with noted_in(notes):
            masks = {structure.name: mask for structure, mask in read_seg(path, series).items()}
        return digest(*(part for name in sorted(masks) for part in (name, masks[name]))), notes

    return Kind((path,), damage_dicom, read, is_dicom=True)


def pet(root: Path) -> Kind:
    """One of four slices of a PET in becquerel."""
    from medseg.dicom.images.suv import suv_factors

    geometry = stack_geometry(SHAPE)
    made = write_companions(root, geometry, np.full(SHAPE, 2.0), np.zeros(SHAPE))

    def read(path: Path) -> tuple[str, list[str]]:
        series = read_series(path.parent)
        return digest(suv_factors(series).suv(series.volume())), list(series.warnings)

    return Kind((sorted(made.pet_dir.iterdir())[1],), damage_dicom, read, is_dicom=True)


def reg(root: Path) -> Kind:
    """A registration object of two frames."""
    turn = np.array([[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]])
    root.mkdir(parents=True)
    path = write_registration(root / "REG.dcm", "1.2.3", {"1.2.4": turn})

    def read(path: Path) -> tuple[str, list[str]]:
        found = read_registration(path)
        return digest(*(part for uid, matrix in found.to_registered.items() for part in (uid, matrix))), []

    return Kind((path,), damage_dicom, read, is_dicom=True)


def nifti(root: Path) -> Kind:
    """A mask and an image, compressed and not."""
    from medseg.cases.nifti import read_mask, write_mask, write_volume
    from medseg.cases.volume import open_case

    root.mkdir(parents=True)
    geometry = stack_geometry(SHAPE)
    volume = np.random.default_rng(0).normal(0, 300, SHAPE).astype(np.float32)
    mask = _masks()["GTV"]
    files = [write_mask(mask, geometry, root / name) for name in ("mask.nii.gz", "mask.nii")]
    files += [write_volume(volume, geometry, root / name) for name in ("image.nii.gz", "image.nii")]

    def read(path: Path) -> tuple[str, list[str]]:
        if path.name.startswith("mask"):
            return digest(read_mask(path, geometry)), []
        return digest(open_case(str(path)).volume), []

    return Kind(tuple(files), damage_nifti, read)


def picture(root: Path) -> Kind:
    """A radiograph as PNG of 8 and 16 bits and as JPEG."""
    from PIL import Image

    from medseg.cases.radiograph import open_radiograph

    root.mkdir(parents=True)
    grey = np.add.outer(np.arange(96), np.arange(80)) * 300
    Image.fromarray((grey >> 8).astype(np.uint8)).save(root / "a.png")
    Image.fromarray(grey.astype(np.uint16)).save(root / "b.png")
    Image.fromarray((grey >> 8).astype(np.uint8)).save(root / "c.jpg")
    files = tuple(root / name for name in ("a.png", "b.png", "c.jpg"))
    return Kind(files, damage_picture, lambda path: (digest(open_radiograph(path).pixels), []))


def run_json(root: Path) -> Kind:
    """The record of a finished case."""
    from medseg.bundles.record import is_result, read_record

    root.mkdir(parents=True)
    outputs = [{"file": "RS.dcm", "bytes": 3, "sha256": "0" * 64}]
    record = {
        "status": "done",
        "case": "a",
        "source": "a",
        "outputs": outputs,
        "warnings": [],
        "structures": [],
    }
    write_json(record, root / "run.json")

    def read(path: Path) -> tuple[str, list[str]]:
        return digest(read_record(path.parent), is_result(path.parent / "RS.dcm")), []

    return Kind((root / "run.json",), damage_json, read)


def datalist(root: Path) -> Kind:
    """A list of two cases."""
    from medseg.audit.patients import read_cases
    from medseg.bundles.datalist import check_datalist

    root.mkdir(parents=True)
    (root / "x.nii.gz").touch()
    case = {"image": "x.nii.gz", "label": "x.nii.gz"}
    lists = {"training": [{**case, "case_id": "a"}], "validation": [{**case, "case_id": "b"}]}
    write_json(lists, root / "datalist.json")

    def read(path: Path) -> tuple[str, list[str]]:
        check_datalist(path, root)
        return digest(read_cases(path)), []

    return Kind((root / "datalist.json",), damage_json, read)


def bundle(root: Path) -> Kind:
    """metadata.json and inference.json of a bundle, read, not run."""
    from medseg.bundles.config import load_config
    from medseg.bundles.find import Bundle, find_bundle

    shutil.copytree(
        REPOSITORY / "monai_bundles" / "mm_gtv", root, ignore=shutil.ignore_patterns("*.pt", "datalist.json")
    )

    def read(path: Path) -> tuple[str, list[str]]:
        found = Bundle("mm_gtv", root, derived_from=find_bundle("mm_gtv"))
        words = [found.version, found.result_kind, found.modality]
        return digest(words, load_config(found, "inference", {}).get()), []

    files = tuple(root / "configs" / name for name in ("metadata.json", "inference.json"))
    return Kind(files, damage_json, read)


def checkpoint(root: Path) -> Kind:
    """Weights and a counter."""
    import torch

    from medseg.training.checkpoints import load_checkpoint

    root.mkdir(parents=True)
    torch.manual_seed(0)
    state = {"network": torch.nn.Conv2d(1, 3, 3).state_dict(), "trainer": {"epoch": 3, "iteration": 30}}
    torch.save(state, root / "last.pt")
    return Kind((root / "last.pt",), damage_zip, lambda path: (digest(load_checkpoint(path)), []))


KINDS = {
    make.__name__: make
    for make in (ct, rtstruct, seg, pet, reg, nifti, picture, run_json, datalist, bundle, checkpoint)
}


def quiet() -> None:
    """No warnings on the terminal: notices are counted instead."""
    warnings.simplefilter("ignore")
