"""An nnU-Net model, or several that follow one another, from an image to one label map on its voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from medseg.errors import InputError
from medseg.inference.engines import engine_for, engine_name
from medseg.inference.nnunet_labels import keep_largest, labels_of
from medseg.inference.nnunet_stage import Stage, prepare
from medseg.inference.nnunet_windows import Folds, merged_planes
from medseg.networks.stages import Stages


class NnunetInferer(Inferer):
    """Run the stages of an nnU-Net model as nnU-Net's own ``nnUNetv2_predict`` does: the same preprocessing,
    windows, mirror images, mean of folds and resampling back, with the same label map as result.

    ``stages``: one dict per stage with the fields of :class:`medseg.inference.nnunet_stage.Stage`; the
    network is a :class:`medseg.networks.Stages` with as many. ``engine``: see
    :func:`medseg.inference.engines.engine_name`. Memory: the logits of as many planes as a patch is deep, for
    every fold, and label maps.

    Input: a MetaTensor (1, channels, x, y, z) as it was read, not normalised; its affine says how large a
    voxel is. Output: MetaTensor (1, 1, x, y, z), uint8 or uint16 labels, 0 for nothing. Where several stages
    have a result, the later one has the last word. InputError for an image of another number of channels, a
    network of other stages and a plain tensor, whose voxels have no size.
    """

    def __init__(self, stages: Sequence[Mapping[str, Any]], engine: str = "auto", progress: bool = False):
        engine_name(engine, "cpu")
        self.stages = [Stage.of(values) for values in stages]
        if not any(stage.result for stage in self.stages):
            raise InputError("no stage of the model gives a result.")
        for number, stage in enumerate(self.stages):
            earlier = (stage.previous, None if stage.around is None else stage.around["stage"])
            if any(other is not None and not 0 <= other < number for other in earlier):
                raise InputError(f"stage {number} takes labels of a stage that does not come before it.")
        self.engine, self.progress = engine, progress

    def __call__(self, inputs: torch.Tensor, network: Stages) -> torch.Tensor:
        if not isinstance(inputs, MetaTensor):
            raise InputError("a plain tensor has no voxel size; expected an image as a reader gives it.")
        if inputs.ndim != 5 or len(inputs) != 1:
            raise InputError(f"image {tuple(inputs.shape)}; expected one volume (1, channels, x, y, z).")
        if len(network.stages) != len(self.stages):
            raise InputError(f"{len(network.stages)} networks for {len(self.stages)} stages.")
        volume = inputs.as_tensor()[0].permute(0, 3, 2, 1).cpu().numpy()
        affine = np.asarray(inputs.affine[0] if inputs.affine.ndim == 3 else inputs.affine)
        # Rounded, or 22.5 voxels would become 22 or 23 by the last bit of an affine.
        spacing_mm = np.round(np.linalg.norm(affine[:3, :3], axis=0)[::-1], 9)
        answers: list[np.ndarray] = []
        with torch.no_grad():
            for stage, folds in zip(self.stages, network.stages, strict=True):
                answers.append(self._one(volume, spacing_mm, (stage, folds), answers, inputs.device))
        labels = torch.from_numpy(np.ascontiguousarray(self._merged(answers).transpose(2, 1, 0)))[None, None]
        return MetaTensor(labels).copy_meta_from(inputs)

    def _one(
        self, volume: np.ndarray, spacing_mm: np.ndarray, what: tuple, answers: list[np.ndarray], device: Any
    ) -> np.ndarray:
        """The labels of one stage on the image's grid [slice, row, column]."""
        stage, folds = what
        box = (slice(None),) * 3 if stage.around is None else _around(answers, stage, spacing_mm)
        if box is None:  # what it should look around is not there
            return np.zeros(volume.shape[1:], np.uint8)
        earlier = None if stage.previous is None else answers[stage.previous][box]
        prepared = prepare(volume[(slice(None), *box)], spacing_mm, stage, earlier)
        image = torch.from_numpy(np.ascontiguousarray(prepared.image)).to(device)
        engines = [engine_for(self.engine, fold, device) for fold in folds]
        planes = merged_planes(image, Folds(engines, stage), self._bar())
        labels = labels_of(planes, tuple(image.shape[1:]), prepared, stage)
        restored = prepared.restored(keep_largest(labels, stage.keep_largest), stage)
        if stage.around is None:
            return restored
        whole = np.zeros(volume.shape[1:], dtype=restored.dtype)
        whole[box] = restored
        return whole

    def _merged(self, answers: Sequence[np.ndarray]) -> np.ndarray:
        """One label map of all stages that give a result."""
        merged: np.ndarray | None = None
        for stage, labels in zip(self.stages, answers, strict=True):
            if not stage.result:
                continue
            if stage.merge is not None:
                table = np.zeros(max(map(int, stage.merge)) + 1, dtype=np.uint16)
                for own, label in stage.merge.items():
                    table[int(own)] = label
                table = table.astype(np.uint8) if table.max() < 255 else table
                labels = table[np.minimum(labels, len(table) - 1) * (labels < len(table))]
            merged = labels if merged is None else np.where(labels > 0, labels, merged)
        assert merged is not None
        return merged

    def _bar(self):
        """What counts the windows of a stage on standard error."""
        from tqdm import tqdm

        bars: list[Any] = []

        def count(total: int) -> None:
            if total:
                bars.append(tqdm(total=total, desc="network", unit="window", disable=not self.progress))
            else:
                bars[-1].update()
                if bars[-1].n == bars[-1].total:
                    bars[-1].close()

        return count


def _around(answers: Sequence[np.ndarray], stage: Stage, spacing_mm: np.ndarray) -> tuple[slice, ...] | None:
    """The box of the labels that a stage looks around, with its margin; None where they are not."""
    assert stage.around is not None
    found = np.isin(answers[stage.around["stage"]], list(stage.around["labels"]))
    if not found.any():
        return None
    box = []
    for axis, mm in enumerate(spacing_mm):
        used = np.flatnonzero(found.any(axis=tuple(other for other in range(3) if other != axis)))
        wide = int(np.ceil(stage.around["margin_mm"] / mm))
        box.append(slice(max(int(used[0]) - wide, 0), min(int(used[-1]) + 1 + wide, found.shape[axis])))
    return tuple(box)
