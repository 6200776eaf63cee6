"""Score a bundle through the door a user takes: contour cases, read the written files back, compare with the
truth.

The truth is the label of a datalist (a bit field as NIfTI or PNG, as the bundle was trained on), or an ROI of
the structure set beside a DICOM series. What is judged is what ``medseg segment`` wrote: the RT Structure
Set, the NIfTI or the PNG masks, on the image's own grid.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.find import Bundle, read_json
from medseg.bundles.kinds import case_kind
from medseg.bundles.score_request import ScoreRequest, answer, answer_cases, cases_of, used_bundle
from medseg.bundles.trust import trusted_bundle
from medseg.cases.find import folder_name
from medseg.cases.nifti import load_image
from medseg.cases.pictures import read_bit_field
from medseg.errors import BundleError, InputError, MedsegWarning
from medseg.geometry import Geometry
from medseg.metrics import dice, surface_distances, volume_cc

Scores = dict[str, float]


@dataclass(frozen=True)
class Scored:
    """{case: {structure: {score: value}}}; nan where a case has no truth of a structure, inf where nothing of
    it was contoured. ``patients``: whose each case is. ``failed``: {case: reason} of what could not be
    contoured. ``pooled``: {structure: figures of all photographs together}."""

    unit: str
    columns: tuple[str, ...]
    cases: dict[str, dict[str, Scores]]
    patients: dict[str, str]
    failed: dict[str, str]
    pooled: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """How many cases were scored."""
        return len(self.cases)


def score_structures(request: ScoreRequest, report: Callable[[str], None] = print) -> Scored:
    """Contour and score; see ScoreRequest. ``report`` gets a line for every case that could not be contoured.

    Raises InputError and BundleError for what concerns the whole run, and InputError when no case could be
    scored.
    """
    bundle = trusted_bundle(request.bundle, request.trust_bundle)
    with tempfile.TemporaryDirectory() as folder:
        used = used_bundle(bundle, request, Path(folder))
        score = _score_patients if request.truth else _score_datalist
        scored = score(used, request)
    for case, reason in scored.failed.items():
        report(f"{case}: {reason}")
    if not scored.cases:
        raise InputError(f"{request.data}: no case of it could be scored.")
    return scored


# ---- the truth is a label of a datalist --------------------------------------------------------------------


def _score_datalist(bundle: Bundle, request: ScoreRequest) -> Scored:
    configs = bundle.folder / "configs"
    bits = read_json(configs / "train.json").get("bits")
    if not isinstance(bits, Mapping):
        raise BundleError(
            f"bundle {bundle.name}: train.json names no `bits` of a label, so its datalist cannot be scored; "
            "name the ROI that is the truth: `truth`."
        )
    cases = cases_of(request.datalist or configs / "datalist.json", request)
    for name, label in ((case["case_id"], case["label"]) for case in cases):
        if not isinstance(label, str):
            raise InputError(f"the label of {name!r} is {label}; expected a file.")
        if folder_name(name) != name:
            raise InputError(f"the case_id {name!r} cannot name a folder; expected letters, digits, - and _.")
    if case_kind(bundle) == "photograph":
        return _score_photographs(bundle, request, cases, bits)
    on_slices = case_kind(bundle) == "volume"
    unit, compare, kind = ("mm", _volume_scores, "nifti") if on_slices else ("px", _flat_scores, "png")
    records = answer_cases(bundle, request, cases, ".nii.gz" if on_slices else ".png", (kind, "preview"))
    scores, failed = {}, {}
    for case in cases:
        record = records[case["case_id"]]
        if record["status"] == "failed":
            failed[case["case_id"]] = record["error"]
            continue
        scores[case["case_id"]] = {
            name: compare(case, name, numbers, Path(record["folder"]), request)
            for name, numbers in bits.items()
        }
    patients = {case["case_id"]: str(case.get("patient_id", case["case_id"])) for case in cases}
    return Scored(unit, _columns(request.tolerances, unit), scores, patients, failed)


def _score_photographs(
    bundle: Bundle, request: ScoreRequest, cases: list[dict], bits: Mapping[str, list[int]]
) -> Scored:
    """Photographs: also figures of all pixels pooled, a sheet of all images and a reliability plot."""
    from medseg.bundles import score_photographs as photographs
    from medseg.reports.curves import write_reliability
    from medseg.reports.photograph_sheet import Tile, write_sheet

    records = answer_cases(bundle, request, cases, None, ("png", "probability", "preview"))
    others = read_json(bundle.folder / "configs" / "train.json").get("look_alikes", {})
    alike = {name: sum(1 << n for n in numbers) for name, numbers in others.items()}
    done = [case for case in cases if records[case["case_id"]]["status"] != "failed"]
    scores: dict[str, dict[str, Scores]] = {case["case_id"]: {} for case in done}
    pooled = {}
    for name, numbers in bits.items():
        found, tiles = [], []
        for case in done:
            folder = Path(records[case["case_id"]]["folder"])
            own = sum(1 << n for n in numbers), alike
            score, levels, truth = photographs.read_score(case, name, folder, request.data, own)
            row = scores[case["case_id"]][name] = photographs.row_of(score)
            found.append(score)
            image = request.data / case["image"]
            words = f"{case['case_id']}  {photographs.tile_words(row)}"
            tiles.append(Tile(image, truth, levels >= 32768, words, row["AUPR"]))
        if found:
            pooled[name] = photographs.pooled_scores(found)
            write_sheet(tiles, request.output_dir / f"{name}_sheet.png")
            points = photographs.reliability_points(found)
            out = request.output_dir / f"{name}_reliability.png"
            write_reliability(points, out, share="share of pixels in lesions")
    patients = {case["case_id"]: str(case.get("patient_id", case["case_id"])) for case in cases}
    failed = {name: record["error"] for name, record in records.items() if record["status"] == "failed"}
    return Scored("px", photographs.COLUMNS, scores, patients, failed, pooled)


def _columns(tolerances: tuple[float, ...], unit: str) -> tuple[str, ...]:
    return ("DSC", *(f"sDSC {tolerance:g} {unit}" for tolerance in tolerances), f"HD95 {unit}")


def _volume_scores(
    case: Mapping[str, Any], name: str, numbers: list[int], folder: Path, request: ScoreRequest
) -> Scores:
    image, label = load_image(str(request.data / case["label"]))
    truth = ((label.astype(np.int64) & sum(1 << n for n in numbers)) != 0).transpose(2, 1, 0)
    geometry = Geometry.from_ras_affine(image.affine, label.shape)
    found_image, found = load_image(str(folder / f"{name}.nii.gz"))
    geometry.require_same(
        Geometry.from_ras_affine(found_image.affine, found.shape), f"{name} of {case['case_id']}"
    )
    mask = (found > 0).transpose(2, 1, 0)
    present = name in case.get("present", (name,))
    scores = _agreement(truth, mask, geometry, request.tolerances) if present else {}
    row = dict.fromkeys(_columns(request.tolerances, "mm"), float("nan")) | scores
    return {**row, "true": volume_cc(truth, geometry), "contoured": volume_cc(mask, geometry)}


def _agreement(
    truth: np.ndarray, mask: np.ndarray, geometry: Geometry, tolerances: tuple[float, ...]
) -> Scores:
    distances = surface_distances(truth, mask, geometry)
    values = (dice(truth, mask, geometry), *map(distances.dice, tolerances), distances.hausdorff_mm(95.0))
    return dict(zip(_columns(tolerances, "mm"), map(float, values), strict=True))


def _flat_scores(
    case: Mapping[str, Any], name: str, numbers: list[int], folder: Path, request: ScoreRequest
) -> Scores:
    """Scores in pixels: radiographs of a datalist have no spacing. What was not found has the image's
    diagonal as its distance."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice
    from PIL import Image

    mask = np.asarray(Image.open(folder / f"{name}.png")) > 0
    bit_field = read_bit_field(request.data / case["label"], mask.shape)
    truth = (bit_field & sum(1 << n for n in numbers)) != 0
    row = dict.fromkeys(_columns(request.tolerances, "px"), float("nan"))
    row |= {"true": float(truth.sum()), "contoured": float(mask.sum())}
    if name not in case.get("present", (name,)):
        return row
    surfaces, hd95 = [0.0] * len(request.tolerances), float(np.hypot(*truth.shape))
    if mask.any():
        a, b = (torch.from_numpy(array.astype(np.float32))[None, None] for array in (mask, truth))
        surfaces = [
            float(compute_surface_dice(a, b, [tolerance], include_background=True))
            for tolerance in request.tolerances
        ]
        hd95 = float(compute_hausdorff_distance(a, b, include_background=True, percentile=95))
    values = (dice(truth, mask), *surfaces, hd95)
    return row | dict(zip(_columns(request.tolerances, "px"), map(float, values), strict=True))


