"""Writing DICOM Segmentations (PS3.3 A.51) through highdicom: voxel masks beside the contours of an RT
Structure Set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

import medseg
from medseg.dicom import coded
from medseg.dicom.charset import hold_texts
from medseg.dicom.derived import (
    RESEARCH_ONLY,
    SERIES_NUMBER,
    check_is_no_image,
    check_masks,
    copy_patient_and_study,
    maker,
    mask_or_map,
    refuse_approved,
    refuse_existing,
    without_patient,
)
from medseg.errors import GeometryError, MedsegWarning, StructureError
from medseg.files import atomic_path
from medseg.structures.structure import Code, Structure, check_names_are_unique, fixed_colour_rgb

if TYPE_CHECKING:
    import highdicom

    from medseg.dicom.images.photographs import StoredPhotograph
    from medseg.dicom.images.projections import Projection
    from medseg.dicom.images.series import Series

ONE_FRAME_CLASS_UID = "1.2.840.10008.5.1.4.1.1.77.1.4"
"""VL Photographic Image."""


def write_seg(
    masks: Mapping[str | Structure, np.ndarray],
    series: Series,
    out: str | Path,
    *,
    model: tuple[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write structures as one binary DICOM Segmentation on the images of ``series``; return its path.

    ``masks``: {name or Structure: array [slice, row, column]}; a float map is cut at 0.5. Each structure is a
    segment of its own, so they may overlap. Every frame carries the position of its own slice, also on uneven
    or tilted stacks; there a MedsegWarning says that readers which assume even slices will misplace them.
    ``model``: (name, version). ``overwrite``: replace a file that is there, unless it is an APPROVED set or
    an image.

    An empty structure becomes a segment without frames, with a MedsegWarning. Raises StructureError,
    GeometryError or InputError, before anything is written: see check_masks; also when no structure has a
    voxel, for an ``out`` that exists (without ``overwrite``) or holds an APPROVED structure set, and when
    ``series`` holds only some frames of a multi-frame image.
    """
    refuse_approved(Path(out))
    check_is_no_image(Path(out), series)
    refuse_existing(Path(out), overwrite)
    checked = [
        (structure, mask_or_map(masks[key], structure.name) >= 0.5)
        for structure, key in check_masks(masks, series)
    ]
    for structure, mask in checked:
        if not mask.any():
            warnings.warn(
                f"structure {structure.name} is empty; its segment has no frames.",
                MedsegWarning,
                stacklevel=2,
            )
    if not any(mask.any() for _, mask in checked):
        raise StructureError("every structure is empty; a DICOM Segmentation needs at least one voxel.")
    if not series.geometry.is_regular:
        warnings.warn(
            "slices are uneven or tilted: each frame of the Segmentation lies at its own slice, but "
            "readers that assume even slices will misplace it; use the RT Structure Set there.",
            MedsegWarning,
            stacklevel=2,
        )
    images, order = _source_images(series)
    pixels = np.stack([mask[order] for _, mask in checked], axis=-1)
    dataset = _segmentation(images, pixels, [structure for structure, _ in checked], model)
    copy_patient_and_study(series.headers[0], dataset)
    return _save(dataset, [structure for structure, _ in checked], out, model)


