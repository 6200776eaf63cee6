"""Writing DICOM Structured Reports: what a network says about images, as numbers that an archive can find.

The document is a Comprehensive SR (PS3.3 A.35.3) by TID 1500 "Measurement Report" (PS3.16): what is said
about a whole image is one measurement group (TID 1501, :func:`whole_image`); what is said about a place is a
group of TID 1410 beside it in the same report. Names that DICOM has no code for are coded in medseg's own
scheme, 99MEDSEG. The document is written as not complete, not final and not verified: nobody has read it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

import medseg
from medseg.dicom import coded
from medseg.dicom.charset import hold_texts
from medseg.dicom.derived import (
    RESEARCH_ONLY,
    SERIES_NUMBER,
    copy_patient_and_study,
    maker,
    refuse_existing,
    without_patient,
)
from medseg.errors import InputError
from medseg.files import atomic_path
from medseg.structures.structure import Code

if TYPE_CHECKING:
    import highdicom

OWN_SCHEME = "99MEDSEG"
UNREVIEWED = "UNAPPROVED: nobody reviewed this answer. Not for diagnosis."
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
COMMENT = Code("121106", "DCM", "Comment")
NO_UNITS = Code("1", "UCUM", "no units")
MOST_LETTERS_OF_A_CODE, MOST_LETTERS_OF_A_MEANING = 16, 64


def own_code(meaning: str) -> Code:
    """A code of medseg's own scheme: the same for the same words, another for others. InputError for no
    words, and for more than the 64 letters that DICOM has room for."""
    if not meaning.strip() or len(meaning) > MOST_LETTERS_OF_A_MEANING:
        raise InputError(f"{meaning!r}: expected 1 to {MOST_LETTERS_OF_A_MEANING} letters for a DICOM code.")
    value = re.sub(r"[^A-Z0-9]+", "_", meaning.upper()).strip("_")
    if len(value) > MOST_LETTERS_OF_A_CODE or not meaning.isascii():
        value = f"{value[:9]}_{hashlib.sha256(meaning.encode()).hexdigest()[:6].upper()}"
    return Code(value, OWN_SCHEME, meaning)


def write_sr(
    groups: Sequence[highdicom.sr.MeasurementsAndQualitativeEvaluations],
    images: Sequence[Dataset],
    out: str | Path,
    *,
    model: tuple[str, str] | None = None,
    remark: str = "",
    overwrite: bool = False,
) -> Path:
    """Write groups of what was said about ``images``, headers of one study, as one report; return its path.

    Every group names the images it speaks of; here each gets the remark as a comment. There is no image
    library (TID 1600): it would need attributes that films of practice lack.
    ``model``: (name, version), as the groups were made with. ``remark``: what has to be said with them; "not
    for diagnosis" is said anyway. InputError without a group or an image, and for an ``out`` that exists
    (without ``overwrite``).
    """
    import highdicom  # here, because it loads slowly

    if not groups or not images:
        raise InputError(
            f"{len(groups)} groups about {len(images)} images; a report needs at least one of each."
        )
    refuse_existing(Path(out), overwrite)
    words = " ".join(filter(None, (UNREVIEWED, RESEARCH_ONLY, remark)))
    for group in groups:
        group[0].ContentSequence.append(_comment(words))
    report = highdicom.sr.MeasurementReport(
        observation_context=highdicom.sr.ObservationContext(observer_device_context=_observer(model)),
        procedure_reported=concept(IMAGING_PROCEDURE),
        imaging_measurements=groups,
    )
    dataset = highdicom.sr.ComprehensiveSR(
        evidence=[without_patient(image) for image in images],
        content=report[0],
        series_instance_uid=generate_uid(prefix=None),
        series_number=SERIES_NUMBER + 2,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer="medseg",
        manufacturer_model_name=model[0][:64] if model and model[0] else "medseg",
        software_versions=maker(model)[:64],
        device_serial_number="none",
        series_description=f"Report by medseg. {RESEARCH_ONLY}",
    )
    dataset.CompletionFlagDescription = UNREVIEWED
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = OWN_SCHEME, "medseg"
    dataset.CodingSchemeIdentificationSequence = [scheme]
    copy_patient_and_study(images[0], dataset)
    said = [e.value for e in dataset.iterall() if e.keyword in ("CodeMeaning", "TextValue")]
    hold_texts(dataset, [*map(str, said), *(model or ())])
    with atomic_path(out) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return Path(out)


def whole_image(
    images: Sequence[Dataset],
    probabilities: Mapping[str, float],
    values: Mapping[str, tuple[float, str]],
    intervals: Mapping[str, tuple[float, float]],
    model: tuple[str, str] | None,
) -> highdicom.sr.MeasurementsAndQualitativeEvaluations:
    """The group of :func:`write_sr` that speaks of whole images, with the fields of
    :class:`medseg.cases.results.Labels`.

    Each probability is a measurement "Probability of <class>" without a unit; a value has its name and its
    unit by UCUM. An interval of either is two more, its lower and its upper end. No class is called: where
    the line between two lies is not the network's to say.
    """
    import highdicom

    numbers = {f"Probability of {name}": (number, "1") for name, number in probabilities.items()}
    numbers |= dict(values)
    for name, (low, high) in intervals.items():
        said = f"Probability of {name}" if name in probabilities else name
        unit = numbers[said][1]
        numbers |= {f"{said}, lower end": (low, unit), f"{said}, upper end": (high, unit)}
    return highdicom.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(generate_uid(prefix=None), "whole image"),
        algorithm_id=algorithm(model),
        measurements=[measurement(name, *number) for name, number in numbers.items()],
        source_images=[
            highdicom.sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
            for image in images
        ],
    )


def image_region(
    image: Dataset,
    rows_columns: np.ndarray,
    name: str,
    number: int,
    score: float,
    model: tuple[str, str] | None,
) -> highdicom.sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """The group of :func:`write_sr` that speaks of one box on ``image`` (TID 1410): its outline as a closed
    POLYLINE, what was found, and "Score of <name>".

    ``rows_columns``: (2, 2), the low and the high corner, counted from the outer corner of the first pixel,
    as SCOORD counts. ``number``: of the finding, from 1, for its tracking identifier.
    """
    import highdicom

    (top, left), (bottom, right) = rows_columns
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    return highdicom.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(generate_uid(prefix=None), f"finding {number}"),
        referenced_region=highdicom.sr.ImageRegion(
            highdicom.sr.GraphicTypeValues.POLYLINE,
            corners,
            highdicom.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
        ),
        finding_type=concept(own_code(name)),
        algorithm_id=algorithm(model),
        measurements=[measurement(f"Score of {name}", score, "1")],
    )


def measurement(name: str, number: float, unit: str) -> highdicom.sr.Measurement:
    """A number with its name, in medseg's own scheme, and its unit by UCUM, "1" for none."""
    import highdicom

    units = NO_UNITS if unit == "1" else Code(unit, "UCUM", unit)
    return highdicom.sr.Measurement(concept(own_code(name)), float(f"{number:.6g}"), concept(units))


def algorithm(model: tuple[str, str] | None) -> highdicom.sr.AlgorithmIdentification:
    """Name and version of what answered (TID 4019): the model's, medseg's where there is none."""
    import highdicom

    name, version = model if model and model[0] else ("medseg", medseg.__version__)
    return highdicom.sr.AlgorithmIdentification(
        name, version or "unknown", family=concept(coded.ARTIFICIAL_INTELLIGENCE)
    )


def concept(code: Code) -> highdicom.sr.CodedConcept:
    import highdicom

    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _observer(model: tuple[str, str] | None) -> highdicom.sr.ObserverContext:
    """The device that observed (TID 1004); its UID is the same for the same version of the same model."""
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=highdicom.sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(prefix=None, entropy_srcs=["medseg observer", maker(model)]),
            name=maker(model)[:64],
            manufacturer_name="medseg",
        ),
    )


def _comment(words: str) -> Dataset:
    import highdicom

    return highdicom.sr.TextContentItem(
        concept(COMMENT), words, relationship_type=highdicom.sr.RelationshipTypeValues.CONTAINS
    )