# ---- the truth is an ROI of a structure set ----------------------------------------------------------------


def _score_patients(bundle: Bundle, request: ScoreRequest) -> Scored:
    rng = np.random.default_rng(request.seed)
    columns = _columns(request.tolerances, "mm")
    columns += ("ellipsoid DSC",) if request.region_margins_mm else ()
    scores, failed = {}, {}
    folders = sorted(folder for folder in request.data.glob("*") if folder.is_dir())
    for folder in folders:
        try:
            with warnings.catch_warnings():  # what is odd about a set that is read, medseg inspect says
                warnings.simplefilter("ignore", MedsegWarning)
                scores[folder.name] = _patient_scores(bundle, folder, request, rng)
        except (InputError, BundleError) as error:
            failed[folder.name] = str(error)
    patients = {folder.name: folder.name for folder in folders}
    return Scored("mm", columns, scores, patients, failed)


def _patient_scores(
    bundle: Bundle, folder: Path, request: ScoreRequest, rng: np.random.Generator
) -> dict[str, Scores]:
    """{structure: scores} of one patient's folder."""
    from medseg.dicom import find_series, read_rtstruct, read_series

    structure_sets = find_series(folder).structure_sets
    if len(structure_sets) != 1:
        raise InputError(f"{folder}: {len(structure_sets)} structure sets; expected one with the truth.")
    series = read_series(folder)
    truths = read_rtstruct(structure_sets[0], series)
    unknown = [roi for roi in request.truth.values() if roi not in truths]
    if unknown:
        raise InputError(f"{structure_sets[0]}: no ROI {unknown[0]!r}; it has {', '.join(truths)}.")
    geometry = series.geometry
    first = truths[next(iter(request.truth.values()))]
    box = region_box(first, geometry, request.region_margins_mm, rng) if request.region_margins_mm else None
    within = None if box is None else ",".join(f"{value:.1f}" for value in box.T.ravel())
    out = request.output_dir / folder.name
    (record,) = answer(bundle, folder, out, ("rtstruct", "preview"), request, {"within": within}).values()
    if record["status"] == "failed":
        raise InputError(record["error"])
    found = read_rtstruct(Path(record["folder"]) / "RS.dcm", series)
    rows = {}
    for structure, roi in request.truth.items():
        if structure not in found:
            raise InputError(f"{bundle.name} contours no {structure!r}; it contours {', '.join(found)}.")
        row = _agreement(truths[roi], found[structure], geometry, request.tolerances)
        if box is not None:
            guess = ellipsoid(box, float(np.mean(request.region_margins_mm)), geometry)
            row["ellipsoid DSC"] = float(dice(truths[roi], guess))
        row |= {"true": volume_cc(truths[roi], geometry), "contoured": volume_cc(found[structure], geometry)}
        rows[structure] = row
    return rows