def write_projection_seg(
    masks: Mapping[Structure, np.ndarray],
    projection: Projection | StoredPhotograph,
    out: str | Path,
    *,
    model: tuple[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write structures as one binary DICOM Segmentation on a radiograph or a photograph; return its path.

    ``masks``: {Structure: bool array [row, column]}, of the shape of the image. Frames refer to the
    image itself; they have no position, since the image has none. An empty structure becomes a segment
    without frames, with a MedsegWarning. Raises StructureError for masks of another shape, and when no
    structure has a pixel.
    """
    check_names_are_unique(structure.name for structure in masks)
    for structure, mask in masks.items():
        if mask.shape != projection.pixels.shape[:2]:
            raise StructureError(
                f"{structure.name}: mask {mask.shape} for an image of {projection.pixels.shape[:2]}."
            )
        if not mask.any():
            warnings.warn(
                f"structure {structure.name} is empty; its segment has no frames.",
                MedsegWarning,
                stacklevel=2,
            )
    if not any(mask.any() for mask in masks.values()):
        raise StructureError("every structure is empty; a DICOM Segmentation needs at least one pixel.")
    pixels = np.stack(list(masks.values()), axis=-1)[None]
    image = without_patient(projection.header)
    own_class = image.SOPClassUID
    if image.pop("NumberOfFrames", None) is not None:
        # Ophthalmic photographs count their one frame, but have none of the functional groups that highdicom
        # reads of classes with frames: it is shown a class without, and the references are set right.
        image.SOPClassUID = ONE_FRAME_CLASS_UID
    dataset = _segmentation([image], pixels, list(masks), model)
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPClassUID" and element.value == image.SOPClassUID:
            element.value = own_class
    copy_patient_and_study(projection.header, dataset)
    # Required where no position says how the picture lies (PS3.3 C.7.6.1); empty where the image does not say
    # either.
    dataset.PatientOrientation = projection.header.get("PatientOrientation")
    return _save(dataset, list(masks), out, model)


def _segmentation(images: list[Dataset], pixels: np.ndarray, structures: list[Structure], model) -> Dataset:
    """The data set of bool ``pixels`` [frame, row, column, segment] on ``images``, without patient and
    study."""
    import highdicom  # here, because it loads slowly and RT Structure Sets do not need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # highdicom's advice on values that the scanner wrote
        return highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=pixels,
            segmentation_type="BINARY",
            segment_descriptions=[
                _segment(number, structure, model) for number, structure in enumerate(structures, start=1)
            ],
            series_instance_uid=generate_uid(prefix=None),
            series_number=SERIES_NUMBER + 1,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            manufacturer="medseg",
            manufacturer_model_name=model[0][:64] if model and model[0] else "medseg",
            software_versions=maker(model)[:64],
            device_serial_number="none",
            content_label="SEGMENTATION",
            content_description=RESEARCH_ONLY,
            series_description=f"Segments by medseg. {RESEARCH_ONLY}",
        )


def _save(dataset: Dataset, structures: list[Structure], out: str | Path, model) -> Path:
    hold_texts(dataset, [*(model or ()), *(structure.name for structure in structures)])
    with atomic_path(out) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return Path(out)


def _source_images(series: Series) -> tuple[list[Dataset], np.ndarray]:
    """The images as highdicom wants them, and the slice indices in their order: one per file, or the frames
    of one file."""
    first = without_patient(series.headers[0])
    frames = [number for number in series.frame_numbers if number is not None]
    if not frames:
        return [first, *series.headers[1:]], np.arange(series.geometry.shape[0])
    if sorted(frames) != list(range(1, int(first.NumberOfFrames) + 1)):
        raise GeometryError(
            f"the series uses {len(frames)} of the {first.NumberOfFrames} frames of {series.files[0].name}; "
            "a Segmentation needs all of them. Write an RT Structure Set."
        )
    return [first], np.argsort(frames)


def _segment(
    number: int, structure: Structure, model: tuple[str, str] | None
) -> highdicom.seg.SegmentDescription:
    import highdicom

    kind = structure.code or coded.unspecific_code(structure)
    name, version = model if model and model[0] else ("medseg", medseg.__version__)
    drawn_by = (
        structure.generation_algorithm or "SEMIAUTOMATIC"
    )  # not known who drew it, but medseg made voxels of it
    families = {"AUTOMATIC": coded.ARTIFICIAL_INTELLIGENCE, "SEMIAUTOMATIC": coded.MANUAL_PROCESSING}
    algorithm = (
        None
        if drawn_by == "MANUAL"
        else highdicom.AlgorithmIdentificationSequence(
            name, family=_concept(families[drawn_by]), version=version or "unknown"
        )
    )
    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name,
        segmented_property_category=_concept(coded.category_code(structure)),
        segmented_property_type=_concept(kind),
        algorithm_type=drawn_by,
        algorithm_identification=algorithm,
        tracking_uid=generate_uid(prefix=None),
        tracking_id=structure.name,
        display_color=_display_colour(structure),
    )
    if structure.generation_description:
        words = structure.generation_description.encode("ascii", "replace").decode()
        segment.SegmentDescription = words[:1024]
    side = coded.side_code(structure)
    if side is not None:
        kinds = segment.SegmentedPropertyTypeCodeSequence
        kinds[0].SegmentedPropertyTypeModifierCodeSequence = Sequence([_concept(side)])
    return segment


def _display_colour(structure: Structure):
    import highdicom

    colour_rgb = structure.colour_rgb or fixed_colour_rgb(structure.name)
    return highdicom.color.CIELabColor.from_rgb(*colour_rgb)


def _concept(code: Code):
    import highdicom

    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)
