"""Images made by medseg itself: a series writer for any geometry, and phantoms of known truth for tests and
demo."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds
from scipy.ndimage import gaussian_filter

import medseg
from medseg.cases.nifti import write_mask
from medseg.errors import GeometryError, InputError
from medseg.files import atomic_path
from medseg.geometry import Geometry

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""ImageOrientationPatient of an axial slice: columns run to the patient's left, rows to posterior."""

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
"""Modalities that write_series knows, with their SOP Class."""

_MODALITY_ATTRIBUTES = {
    "CT": {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "KVP": "120",
        "RescaleType": "HU",
        "RescaleIntercept": -1024,
    },
    "MR": {
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "EchoTime": "10",
        "EchoTrainLength": "1",
        "RepetitionTime": "500",
        "RescaleIntercept": 0,
    },
    "PT": {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "SeriesDate": "20260101",
        "SeriesTime": "120000",
        "Units": "BQML",
        "CountsSource": "EMISSION",
        "SeriesType": ["STATIC", "IMAGE"],
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY"],
        "CollimatorType": "NONE",
        "FrameReferenceTime": "0",
        "ActualFrameDuration": "60000",
        "DecayFactor": "1",
        "AcquisitionDate": "20260101",
        "AcquisitionTime": "120000",
        "RadiopharmaceuticalInformationSequence": [],
        "PatientOrientationCodeSequence": [],
        "PatientGantryRelationshipCodeSequence": [],
        "RescaleIntercept": 0,
    },
}


# ---- geometries --------------------------------------------------------------------------------------------


def stack_geometry(
    shape: tuple[int, int, int],
    *,
    gaps_mm: float | Sequence[float] = 3.0,
    pixel_spacing_mm: tuple[float, float] = (1.0, 1.0),
    orientation: Sequence[float] = AXIAL,
    tilt_degrees: float = 0.0,
    centre_lps_mm: Sequence[float] = (0.0, 0.0, 0.0),
    frame_of_reference_uid: str | None = None,
) -> Geometry:
    """Geometry of ``shape`` (slices, rows, columns) whose middle lies at ``centre_lps_mm``.

    ``gaps_mm``: one distance between slices, or one for each of the slices - 1 gaps. ``pixel_spacing_mm``:
    (between rows, between columns). ``orientation``: six cosines as in ImageOrientationPatient, made exactly
    perpendicular. ``tilt_degrees``: the stack leans towards its rows by this angle, as with a tilted gantry.
    """
    along_columns = np.asarray(orientation[:3], dtype=np.float64)
    along_columns = along_columns / np.linalg.norm(along_columns)
    along_rows = np.asarray(orientation[3:], dtype=np.float64)
    along_rows = along_rows - (along_rows @ along_columns) * along_columns
    along_rows = along_rows / np.linalg.norm(along_rows)
    gaps = np.broadcast_to(np.asarray(gaps_mm, dtype=np.float64), (shape[0] - 1,))
    heights_mm = np.concatenate([[0.0], np.cumsum(gaps)])
    heights_mm = heights_mm - (heights_mm[0] + heights_mm[-1]) / 2
    upwards = np.cross(along_columns, along_rows) + np.tan(np.deg2rad(tilt_degrees)) * along_rows
    row_step, column_step = along_rows * pixel_spacing_mm[0], along_columns * pixel_spacing_mm[1]
    corner = np.asarray(centre_lps_mm) - row_step * (shape[1] - 1) / 2 - column_step * (shape[2] - 1) / 2
    return Geometry(
        shape, corner + heights_mm[:, None] * upwards, row_step, column_step, frame_of_reference_uid
    )


def voxel_points_lps_mm(geometry: Geometry, index: int) -> np.ndarray:
    """float64 (rows, columns, 3): LPS mm of every voxel centre of one slice."""
    rows, columns = geometry.shape[1:]
    return (
        geometry.origins_lps_mm[index]
        + np.arange(rows)[:, None, None] * geometry.row_step_lps_mm
        + np.arange(columns)[None, :, None] * geometry.column_step_lps_mm
    )


