"""What photographs and radiographs share behind the network: channels to named structures of one picture, and
the files that are written of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from monai.transforms import MapTransform

from medseg.cases.find import folder_name
from medseg.cases.photograph import Photograph
from medseg.cases.pictures import write_mask_png
from medseg.cases.radiograph import Radiograph
from medseg.cases.results import Structures, binary
from medseg.errors import InputError, StructureError
from medseg.structures.structure import Structure
from medseg.transforms.readers import REMARK_KEY
from medseg.transforms.saving import SaveCased, is_empty_with_a_warning
from medseg.transforms.structures import structure_of


class ToFlatStructuresd(MapTransform):
    """Channels (C, row, column), inverted to the file's own pixels, to named structures of the picture.

    ``structures``: one dict per channel with the fields of :class:`medseg.structures.structure.Structure`.
    Raises StructureError for another number of channels. A kind of picture says how it is opened and what of
    a channel is kept.
    """

    def __init__(self, keys="pred", structures: Sequence[Mapping[str, Any]] = ()):
        super().__init__(keys)
        self.structures = tuple(structure_of(fields) for fields in structures)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            pred = d[key]
            if pred.shape[0] != len(self.structures):
                raise StructureError(
                    f"{pred.shape[0]} predicted channels for {len(self.structures)} named structures."
                )
            case = self.open(pred.meta["filename_or_obj"])
            masks = self.masks(case, pred.detach().cpu())
            d["structures"] = Structures(case, masks, pred.meta.get(REMARK_KEY, ""))
        return d

    def open(self, source: str) -> Photograph | Radiograph:
        raise NotImplementedError

    def masks(self, case: Photograph | Radiograph, channels: torch.Tensor) -> dict[Structure, np.ndarray]:
        raise NotImplementedError


class SaveFlatd(SaveCased):
    """Write a picture's structures into ``output_dir/<case name>/``, in each of ``formats``, keys of
    ``WRITERS``: {format: writer of a result into a folder}.

    InputError at once for any other format, and for the DICOM Segmentation of a picture file, which has no
    image to refer to.
    """

    WRITERS: ClassVar[Mapping[str, Callable[[Any, Structures, Path], None]]]

    def __init__(
        self,
        keys="structures",
        output_dir: str | Path = ".",
        formats: Sequence[str] = ("png", "preview"),
        model_name: str = "",
        model_version: str = "",
    ):
        super().__init__(keys, output_dir)
        unknown = [name for name in formats if name not in self.WRITERS]
        if unknown:
            raise InputError(f"format {unknown[0]}: expected some of {', '.join(self.WRITERS)}.")
        self.formats = tuple(formats)
        self.model = (model_name, model_version)

    def name_of(self, case: Photograph | Radiograph) -> str:
        """The file's name without its ending."""
        return Path(case.source).stem

    def save(self, result: Structures, folder: Path) -> None:
        for name in self.formats:
            self.WRITERS[name](self, result, folder)

    def png(self, result: Structures, folder: Path) -> None:
        """``<Structure>.png``, 0 and 255; of a probability, inside is from 0.5 on."""
        for structure, mask in result.masks.items():
            write_mask_png(binary(mask), folder / f"{folder_name(structure.name)}.png")

    def seg(self, result: Structures, folder: Path) -> None:
        """``SEG.dcm`` that refers to the DICOM image."""
        from medseg.dicom.seg.write import write_projection_seg

        if result.case.stored is None:
            raise InputError(
                f"{result.case.source}: DICOM SEG needs a DICOM image to refer to; this case is a picture "
                f"file."
            )
        if is_empty_with_a_warning(result):
            return
        masks = {structure: binary(mask) for structure, mask in result.with_remark().items()}
        write_projection_seg(masks, result.case.stored, folder / "SEG.dcm", model=self.model)
