"""``medseg bundles import totalsegmentator``: the models of one of its tasks as one bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundles.find import Bundle
from medseg.bundles.importers.names import read_names, structures_of
from medseg.bundles.importers.nnunet import licence_of, networks_of, require_networks
from medseg.bundles.importers.plain import malformed
from medseg.bundles.importers.plans import Model, read_model, stage_of
from medseg.bundles.importers.totalsegmentator_names import AROUND_MM, LICENSED, TASKS, TOTAL
from medseg.bundles.importers.writing import Imported, write_bundle
from medseg.errors import BundleError, InputError

REMARKS = (
    "No mirror images and one fold, as TotalSegmentator runs them.",
    "Images are resampled by nnU-Net's plans, and logits back to the image; TotalSegmentator resamples image "
    "and labels itself, so that its borders differ from these by up to a voxel of the model.",
)
VERTEBRAE = "VB is a vertebral body in TG-263; these labels are whole vertebrae."


@dataclass(frozen=True)
class TotalSegmentatorRequest:
    """What to import. ``weights``: the folder that holds Dataset291_…, as TotalSegmentator keeps it.
    ``task``: a key of TASKS. ``resolution``: of the task's models, None for its finest. ``names``: as for
    nnU-Net, instead of the names of TOTAL."""

    weights: Path
    output: Path
    task: str = "total"
    resolution: str | None = None
    names: Path | None = None


def import_totalsegmentator(request: TotalSegmentatorRequest) -> Bundle:
    """Write the bundle; returns it. InputError for a task or resolution that there is not; BundleError for
    weights that are not there or whose labels are not those that TotalSegmentator documents."""
    require_networks()
    numbers = _data_sets(request)
    if request.output.exists():
        raise InputError(f"{request.output}: exists already; name a new folder.")
    with malformed(request.weights, "models as nnU-Net v2 writes them"):
        return _import(request, numbers)


def _import(request: TotalSegmentatorRequest, numbers: Sequence[int]) -> Bundle:
    task, models = TASKS[request.task], [_model(request.weights, number) for number in numbers]
    rough = _rough(request.weights) if task.around else []
    labels, stages = _result(request.task, models)
    for stage in stages:
        stage |= (
            {"around": {"stage": 0, "labels": [_number(label) for label in task.around]}} if rough else {}
        )
        if rough:
            stage["around"]["margin_mm"] = AROUND_MM
    first = [{**stage_of(model), "mirror_axes": [], "result": False} for model in rough]
    given = read_names(request.names) if request.names else _own_names(labels)
    return write_bundle(
        Imported(
            title=f"TotalSegmentator, task {request.task}",
            source=f"TotalSegmentator weights, task {request.task}, data sets {', '.join(map(str, numbers))}",
            stages=[*first, *stages],
            networks=[networks_of(model) for model in (*rough, *models)],
            structures=structures_of(labels, given, str(request.names or "names")),
            series={"image": "CT"},
            axcodes="RAS",
            files=[path for model in (*rough, *models) for path in model.files()],
            licence=_licence(models),
            remarks=(*REMARKS, VERTEBRAE) if "vertebrae_L1" in labels else REMARKS,
        ),
        request.output,
    )


def _data_sets(request: TotalSegmentatorRequest) -> tuple[int, ...]:
    """The numbers of the data sets whose models the task takes."""
    if request.task in LICENSED:
        raise InputError(
            f"task {request.task}: its weights need a licence of TotalSegmentator's authors "
            "(totalsegmentator.com); medseg imports the free tasks: " + ", ".join(TASKS) + "."
        )
    if request.task not in TASKS:
        raise InputError(f"task {request.task!r}: expected one of {', '.join(TASKS)}.")
    models = TASKS[request.task].models
    resolution = request.resolution or next(iter(models))
    if resolution not in models:
        raise InputError(f"task {request.task} at {resolution!r}: expected one of {', '.join(models)}.")
    return models[resolution]


def _folder(weights: Path, number: int) -> Path | None:
    found = sorted(path for path in weights.glob(f"Dataset{number:03d}_*") if path.is_dir())
    return found[0] if found else None


def _model(weights: Path, number: int) -> Model:
    folder = _folder(weights, number)
    if folder is None:
        there = ", ".join(sorted(path.name for path in weights.glob("Dataset*"))) or "none"
        raise BundleError(
            f"{weights}: no Dataset{number:03d}_…; data sets there: {there}. Let TotalSegmentator fetch the "
            "weights, or unpack them there; medseg downloads none."
        )
    return read_model(folder, folds=("0",))


def _rough(weights: Path) -> list[Model]:
    """The model that finds where to look."""
    numbers = [TASKS["total"].models[resolution][0] for resolution in ("6mm", "3mm")]
    number = next((number for number in numbers if _folder(weights, number)), numbers[0])
    model = _model(weights, number)
    _require_order(model, list(TOTAL))
    return [model]


def _number(label: str) -> int:
    return list(TOTAL).index(label) + 1


def _result(task: str, models: Sequence[Model]) -> tuple[dict[str, tuple[int, ...]], list[dict[str, Any]]]:
    """({label: its numbers in the result}, the stages that give it)."""
    stages: list[dict[str, Any]] = [{**stage_of(model), "mirror_axes": []} for model in models]
    if task != "total":
        return models[0].labels, stages
    seen: dict[str, str] = {}
    for stage, model in zip(stages, models, strict=True):
        _require_order(model, list(TOTAL))
        twice = [label for label in model.labels if label in seen]
        if twice:
            raise BundleError(f"{model.folder}: label {twice[0]!r} is also one of {seen[twice[0]]}.")
        seen |= dict.fromkeys(model.labels, str(model.folder))
        stage["merge"] = {str(own): _number(label) for label, (own,) in model.labels.items()}
    missing = [label for label in TOTAL if label not in seen]
    if missing:
        raise BundleError(
            f"{models[0].folder.parents[1]}: no model has {missing[0]} (and {len(missing) - 1} more of the "
            f"{len(TOTAL)} labels of task total)."
        )
    return {label: (_number(label),) for label in TOTAL}, stages


def _require_order(model: Model, documented: Sequence[str]) -> None:
    """BundleError for labels that are unknown, or numbered in another order than the documented: left and
    right would be exchanged, say."""
    numbers = {number: label for label, (number, *_) in model.labels.items()}
    labels = [numbers[number] for number in sorted(numbers)]
    unknown = [label for label in labels if label not in documented]
    if unknown:
        raise BundleError(f"{model.folder}: dataset.json: label {unknown[0]!r} is none that is documented.")
    expected = sorted(labels, key=list(documented).index)
    for found, wanted in zip(labels, expected, strict=True):
        if found != wanted:
            raise BundleError(
                f"{model.folder}: dataset.json numbers {found!r} where TotalSegmentator documents "
                f"{wanted!r}; sides or organs would be exchanged. Unpack the weights anew."
            )


def _own_names(labels: dict[str, tuple[int, ...]]) -> dict[str, dict[str, str]]:
    return {label: {"name": TOTAL[label]} for label in labels if label in TOTAL}


def _licence(models: Sequence[Model]) -> str:
    stated = list(dict.fromkeys(licence_of(model) for model in models))
    return "; ".join(stated)