# ---- DICOM writing -----------------------------------------------------------------------------------------


def phantom_uid(*words) -> str:
    """A UID under 2.25 (DICOM PS3.5 B.2) that is always the same for the same words."""
    digest = hashlib.sha256("|".join(str(word) for word in words).encode()).hexdigest()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digest).int}"


def write_series(
    volume_hu: np.ndarray, geometry: Geometry, out_dir, *, modality: str = "CT", seed: int | str = 0, **header
) -> list[Path]:
    """Write a volume as a DICOM series of single-frame files that conform to the standard; return them in
    stack order.

    ``volume_hu``: numbers [slice, row, column] of the geometry's shape; rounded to int16 steps of
    RescaleSlope. ``seed``: makes all UIDs, so that the same seed gives the same files and another seed
    another patient and study. ``header``: DICOM keyword = value for every slice; a function is called with
    the slice index; None removes the attribute. RescaleSlope and RescaleIntercept given here change the
    stored numbers, not the volume.

    Raises GeometryError when volume and geometry differ in shape, InputError for an unknown modality and for
    values that int16 cannot hold. Existing files of the same names are replaced.
    """
    volume_hu = np.asarray(volume_hu)
    if volume_hu.shape != geometry.shape:
        raise GeometryError(
            f"volume {volume_hu.shape} on a geometry of {geometry.shape}; expected the same shape."
        )
    if modality not in SOP_CLASSES:
        raise InputError(f"modality {modality!r}: expected one of {', '.join(SOP_CLASSES)}.")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(geometry.shape[0]):
        dataset = _slice_header(geometry, index, modality, seed)
        for keyword, value in header.items():
            value = value(index) if callable(value) else value
            if value is None and keyword in dataset:
                delattr(dataset, keyword)
            elif value is not None:
                setattr(dataset, keyword, value)
        _set_pixels(dataset, volume_hu[index])
        paths.append(_save(dataset, out_dir / f"{modality}_{index + 1:04d}.dcm"))
    return paths


def _slice_header(geometry: Geometry, index: int, modality: str, seed) -> Dataset:
    """Every attribute of one slice but its pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = SOP_CLASSES[modality]
    dataset.SOPInstanceUID = phantom_uid("instance", modality, seed, index)
    dataset.Modality = modality
    dataset.PatientName, dataset.PatientID = "PHANTOM^MEDSEG", f"PHANTOM-{seed}"[:64]
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = dataset.PositionReferenceIndicator = ""
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.StudyInstanceUID = phantom_uid("study", seed)
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "1", "20260101", "120000"
    dataset.SeriesInstanceUID = phantom_uid("series", modality, seed)
    dataset.SeriesNumber, dataset.SeriesDescription = 1, "medseg phantom"
    dataset.ContentDate, dataset.ContentTime = dataset.StudyDate, dataset.StudyTime
    dataset.FrameOfReferenceUID = geometry.frame_of_reference_uid or phantom_uid("frame of reference", seed)
    dataset.Manufacturer, dataset.ManufacturerModelName = "medseg", "phantom"
    dataset.SoftwareVersions = medseg.__version__
    dataset.AcquisitionNumber, dataset.InstanceNumber = 1, index + 1
    row_mm, column_mm = geometry.pixel_spacing_mm
    cosines = [*(geometry.column_step_lps_mm / column_mm), *(geometry.row_step_lps_mm / row_mm)]
    dataset.ImageOrientationPatient = [format_number_as_ds(float(cosine) + 0.0) for cosine in cosines]
    dataset.ImagePositionPatient = [
        format_number_as_ds(float(mm) + 0.0) for mm in geometry.origins_lps_mm[index]
    ]
    dataset.PixelSpacing = [format_number_as_ds(mm) for mm in (row_mm, column_mm)]
    thickness_mm = geometry.slice_thickness_mm[index]
    dataset.SliceThickness = None if np.isnan(thickness_mm) else format_number_as_ds(float(thickness_mm))
    dataset.RescaleSlope = 1
    if modality == "PT":
        dataset.NumberOfSlices, dataset.ImageIndex = geometry.shape[0], index + 1
    else:
        dataset.PatientPosition = "HFS"
    for keyword, value in _MODALITY_ATTRIBUTES[modality].items():
        setattr(dataset, keyword, value)
    return dataset


def _set_pixels(dataset: Dataset, slice_hu: np.ndarray) -> None:
    """Store one slice [row, column] as int16 through the slice's own RescaleSlope and RescaleIntercept."""
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    stored = np.rint((slice_hu.astype(np.float64) - intercept) / slope)
    if not (np.isfinite(stored).all() and stored.min() >= -32768 and stored.max() <= 32767):
        raise InputError(
            f"values {slice_hu.min()} to {slice_hu.max()} do not fit int16 with slope {slope}, intercept "
            f"{intercept}."
        )
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = stored.astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"


