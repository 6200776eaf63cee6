"""Open a radiograph for the network, and write what was found on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.cases.find import folder_name
from medseg.cases.nifti import write_flat_mask
from medseg.cases.radiograph import open_radiograph, write_mask_png
from medseg.cases.results import Structures
from medseg.errors import InputError, StructureError
from medseg.shapes.pieces import largest_piece
from medseg.structures.structure import Structure
from medseg.transforms.readers import REMARK_KEY, RadiographReader
from medseg.transforms.saving import case_folder


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
            view = (
                "" if case.projection is None else str(case.projection.header.get("ViewPosition", "") or "")
            )
            if self.views and view and view not in self.views:
                raise InputError(
                    f"{case.source}: view {view}; this bundle learned from {' and '.join(self.views)} views."
                )
            array, meta = self.reader.get_data(case)
            meta["filename_or_obj"] = case.source
            d[key] = MetaTensor(torch.from_numpy(array)[None], meta=meta)
        return d


class ToRadiographStructuresd(MapTransform):
    """Channels (C, row, column) of 0 and 1, inverted to the file's own pixels, to named structures of the
    radiograph.

    ``structures``: one dict per channel with the fields of :class:`medseg.structures.structure.Structure`. Of
    those named in ``one_piece`` only the largest connected piece (8-neighbourhood) is kept. Raises
    StructureError for another number of channels or pixels, and for a name in ``one_piece`` that no structure
    has.
    """

    def __init__(
        self, keys="pred", structures: Sequence[Mapping[str, Any]] = (), one_piece: Sequence[str] = ()
    ):
        super().__init__(keys)
        self.structures = tuple(
            Structure(
                **{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
            )
            for fields in structures
        )
        unknown = sorted(set(one_piece) - {structure.name for structure in self.structures})
        if unknown:
            raise StructureError(
                f"one_piece names {unknown[0]}, which is not among the structures; correct it."
            )
        self.one_piece = frozenset(one_piece)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            pred = d[key]
            if pred.shape[0] != len(self.structures):
                raise StructureError(
                    f"{pred.shape[0]} predicted channels for {len(self.structures)} named structures."
                )
            masks = pred.detach().cpu().numpy() >= 0.5
            case = open_radiograph(pred.meta["filename_or_obj"])
            named = zip(self.structures, masks, strict=True)
            kept = {
                s: largest_piece(mask, diagonal=True) if s.name in self.one_piece else mask
                for s, mask in named
            }
            d["structures"] = Structures(case, kept, pred.meta.get(REMARK_KEY, ""))
        return d


class SaveRadiographd(MapTransform):
    """Write a radiograph's structures into ``output_dir/<case name>/``, in each of ``formats``.

    png: ``<Structure>.png``, 0 and 255; nifti: ``<Structure>.nii.gz``; seg: ``SEG.dcm`` that refers to the
    DICOM image; preview: ``preview.png`` with outlines. InputError at once for any other format, and for the
    DICOM Segmentation of a picture file, which has no image to refer to.
    """

    def __init__(
        self,
        keys="structures",
        output_dir: str | Path = ".",
        formats: Sequence[str] = ("png", "preview"),
        model_name: str = "",
        model_version: str = "",
    ):
        super().__init__(keys)
        if "rtstruct" in formats:
            raise InputError(
                "format rtstruct: a radiograph is a projection without a place in the patient, and an RT "
                f"Structure Set needs CT or MR slices; expected some of {', '.join(self.WRITERS)}."
            )
        unknown = [name for name in formats if name not in self.WRITERS]
        if unknown:
            raise InputError(f"format {unknown[0]}: expected some of {', '.join(self.WRITERS)}.")
        self.output_dir = Path(output_dir)
        self.formats = tuple(formats)
        self.model = (model_name, model_version)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            result = data[key]
            folder = case_folder(data.get("case_name") or Path(result.case.source).stem, self.output_dir)
            for name in self.formats:
                self.WRITERS[name](self, result, folder)
        return dict(data)

    def _png(self, result: Structures, folder: Path) -> None:
        for structure, mask in result.masks.items():
            write_mask_png(mask, folder / f"{folder_name(structure.name)}.png")

    def _nifti(self, result: Structures, folder: Path) -> None:
        for structure, mask in result.masks.items():
            write_flat_mask(mask, result.case.spacing_mm, folder / f"{folder_name(structure.name)}.nii.gz")

    def _seg(self, result: Structures, folder: Path) -> None:
        from medseg.dicom.seg.write import write_projection_seg

        if result.case.projection is None:
            raise InputError(
                f"{result.case.source}: DICOM SEG needs a DICOM image to refer to; this case is a picture "
                f"file."
            )
        write_projection_seg(
            result.with_remark(), result.case.projection, folder / "SEG.dcm", model=self.model
        )

    def _preview(self, result: Structures, folder: Path) -> None:
        from medseg.reports.radiograph import write_preview

        write_preview(result, folder / "preview.png", case_id=folder.name)

    WRITERS = {"png": _png, "nifti": _nifti, "seg": _seg, "preview": _preview}
