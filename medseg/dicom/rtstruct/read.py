"""Reading RT Structure Sets onto the slices of a series: masks, and a sentence about whatever was odd."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np

from medseg.dicom.derived import PatientError, check_same_frame, check_same_patient
from medseg.dicom.images.series import Series, require_series
from medseg.dicom.rtstruct.masks import roi_mask, solid_loops
from medseg.dicom.rtstruct.placement import why_nowhere
from medseg.dicom.rtstruct.structure_set import Roi, StructureSet, read_structure_set
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError

ALLOWABLE_IN_STRUCTURE_SETS = {
    "frame_of_reference": (
        "place contours of another, or of no known, Frame of Reference by their coordinates alone"
    ),
    "repeated_names": 'call ROIs that share a name "NAME (number 3)" and so on',
    "patient_details": (
        "place contours on images of the same PatientID with another PatientName, birth date or sex"
    ),
}
"""Faults that read_rtstruct can be told to accept (``allow=``), and what it then does. All others are always
refused."""

MaskReader = Callable[[], tuple[np.ndarray, list[str]]]


def read_rtstruct(path: str | Path, series: Series, *, allow: Collection[str] = ()) -> dict[str, np.ndarray]:
    """{ROI name: bool mask [slice, row, column]} of a structure set on the grid of a series, as stored names.

    Contours lie where their coordinates say; image references are only compared. All areas of a plane are
    combined by exclusive or, so that holes work however they are stored. An ROI without contours gives an
    empty mask; points and open lines have no area and are left out, and so is an ROI whose contours are
    damaged, beside sound ones. What is odd is said by a MedsegWarning each. ``allow``: names from
    ALLOWABLE_IN_STRUCTURE_SETS of faults to accept, with a warning.

    Raises InputError for a damaged file, for one without a sound ROI and for an unknown name in ``allow``,
    GeometryError for another patient or Frame of Reference and where no contour at all lies on the images,
    StructureError for two ROIs of one name.
    """
    require_series(series)
    structure_set = read_structure_set(path)
    masks, notices = place(structure_set, series, allow)
    for notice in (*structure_set.notices, *notices):
        warnings.warn(notice, MedsegWarning, stacklevel=2)
    return masks


def place(
    structure_set: StructureSet, series: Series, allow: Collection[str] | None = ()
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The masks of read_rtstruct, and a sentence about everything that was odd, instead of warnings.

    ``allow`` None: the caller takes no faults, so that no message offers to accept one.
    """
    readers, notices = placeable(structure_set, series, allow)
    masks: dict[str, np.ndarray] = {}
    for name, read in readers.items():
        masks[name], said = read()
        notices += said
    return masks, notices


def placeable(
    structure_set: StructureSet, series: Series, allow: Collection[str] | None = ()
) -> tuple[dict[str, MaskReader], list[str]]:
    """({ROI name: function that gives its mask and what was odd about it}, what was odd about the set), all
    checked.

    For whoever cannot hold the masks of all ROIs at once.
    """
    may_allow, allow = allow is not None, allow or ()
    unknown = sorted(set(allow) - set(ALLOWABLE_IN_STRUCTURE_SETS))
    if unknown:
        known = ", ".join(ALLOWABLE_IN_STRUCTURE_SETS)
        raise InputError(
            f"allow={unknown[0]!r} is not known for structure sets; expected names from {known}."
        )
    notices = _check_patient(structure_set, series, allow if may_allow else None)
    try:
        check_same_frame(structure_set.frame_of_reference_uids, series, structure_set.path)
    except GeometryError as error:
        if "frame_of_reference" not in allow:
            hint = " If both are known to agree: `allow=frame_of_reference`." if may_allow else ""
            raise GeometryError(f"{error}{hint}") from error
        notices.append(
            "accepted frame_of_reference: the structure set has "
            f"{', '.join(structure_set.frame_of_reference_uids) or 'none'}, the images have "
            f"{series.geometry.frame_of_reference_uid or 'none'}; contours were placed by their coordinates "
            "alone."
        )
    drawn, left_out = _drawable(structure_set, series.geometry.frame_of_reference_uid, allow)
    notices += left_out
    _check_reach(structure_set.path, drawn.values(), series)
    slice_of_image = _slices_by_uid(series)
    contours = [contour for roi in drawn.values() for contour in roi.contours if contour.bounds_an_area]
    lost = (
        sum(not slice_of_image.keys() >= set(contour.image_uids) for contour in contours)
        if slice_of_image
        else 0
    )
    if lost:
        notices.append(
            f"{lost} of {len(contours)} contours name an image which is not in the series; position decides."
        )

    def reader(name: str, roi: Roi) -> MaskReader:
        def read() -> tuple[np.ndarray, list[str]]:
            mask, said = roi_mask(roi.contours, series.geometry, slice_of_image)
            return mask, [f"ROI {name!r}: {sentence}" for sentence in said]

        return read

    return {name: reader(name, roi) for name, roi in drawn.items()}, notices


