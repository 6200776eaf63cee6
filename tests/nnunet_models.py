"""Tiny nnU-Net model folders with random weights, and nnU-Net's own predictor as their referee."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

NETWORK = "dynamic_network_architectures.architectures.unet."
LABELS = {"background": 0, "Heart": 1, "Lung_Left": 2, "Lung_Right": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}

INTENSITIES = {"mean": 10.0, "std": 90.0, "percentile_00_5": -180.0, "percentile_99_5": 240.0}


def architecture(dimensions: int, residual: bool = False) -> dict[str, Any]:
    """A network of two stages, as nnU-Net's plans describe one."""
    conv, norm = f"torch.nn.modules.conv.Conv{dimensions}d", f"InstanceNorm{dimensions}d"
    encoder = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    return {
        "network_class_name": NETWORK + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "conv_op": conv,
            "kernel_sizes": [[3] * dimensions] * 2,
            "strides": [[1] * dimensions, [2] * dimensions],
            encoder: [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.{norm}",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(
    spacing_mm: Sequence[float], patch: Sequence[int], schemes: Sequence[str], residual: bool = False
) -> dict[str, Any]:
    """One configuration of plans.json."""
    how = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [32, 32, 32],
        "spacing": list(spacing_mm),
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [scheme == "ZScoreNormalization" for scheme in schemes],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**how, "order": 3},
        "resampling_fn_seg_kwargs": {**how, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**how, "order": 1},
        "architecture": architecture(len(patch), residual),
        "batch_dice": False,
    }


def plans_of(configurations: dict[str, dict], transpose: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """The content of plans.json."""
    channels = len(next(iter(configurations.values()))["normalization_schemes"])
    return {
        "dataset_name": "Dataset900_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.0, 1.0],
        "original_median_shape_after_transp": [32, 32, 32],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [int(n) for n in np.argsort(transpose)],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): INTENSITIES for n in range(channels)},
    }


def dataset_of(labels: dict[str, Any], channels: Sequence[str] = ("CT",)) -> dict[str, Any]:
    """The content of dataset.json."""
    regions = {"regions_class_order": [1, 2, 3]} if any(isinstance(v, list) for v in labels.values()) else {}
    return {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": labels,
        **regions,
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "licence": "CC-BY-4.0",
    }


def write_model(
    parent: Path,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    name: str = "3d_fullres",
    folds: Sequence[int | str] = (0,),
    mirror: Sequence[int] | None = (0, 1, 2),
) -> Path:
    """``parent``/nnUNetTrainer__nnUNetPlans__``name`` with random weights in every fold's checkpoint."""
    folder = parent / f"nnUNetTrainer__nnUNetPlans__{name}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for number, fold in enumerate(folds):
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        network = network_of(plans, dataset, name, seed=number)
        torch.save(
            checkpoint_of(network, name, fold, mirror), folder / f"fold_{fold}" / "checkpoint_final.pth"
        )
    return folder


def network_of(plans: dict, dataset: dict, name: str, seed: int = 0) -> torch.nn.Module:
    """The network of one configuration, its weights drawn so that labels differ from place to place."""
    from dynamic_network_architectures.architectures import unet

    wanted = plans["configurations"][name]["architecture"]
    kwargs = dict(wanted["arch_kwargs"])
    for key in wanted["_kw_requires_import"]:
        kwargs[key] = getattr(torch.nn, kwargs[key].rpartition(".")[2]) if kwargs[key] else None
    labels = [value for key, value in dataset["labels"].items() if key != "ignore"]
    heads = len(labels) - 1 if any(isinstance(value, list) for value in labels) else len(labels)
    channels = len(dataset["channel_names"])
    if plans["configurations"][name].get("previous_stage"):
        channels += len(labels) - 1
    torch.manual_seed(seed)
    network = getattr(unet, wanted["network_class_name"].rpartition(".")[2])(
        input_channels=channels, num_classes=heads, deep_supervision=False, **kwargs
    )
    for at, parameter in network.named_parameters():
        if parameter.ndim > 1 or at.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.05)
        if parameter.ndim > 1 and "seg_layers" in at:
            # So that labels follow what differs from place to place, and none wins everywhere.
            parameter.data -= parameter.data.mean(dim=1, keepdim=True)
    return network.eval()


def checkpoint_of(network: torch.nn.Module, name: str, fold: int | str, mirror) -> dict[str, Any]:
    """What nnUNetTrainer writes, numpy scalars among it."""
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": np.float64(0.01)}]},
        "grad_scaler_state": None,
        "logging": {"ema_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(1.0)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"configuration": name, "fold": fold, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None if mirror is None else tuple(mirror),
    }


def predicted_by_nnunet(
    folder: Path,
    channels: np.ndarray,
    spacing_zyx_mm: Sequence[float],
    folds: Sequence[int | str] = (0,),
    previous: np.ndarray | None = None,
    mirror: bool = True,
) -> np.ndarray:
    """The label map [slice, row, column] of nnU-Net's own predictor. ``channels``: float32 (C, slice, row,
    column); ``previous``: labels of the cascade's first stage."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), tuple(folds), "checkpoint_final.pth")
        return predictor.predict_single_npy_array(
            channels.astype(np.float32),
            {"spacing": list(spacing_zyx_mm)},
            None if previous is None else previous[None].astype(np.float32),
        )