def region_box(
    truth: np.ndarray, geometry: Geometry, margins_mm: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """A box (2, 3) in LPS mm: the truth's bounding box, each of its six sides moved out by its own margin."""
    slices = np.flatnonzero(truth.any((1, 2)))
    points = np.concatenate([geometry.points_lps_mm(k, np.argwhere(truth[k])) for k in slices])
    outwards = rng.uniform(*margins_mm, size=(2, 3))
    return np.array([points.min(0) - outwards[0], points.max(0) + outwards[1]])


def ellipsoid(box_lps_mm: np.ndarray, margin_mm: float, geometry: Geometry) -> np.ndarray:
    """bool [slice, row, column]: the ellipsoid that fills the box less ``margin_mm`` on every side: what no
    network at all would answer."""
    centre = box_lps_mm.mean(0)
    half_mm = np.maximum((box_lps_mm[1] - box_lps_mm[0]) / 2 - margin_mm, 1.0)
    grid = np.meshgrid(*(np.arange(n) for n in geometry.shape[1:]), indexing="ij")
    pairs = np.stack(grid, axis=-1).reshape(-1, 2)
    planes = [
        (((geometry.points_lps_mm(k, pairs) - centre) / half_mm) ** 2).sum(1) <= 1
        for k in range(geometry.shape[0])
    ]
    return np.array(planes).reshape(geometry.shape)
