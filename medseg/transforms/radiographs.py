"""Open a radiograph for the network, and write what was found on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.cases.find import folder_name
from medseg.cases.nifti import write_flat_mask
from medseg.cases.radiograph import Radiograph, open_radiograph
from medseg.cases.results import Structures
from medseg.errors import InputError, StructureError
from medseg.shapes.pieces import largest_piece
from medseg.structures.structure import Structure
from medseg.transforms.flat import SaveFlatd, ToFlatStructuresd
from medseg.transforms.readers import RadiographReader


class LoadRadiographd(MapTransform):
    """Load PNG, JPEG, CR or DX files through :class:`medseg.transforms.RadiographReader` and no other
    reader.

    ``views``: the view positions that the network learned from, such as AP and PA; a DICOM file that states
    another one raises InputError, one that states none is taken. Output: MetaTensor (1, row, column),
    float32, 0 (black) to 1 (white).
    """

    def __init__(self, keys, views: Sequence[str] = ()):
        super().__init__(keys)
        self.views = tuple(views)
        self.reader = RadiographReader()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            case = self.reader.read(d[key])
            view = "" if case.stored is None else str(case.stored.header.get("ViewPosition", "") or "")
            if self.views and view and view not in self.views:
                raise InputError(
                    f"{case.source}: view {view}; this bundle learned from {' and '.join(self.views)} views."
                )
            array, meta = self.reader.get_data(case)
            meta["filename_or_obj"] = case.source
            d[key] = MetaTensor(torch.from_numpy(array)[None], meta=meta)
        return d


class ToRadiographStructuresd(ToFlatStructuresd):
    """Channels (C, row, column) of 0 and 1, inverted to the file's own pixels, to named structures of the
    radiograph. See :class:`medseg.transforms.flat.ToFlatStructuresd`.

    Of those named in ``one_piece`` only the largest connected piece (8-neighbourhood) is kept. Raises
    StructureError for a name in ``one_piece`` that no structure has.
    """

    def __init__(
        self, keys="pred", structures: Sequence[Mapping[str, Any]] = (), one_piece: Sequence[str] = ()
    ):
        super().__init__(keys, structures)
        unknown = sorted(set(one_piece) - {structure.name for structure in self.structures})
        if unknown:
            raise StructureError(
                f"one_piece names {unknown[0]}, which is not among the structures; correct it."
            )
        self.one_piece = frozenset(one_piece)

    def open(self, source: str) -> Radiograph:
        return open_radiograph(source)

    def masks(self, case: Radiograph, channels: torch.Tensor) -> dict[Structure, np.ndarray]:
        found = zip(self.structures, channels.numpy() >= 0.5, strict=True)
        return {
            structure: largest_piece(mask, diagonal=True) if structure.name in self.one_piece else mask
            for structure, mask in found
        }


class SaveRadiographd(SaveFlatd):
    """Write a radiograph's structures into ``output_dir/<case name>/``, in each of ``formats``.

    png: ``<Structure>.png``, 0 and 255; nifti: ``<Structure>.nii.gz``; seg: ``SEG.dcm`` that refers to the
    DICOM image; preview: ``preview.png`` with outlines. Refuses as :class:`medseg.transforms.flat.SaveFlatd`
    does, and says why there is no RT Structure Set.
    """

    def __init__(self, keys="structures", output_dir=".", formats=("png", "preview"), **model: str):
        if "rtstruct" in formats:
            raise InputError(
                "format rtstruct: a radiograph is a projection without a place in the patient, and an RT "
                f"Structure Set needs CT or MR slices; expected some of {', '.join(self.WRITERS)}."
            )
        super().__init__(keys, output_dir, formats, **model)

    def nifti(self, result: Structures, folder: Path) -> None:
        for structure, mask in result.masks.items():
            write_flat_mask(mask, result.case.spacing_mm, folder / f"{folder_name(structure.name)}.nii.gz")

    def preview(self, result: Structures, folder: Path) -> None:
        from medseg.reports.radiograph import write_preview

        write_preview(result, folder / "preview.png", case_id=folder.name)

    WRITERS = {"png": SaveFlatd.png, "nifti": nifti, "seg": SaveFlatd.seg, "preview": preview}
