"""Write what was said about a case as a DICOM Structured Report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.cases.results import Boxes, Labels
from medseg.errors import InputError
from medseg.transforms.saving import SaveCased

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class SaveDicomSRd(SaveCased):
    """Write ``SR.dcm``, a DICOM Structured Report of labels, or of boxes with the number of them and a region
    for each, on the slice through its middle; ``overwrite``: see :func:`medseg.dicom.sr.write_sr`.

    InputError for a picture or NIfTI file, which has no DICOM image to refer to.
    """

    def __init__(self, keys="labels", output_dir=".", model_name="", model_version="", overwrite=False):
        super().__init__(keys, output_dir)
        self.model, self.overwrite = (model_name, model_version), overwrite

    def name_of(self, case) -> str:
        """The file's name without its ending; of a volume, its folder's."""
        return super().name_of(case) if case.kind == "volume" else Path(case.source).stem

    def save(self, result: Labels | Boxes, folder: Path) -> None:
        from medseg.dicom.sr import image_region, whole_image, write_sr

        images = images_of(result)
        if isinstance(result, Boxes):
            regions = [
                image_region(images[row["image"]], row["corners"], row["class"], n, row["score"], self.model)
                for n, row in enumerate(result.on_images(), 1)
            ]
            values = {"number of boxes called": (len(regions), "1")}
            groups = [whole_image(images, {}, values, {}, self.model), *regions]
        else:
            said = result.probabilities, result.values, result.intervals
            groups = [whole_image(images, *said, self.model)]
        write_sr(
            groups,
            images,
            folder / "SR.dcm",
            model=self.model,
            remark=result.remark,
            overwrite=self.overwrite,
        )


def images_of(result: Labels | Boxes) -> Sequence[Dataset]:
    """Headers of the DICOM images that the case was read from; InputError where it was not."""
    case = result.case
    stored = case.series if case.kind == "volume" else case.stored
    if stored is None:
        raise InputError(
            f"{case.source}: DICOM SR needs DICOM images to refer to; this case is a "
            f"{'NIfTI' if case.kind == 'volume' else 'picture'} file."
        )
    return stored.headers if case.kind == "volume" else [stored.header]
