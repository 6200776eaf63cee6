"""The kinds of result, in one table: what can be written of each, and how it is drawn and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from medseg.bundles.find import Bundle
from medseg.cases.find import PHOTOGRAPH_MODALITIES, PROJECTION_MODALITIES
from medseg.cases.photograph import is_photograph_file
from medseg.cases.radiograph import is_picture
from medseg.cases.results import Boxes, Labels, Structures
from medseg.cases.volume import is_volume_file
from medseg.errors import BundleError, InputError


@dataclass(frozen=True)
class Kind:
    """One kind of result. ``writers``: {kind of case: {format: transform}}, where the preview is a format
    like others. ``usual``: {kind of case: formats} when the user asks for none. ``scorer``: what ``medseg
    score`` compares files with their truth by, and the module whose ``in_words`` and ``as_json`` say what
    came out. Names are room addresses, as in a bundle's config,
    so that looking a kind up loads no network.
    """

    result: type
    writers: Mapping[str, Mapping[str, str]]
    usual: Mapping[str, tuple[str, ...]]
    scorer: tuple[str, str]


_CASES = ("volume", "radiograph", "photograph")
_RECORD = {"json": "medseg.transforms.SaveRecordd"}
_REPORT = {"sr": "medseg.transforms.SaveDicomSRd"}
_BOXES = {
    **_RECORD,
    **_REPORT,
    "csv": "medseg.transforms.SaveBoxTabled",
    "preview": "medseg.transforms.SaveBoxPictured",
}

KINDS: dict[str, Kind] = {
    "structures": Kind(
        Structures,
        writers={
            "volume": {
                "rtstruct": "medseg.transforms.SaveRTStructd",
                "seg": "medseg.transforms.SaveDicomSegd",
                "nifti": "medseg.transforms.SaveNiftid",
                "preview": "medseg.transforms.SavePreviewd",
            },
            "radiograph": dict.fromkeys(
                ("png", "nifti", "seg", "preview"), "medseg.transforms.SaveRadiographd"
            ),
            "photograph": dict.fromkeys(
                ("png", "probability", "seg", "preview"), "medseg.transforms.SavePhotographd"
            ),
        },
        usual={
            "volume": ("rtstruct", "preview"),
            "radiograph": ("png", "preview"),
            "photograph": ("png", "probability", "preview"),
        },
        scorer=("medseg.bundles.score.score_structures", "medseg.bundles.score_tables"),
    ),
    "boxes": Kind(
        Boxes,
        writers={
            "volume": {**_BOXES, "rtstruct": "medseg.transforms.SaveBoxRTStructd"},
            "radiograph": _BOXES,
            "photograph": {**_RECORD, "csv": "medseg.transforms.SaveBoxTabled"},
        },
        usual={
            "volume": ("json", "csv", "preview"),
            "radiograph": ("json", "preview"),
            "photograph": ("json",),
        },
        scorer=("medseg.bundles.score_boxes.score_boxes", "medseg.bundles.score_box_tables"),
    ),
    "labels": Kind(
        Labels,
        writers={
            **dict.fromkeys(_CASES, _RECORD | _REPORT),
            "radiograph": {
                **_RECORD,
                **_REPORT,
                "preview": "medseg.transforms.SaveLabelPictured",
                "map": "medseg.transforms.SaveActivationMapd",
            },
        },
        usual={**dict.fromkeys(_CASES, ("json",)), "radiograph": ("json", "preview")},
        scorer=("medseg.bundles.score_labels.score_labels", "medseg.bundles.score_label_tables"),
    ),
}
"""By the ``result_kind`` of a bundle's metadata.json, which is also the key of the result in a pipeline's
data."""

FORMATS = tuple(
    dict.fromkeys(name for kind in KINDS.values() for row in kind.writers.values() for name in row)
)
"""Every format that some kind of result can be written in."""


_FLAT = {"radiograph": "a projection", "photograph": "a picture"}

DICOM_FORMATS = ("rtstruct", "seg", "sr")
"""Formats that refer to the images they were drawn on."""


def kind_of(bundle: Bundle) -> Kind:
    """The row of the bundle's ``result_kind``. BundleError for a kind that there is not."""
    if bundle.result_kind not in KINDS:
        raise BundleError(
            f"bundle {bundle.name}: metadata.json says result_kind {bundle.result_kind!r}; expected one of "
            f"{', '.join(KINDS)}."
        )
    return KINDS[bundle.result_kind]


def scorer_of(bundle: Bundle) -> tuple[Callable, Any]:
    """What scores the bundle's kind of result: the function, and the module that puts its answer into
    words."""
    function, words = kind_of(bundle).scorer
    room, _, name = function.rpartition(".")
    return getattr(import_module(room), name), import_module(words)


def case_kind(bundle: Bundle) -> str:
    """What the bundle takes: "radiograph" for CR and DX, "photograph" for OP and XC, else "volume"."""
    if bundle.modality in PHOTOGRAPH_MODALITIES:
        return "photograph"
    return "radiograph" if bundle.modality in PROJECTION_MODALITIES else "volume"


def formats_of(bundle: Bundle, wanted: Sequence[str], source: str) -> tuple[str, ...]:
    """The formats to write of a case: those wanted, or what is usual when none is.

    A NIfTI or MetaImage file has no series that an RT Structure Set could refer to; of one, NIfTI is usual.
    InputError for a format that the bundle's results cannot be written in.
    """
    kind, case = kind_of(bundle), case_kind(bundle)
    usual = kind.usual[case]
    if is_volume_file(source):
        usual = tuple("nifti" if name == "rtstruct" else name for name in usual)
    chosen = tuple(dict.fromkeys(wanted)) or usual
    writers = kind.writers[case]
    impossible = [name for name in chosen if name not in writers]
    if impossible:
        why = (
            f"a {case} is {_FLAT[case]} without a place in the patient, and an RT Structure Set needs CT or "
            "MR slices"
            if impossible[0] == "rtstruct" and case in _FLAT
            else f"{bundle.name} answers with {bundle.result_kind} on a {case}"
        )
        raise InputError(f"format {impossible[0]}: {why}; expected some of {', '.join(writers)}.")
    return chosen


def check_formats(bundle: Bundle, wanted: Sequence[str], sources: Sequence[str]) -> None:
    """Raise InputError for a format that none of the cases can be written in, once and before any is read.

    A DICOM format of a picture or NIfTI file has no images to refer to. Where only some of the cases are such
    files, the others are written, and these fail by themselves.
    """
    for source in sources:
        formats_of(bundle, wanted, source)
    for name in wanted:
        if name in DICOM_FORMATS and sources and all(map(_is_no_dicom, sources)):
            others = f" and {len(sources) - 1} more are" if len(sources) > 1 else " is"
            raise InputError(
                f"format {name}: it refers to DICOM images, and {sources[0]}{others} not DICOM; leave it out "
                f"of `formats`."
            )


def _is_no_dicom(source: str) -> bool:
    return is_picture(source) or is_photograph_file(source) or is_volume_file(source)
