"""Where a network looked, on the radiograph's own pixels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import nn

from medseg.cases.results import Boxes
from medseg.errors import InputError
from medseg.files import atomic_path
from medseg.inference.box_maps import METHODS as BOX_METHODS
from medseg.inference.box_maps import box_map
from medseg.inference.cams import eigen_cam, grad_cam
from medseg.shapes.boxes import boxes_of_map
from medseg.transforms.saving import case_folder

METHODS = ("grad_cam", "eigen_cam")


class ActivationMapd(MapTransform):
    """Put a map of where the network looked under ``map_key``: (1, row, column), 0 to 1, on the grid that the
    network saw; Invertd with ``orig_keys`` brings it back to the file's pixels.

    ``method``: "grad_cam", what speaks for a class, or "eigen_cam", what the layer tells apart most, whatever
    it is taken for. ``layer``: whose maps are drawn; None is ``network.maps``. ``class_number``, of grad_cam:
    counted from 0. InputError for another method.
    """

    def __init__(
        self,
        keys="image",
        network: nn.Module | None = None,
        class_number: int = 1,
        layer: str | None = None,
        map_key: str = "map",
        method: str = "grad_cam",
    ):
        super().__init__(keys)
        if method not in METHODS:
            raise InputError(f"map method {method!r}: expected {' or '.join(METHODS)}.")
        self.method = method
        self.network, self.class_number, self.map_key = network, class_number, map_key
        self.layer = network.maps if layer is None else layer

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        device = next(self.network.parameters()).device
        for key in self.key_iterator(d):
            image = torch.as_tensor(d[key])[None].to(device)
            if self.method == "grad_cam":
                found = grad_cam(self.network, image, self.layer, self.class_number)
            else:
                found = eigen_cam(self.network, image, self.layer)
            d[self.map_key] = MetaTensor(found[None].cpu(), meta=dict(d[key].meta))
        return d


class BoxMapsd(MapTransform):
    """Put under ``map_key`` where a detector looked, (methods x classes, row, column), 0 to 1, on the grid
    that it saw, and under ``<map_key>_names`` what each is; Invertd with ``orig_keys`` brings them back to
    the file's pixels.

    ``classes``: names by number. ``methods``: of :data:`medseg.inference.box_maps.METHODS`; InputError for
    another.
    """

    def __init__(
        self,
        keys="image",
        network: nn.Module | None = None,
        classes: Sequence[str] = (),
        methods: Sequence[str] = ("EigenCAM", "Grad-CAM", "Grad-CAM++"),
        map_key: str = "map",
    ):
        super().__init__(keys)
        unknown = [name for name in methods if name not in BOX_METHODS]
        if unknown:
            raise InputError(f"map {unknown[0]!r}: expected some of {', '.join(BOX_METHODS)}.")
        self.network, self.classes, self.methods, self.map_key = network, tuple(classes), methods, map_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        device = next(self.network.parameters()).device
        for key in self.key_iterator(d):
            image = torch.as_tensor(d[key])[None].to(device)
            found = {
                f"{method}: {name}": box_map(self.network, image, method, number)
                for number, name in enumerate(self.classes)
                for method in self.methods
            }
            d[self.map_key] = MetaTensor(torch.stack(list(found.values())), meta=dict(d[key].meta))
            d[f"{self.map_key}_names"] = tuple(found)
        return d


class MapToBoxesd(MapTransform):
    """Make boxes of a map on the film's pixels, (channels, row, column), for networks that answer with labels
    alone: :class:`medseg.cases.results.Boxes` under "boxes", which the writers of boxes take.

    ``names``: the class of each channel. ``share``: a box holds what reaches so much of the channel's
    greatest value. ``least_pixels``: smaller pieces are left out. ``result_key``: what names the film. A box
    says where the network looked, not that something is there, and its score is the map's, no probability.
    InputError for a share not in 0 to 1, another number of channels and a map of another size than the film.
    """

    def __init__(
        self,
        keys="map",
        names: Sequence[str] = (),
        share: float = 0.5,
        least_pixels: int = 16,
        result_key: str = "labels",
    ):
        super().__init__(keys)
        if not 0 < share <= 1:
            raise InputError(f"share {share}; expected more than 0, at most 1.")
        self.names, self.share, self.least, self.result_key = tuple(names), share, least_pixels, result_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        case = d[self.result_key].case
        for key in self.key_iterator(d):
            heat = torch.as_tensor(d[key]).clamp(0, 1).double().numpy()
            if heat.shape != (len(self.names), *case.shape):
                raise InputError(
                    f"map of {heat.shape} for {len(self.names)} classes on a film of {case.shape}; invert it "
                    "first."
                )
            found = [boxes_of_map(channel, self.share, self.least) for channel in heat]
            d["boxes"] = Boxes(
                case,
                np.concatenate([corners for corners, _ in found]),
                np.concatenate([scores for _, scores in found]),
                tuple(name for name, (own, _) in zip(self.names, found, strict=True) for _ in own),
                remark="Where the network looked; no finding.",
            )
        return d


class SaveLabelPictured(MapTransform):
    """Write ``preview.png`` into ``output_dir/<case name>/``: the film, the map over it where ``map_key`` has
    one, and what the labels say."""

    def __init__(self, keys="labels", output_dir: str | Path = ".", map_key: str = "map"):
        super().__init__(keys)
        self.output_dir, self.map_key = Path(output_dir), map_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from medseg.reports.labels import write_label_picture

        for key in self.key_iterator(dict(data)):
            result = data[key]
            name = data.get("case_name") or Path(result.case.source).stem
            heat = data.get(self.map_key)
            heat = None if heat is None else torch.as_tensor(heat)[0].numpy()
            write_label_picture(result, case_folder(name, self.output_dir) / "preview.png", heat, name)
        return dict(data)


class SaveActivationMapd(MapTransform):
    """Write the map under ``keys``, (1, row, column) of 0 to 1 on the film's pixels, as ``map.png`` of 8 bits
    of grey into ``output_dir/<case name>/``; InputError for a map of another size than the film's."""

    def __init__(self, keys="map", output_dir: str | Path = ".", result_key: str = "labels"):
        super().__init__(keys)
        self.output_dir, self.result_key = Path(output_dir), result_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from PIL import Image

        case = data[self.result_key].case
        name = data.get("case_name") or Path(case.source).stem
        for key in self.key_iterator(dict(data)):
            heat = torch.as_tensor(data[key])[0].clamp(0, 1)
            if tuple(heat.shape) != case.shape:
                raise InputError(
                    f"map of {tuple(heat.shape)} pixels on a film of {case.shape}; invert it first."
                )
            grey = (heat * 255).round().to(torch.uint8).numpy()
            with atomic_path(case_folder(name, self.output_dir) / "map.png") as temporary:
                Image.fromarray(grey).save(temporary, format="PNG")
        return dict(data)