def _check_patient(structure_set: StructureSet, series: Series, allow: Collection[str] | None) -> list[str]:
    """Raise GeometryError for another patient; a notice where only details differ and that is allowed."""
    try:
        check_same_patient(structure_set.patient, series, structure_set.path)
    except PatientError as error:
        is_detail = error.field != "PatientID" and bool(structure_set.patient_id)
        if is_detail and "patient_details" in (allow or ()):
            return [f"accepted patient_details: its {error.field} is not that of the images."]
        hint = " If both are known to be one person: `allow=patient_details`."
        hint = hint if is_detail and allow is not None else ""
        raise GeometryError(f"{error}{hint}") from error
    return []


def _check_reach(path: Path, rois: Iterable[Roi], series: Series) -> None:
    """Raise GeometryError when no contour lies on the images: masks without a voxel would pass for an
    answer."""
    loops: list[np.ndarray] = []
    for roi in rois:
        own = [points for _, points in solid_loops([c for c in roi.contours if c.bounds_an_area])]
        if own and why_nowhere(own, series.geometry) is None:
            return
        loops += own
    why = why_nowhere(loops, series.geometry)
    if why is not None:
        raise GeometryError(f"{path}: {why}. Expected the images it was drawn on.")


def _drawable(
    structure_set: StructureSet, frame_uid: str | None, allow: Collection[str]
) -> tuple[dict[str, Roi], list[str]]:
    """({name: ROI that bounds areas in this frame, or is empty}, why the others are left out).

    Of ROIs that share a name those without contours give way. StructureError where that leaves several.
    """
    kept, notices, without_area = [], [], []
    damaged = [roi for roi in structure_set.rois if roi.damage]
    if damaged and not any(roi.contours for roi in structure_set.rois):
        what = f"ROI {damaged[0].structure.name!r}: {damaged[0].damage}"
        raise InputError(f"{structure_set.path}: {what}; the file is damaged, export it again.")
    for roi in structure_set.rois:
        name, own_frame = roi.structure.name, roi.frame_of_reference_uid
        if own_frame and own_frame != frame_uid and "frame_of_reference" not in allow:
            notices.append(f"ROI {name!r} was left out: it lies in Frame of Reference {own_frame}.")
        elif roi.damage:
            notices.append(f"ROI {name!r} was left out: it is damaged ({roi.damage}); export it again.")
        elif roi.is_points_only:
            without_area.append(repr(name))
        else:
            kept.append(roi)
    if without_area:
        notices.append(f"ROI {', '.join(without_area)}: left out, since points and open lines bound no area.")
    drawn: dict[str, Roi] = {}
    for name in dict.fromkeys(roi.structure.name for roi in kept):
        same = [roi for roi in kept if roi.structure.name == name]
        filled = [roi for roi in same if roi.contours] or same[:1]
        if len(filled) < len(same):
            notices.append(
                f"ROI {name!r}: {len(same) - len(filled)} more of this name without contours left out."
            )
        if len(filled) > 1 and "repeated_names" not in allow:
            numbers = ", ".join(str(roi.structure.number) for roi in filled)
            raise StructureError(
                f"{structure_set.path}: {len(filled)} ROIs are called {name!r} (numbers {numbers}); rename "
                "them, or take them by their numbers: `allow=repeated_names`."
            )
        for roi in filled:
            drawn[name if len(filled) == 1 else f"{name} (number {roi.structure.number})"] = roi
    return drawn, notices


def _slices_by_uid(series: Series) -> dict[str, int]:
    """{SOP Instance UID: slice index} of single-frame images; a multi-frame image does not tell the slice."""
    uids = Counter(series.sop_instance_uids)
    return {uid: index for index, uid in enumerate(series.sop_instance_uids) if uids[uid] == 1}