def _save(dataset: Dataset, path: Path) -> Path:
    """Write one explicit little endian file under a temporary name, then rename it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), dataset, file_meta=meta, preamble=b"\0" * 128)
    with atomic_path(path) as temporary:
        file.save_as(temporary, enforce_file_format=True)
    return path


# ---- chiral phantom ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChiralPhantom:
    """``volume_hu`` float32 and bool ``masks`` [slice, row, column] on ``geometry``, and true centres."""

    volume_hu: np.ndarray
    geometry: Geometry
    masks: dict[str, np.ndarray]
    points_lps_mm: dict[str, np.ndarray]


def chiral_phantom(geometry: Geometry | None = None) -> ChiralPhantom:
    """A body with an asymmetric L and a ball on the patient's left, drawn in patient space on any geometry.

    Whatever the slice orientation, the L stands superior with its foot to the left and its heel to posterior,
    so that every flip and swap of axes shows. Default: 30 axial slices of 48 x 56 voxels of 3 x 1.5 x 1.25
    mm. HU: outside -1000, body 0, L 500, Marker (a ball of 7 mm radius) 1000. ``points_lps_mm`` holds the
    true centre of Marker and of L's foot ("Foot"), a block of 24 x 8 x 9 mm that is a mask too.
    """
    if geometry is None:
        geometry = stack_geometry(
            (30, 48, 56), pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(7.0, -20.0, 110.0)
        )
    rows, columns = geometry.shape[1:]
    middle = geometry.shape[0] // 2
    centre = geometry.points_lps_mm(middle, [[(rows - 1) / 2, (columns - 1) / 2]])[0]
    marker = np.array([18.0, -14.0, 12.0])
    foot = np.array([0.0, 4.0, -16.5])
    masks = {name: np.zeros(geometry.shape, dtype=bool) for name in ("Body", "L", "Foot", "Marker")}
    for index in range(geometry.shape[0]):
        left, posterior, superior = np.moveaxis(voxel_points_lps_mm(geometry, index) - centre, -1, 0)
        masks["Body"][index] = (left / 32) ** 2 + (posterior / 32) ** 2 + (superior / 40) ** 2 <= 1
        stem = (np.abs(left + 8) <= 4) & (np.abs(posterior - 4) <= 4) & (np.abs(superior) <= 21)
        masks["Foot"][index] = (
            (np.abs(left - foot[0]) <= 12)
            & (np.abs(posterior - foot[1]) <= 4)
            & (np.abs(superior - foot[2]) <= 4.5)
        )
        heel = (np.abs(left + 8) <= 4) & (np.abs(posterior - 12) <= 4) & (np.abs(superior + 16.5) <= 4.5)
        masks["L"][index] = stem | masks["Foot"][index] | heel
        distances = np.stack([left - marker[0], posterior - marker[1], superior - marker[2]])
        masks["Marker"][index] = (distances**2).sum(0) <= 7.0**2
    volume_hu = np.where(masks["Body"], 0.0, -1000.0).astype(np.float32)
    volume_hu[masks["L"]], volume_hu[masks["Marker"]] = 500.0, 1000.0
    return ChiralPhantom(volume_hu, geometry, masks, {"Marker": centre + marker, "Foot": centre + foot})


# ---- thigh phantom -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phantom:
    """What write_thigh_phantom made: the series, the truth on its grid, and a box for a network that wants a
    region.

    ``truth``: bool [slice, row, column] of "GTV" (the sarcoma), "Femur_L" and "Thigh_L" (within the skin).
    ``box_lps_mm``: (2, 3), lowest and highest LPS mm of the tumour with 12 mm around it.
    """

    ct_dir: Path
    truth_dir: Path
    truth: dict[str, np.ndarray]
    geometry: Geometry
    box_lps_mm: np.ndarray


_MUSCLES_MM = (
    (-2, -52, 26),
    (34, -44, 24),
    (-38, -40, 22),
    (54, -14, 20),
    (14, -30, 14),
    (-58, -12, 14),
    (-46, 14, 22),
    (56, 18, 18),
    (-18, 20, 18),
    (-34, 44, 20),
    (2, 54, 18),
    (34, 46, 20),
    (24, 14, 12),
)
"""Thirteen muscles of a left thigh in cross-section: (lateral, posterior) of the middle from the axis, and a
weight, mm."""

_LOBES_MM = (
    ((0, 0, 0), (28, 23, 42)),
    ((19, 9, 24), (19, 18, 26)),
    ((-22, 8, -18), (18, 18, 25)),
    ((9, -9, -30), (18, 15, 20)),
)
"""The sarcoma as a union of ellipsoids: middle from the tumour's middle and half axes, (left, posterior,
superior) mm."""

_TUMOUR_LPS_MM = np.array([96.0, 34.0, 4.0])
_THIGH_AXIS_LPS_MM = np.array([96.0, 0.0])


def write_thigh_phantom(out_dir, seed: int = 0) -> Phantom:
    """Make a planning CT of a left thigh with a soft-tissue sarcoma: ``out_dir``/CT and
    ``out_dir``/truth/<name>.nii.gz.

    64 axial slices of 256 x 256 voxels of 3.27 x 0.9766 x 0.9766 mm: skin, fat, muscles with fat between
    them, femur, vessels, nerve, the edge of the other thigh and the table; the tumour lies behind the femur,
    pushes the muscles aside and is 20-30 HU darker than they are. HU, contrast and noise are of the order of
    published sarcoma CTs; no patient's data is in it. ``seed``: noise, texture and small differences of
    shape; the same seed, the same bytes.
    """
    geometry = stack_geometry(
        (64, 256, 256), gaps_mm=3.27, pixel_spacing_mm=(0.9766, 0.9766), centre_lps_mm=(82.0, 8.0, 0.0)
    )
    rng = np.random.default_rng(seed)
    texture = _smooth_noise(rng, geometry.shape, (1.5, 5, 5))
    clumps = _smooth_noise(rng, geometry.shape, (3.0, 9, 9))
    muscles_mm = np.array(_MUSCLES_MM, dtype=np.float64) + rng.normal(0, 1.5, (len(_MUSCLES_MM), 3))
    volume_hu = np.empty(geometry.shape, dtype=np.float32)
    truth = {name: np.zeros(geometry.shape, dtype=bool) for name in ("GTV", "Femur_L", "Thigh_L")}
    for index in range(geometry.shape[0]):
        points = voxel_points_lps_mm(geometry, index)
        slice_hu, masks = _thigh_slice(points, texture[index], clumps[index], muscles_mm)
        noise = gaussian_filter(rng.normal(size=slice_hu.shape), (0.5, 0.8))
        volume_hu[index] = gaussian_filter(slice_hu, 0.6) + 14.0 * noise / noise.std()
        for name, mask in masks.items():
            truth[name][index] = mask
    volume_hu = np.clip(volume_hu, -1024, 3071)
    ct_dir, truth_dir = Path(out_dir) / "CT", Path(out_dir) / "truth"
    words = {"SeriesDescription": "Thigh phantom", "BodyPartExamined": "THIGH", "Laterality": "L"}
    write_series(volume_hu, geometry, ct_dir, seed=f"thigh-{seed}", **words)
    geometry = replace(geometry, frame_of_reference_uid=phantom_uid("frame of reference", f"thigh-{seed}"))
    _write_truth(truth, geometry, truth_dir)
    inside = np.argwhere(truth["GTV"])
    ends = [geometry.points_lps_mm(k, [(i, j)])[0] for k, i, j in (inside.min(0), inside.max(0))]
    return Phantom(ct_dir, truth_dir, truth, geometry, np.array([ends[0] - 12.0, ends[1] + 12.0]))


def _write_truth(truth: dict[str, np.ndarray], geometry: Geometry, truth_dir: Path) -> None:
    truth_dir.mkdir(parents=True, exist_ok=True)
    for name, mask in truth.items():
        write_mask(mask, geometry, truth_dir / f"{name}.nii.gz")


def _smooth_noise(rng: np.random.Generator, shape, sigmas) -> np.ndarray:
    """Noise of mean 0 and standard deviation 1 with clumps of ``sigmas`` voxels, float32."""
    noise = gaussian_filter(rng.normal(size=shape).astype(np.float32), sigmas)
    return noise / noise.std()


def _blend(below_hu, above_hu, inside_mm, edge_mm: float = 0.5):
    """``below_hu`` replaced by ``above_hu`` where ``inside_mm`` (signed distance into it) is positive, with a
    soft edge."""
    share = 1 / (1 + np.exp(-np.clip(inside_mm / edge_mm, -30, 30)))
    return below_hu + (above_hu - below_hu) * share


def _tumour_depth_mm(points_lps_mm: np.ndarray) -> np.ndarray:
    """How deep each point lies in the sarcoma, about mm (negative: outside); lobes melt into one another."""
    depths = []
    for middle, half_axes in _LOBES_MM:
        scaled = (points_lps_mm - _TUMOUR_LPS_MM - middle) / half_axes
        depths.append((1 - np.sqrt((scaled**2).sum(-1))) * min(half_axes))
    return 2.5 * np.logaddexp.reduce(np.array(depths) / 2.5, axis=0)


def _thigh_slice(points, texture, clumps, muscles_mm) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """HU [row, column] of one slice without noise, and its truth masks."""
    tumour_mm = _tumour_depth_mm(points)
    lateral, posterior = points[..., 0] - _THIGH_AXIS_LPS_MM[0], points[..., 1] - _THIGH_AXIS_LPS_MM[1]
    superior = points[0, 0, 2]
    skin_mm = _skin_depth_mm(lateral, posterior, superior)
    other_thigh_mm = _skin_depth_mm(-(points[..., 0] + 84.0), posterior, superior)
    table_mm = 1.6 - np.abs(points[..., 1] - 106.0 + 0.0009 * (points[..., 0] - 60.0) ** 2)
    slice_hu = _blend(np.full(lateral.shape, -1000.0), 120.0, table_mm)
    for depth_mm in (other_thigh_mm, skin_mm):
        slice_hu = _blend(slice_hu, 30.0 + 10 * texture, depth_mm)
        slice_hu = _blend(slice_hu, -102.0 + 5 * texture, depth_mm - 1.8)
    fat_mm = 12.0 + 4.0 * np.sin(np.arctan2(posterior, lateral) * 2 + 0.7) + 2.0 * clumps
    slice_hu = _blend(slice_hu, 52.0 + 4 * texture, other_thigh_mm - 14.0)
    slice_hu = _blend(slice_hu, _muscle_hu(points, tumour_mm, texture, clumps, muscles_mm), skin_mm - fat_mm)
    for left, back, radius, hu, sheath in (
        (-38, -8, 4.2, 48, 10),
        (-42, 2, 5.0, 45, 0),
        (44, 40, 3.6, 32, 6.5),
    ):
        distance_mm = np.hypot(lateral - left - 0.04 * superior, posterior - back)
        slice_hu = _blend(slice_hu, -95.0, sheath - distance_mm) if sheath else slice_hu
        slice_hu = _blend(slice_hu, hu, radius - distance_mm)
    # A thin layer of fat lies between the tumour and part of its surroundings, then the tumour itself.
    slice_hu = _blend(slice_hu, -75.0, 0.6 - np.abs(tumour_mm + 1.4) + 1.3 * clumps, 0.6)
    nodules_hu = 30.0 + 5.0 * texture + 5.0 * clumps - 12.0 * (clumps > 1.2)
    slice_hu = _blend(slice_hu, nodules_hu, tumour_mm, 0.7)
    femur_mm = _femur_depth_mm(lateral, posterior, superior)
    slice_hu = _blend(slice_hu, 1250.0 + 40 * texture, femur_mm)
    slice_hu = _blend(slice_hu, -45.0 + 15 * texture, femur_mm - 4.6 - 0.5 * clumps)
    return slice_hu, {
        "GTV": (tumour_mm > 0) & (femur_mm <= 0),
        "Femur_L": femur_mm > 0,
        "Thigh_L": skin_mm > 0,
    }


def _skin_depth_mm(lateral, posterior, superior: float) -> np.ndarray:
    """Depth under the skin of a thigh that widens upwards and bulges at the back where the tumour lies."""
    angle = np.arctan2(posterior, lateral)
    radius_mm = 80.0 + 0.06 * superior + 3.0 * np.cos(2 * angle - 0.4) + 2.0 * np.cos(3 * angle + 1.0)
    bulge_mm = 6.0 * np.exp(-((angle - np.pi / 2) ** 2) / 0.5 - (superior / 45.0) ** 2)
    return radius_mm + bulge_mm - np.hypot(lateral, posterior * 1.04)


def _femur_depth_mm(lateral, posterior, superior: float) -> np.ndarray:
    """Depth in the femur: a tube of 14 mm with the linea aspera as a ridge at the back."""
    lateral, posterior = lateral - 8.0 - 0.05 * superior, posterior + 14.0
    angle = np.arctan2(posterior, lateral)
    return 14.0 + 2.5 * np.exp(-((angle - np.pi / 2) ** 2) / 0.12) - np.hypot(lateral, posterior)


def _muscle_hu(points, tumour_mm, texture, clumps, muscles_mm) -> np.ndarray:
    """HU of the muscle compartment: cells around the muscles' middles, bent around the tumour, fat in the
    seams."""
    offset = points - _TUMOUR_LPS_MM
    reach = np.sqrt((offset / (32.0, 28.0, 50.0)) ** 2 @ np.ones(3))
    squeeze = np.sqrt(np.clip(1 - 0.85 / np.maximum(reach, 1.0) ** 2, 0.0, 1.0))[..., None]
    source = (_TUMOUR_LPS_MM + offset * squeeze)[..., :2] - _THIGH_AXIS_LPS_MM
    twist = 0.12 * points[0, 0, 2] / 100.0
    source = source @ np.array([[np.cos(twist), np.sin(twist)], [-np.sin(twist), np.cos(twist)]])
    source = source + 2.0 * texture[..., None]
    # A power diagram: the seam between two muscles is where their weighted squared distances are equal.
    power = ((source[..., None, :] - muscles_mm[:, :2]) ** 2).sum(-1) - muscles_mm[:, 2] ** 2
    nearest = np.partition(power, 1, axis=-1)
    seam_mm = (nearest[..., 1] - nearest[..., 0]) / 60.0
    kind = np.argmin(power, axis=-1)
    muscle_hu = 52.0 + 3.0 * np.sin(kind * 2.4) + 3.0 * texture - 6.0 * np.exp(tumour_mm / 5.0).clip(0, 1)
    return _blend(muscle_hu, -85.0 + 10 * texture, 0.9 + 0.7 * clumps - seam_mm, 0.4)
