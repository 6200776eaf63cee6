"""What a network says about the whole image, and a result as a file for machines."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import MapTransform

from medseg.cases.radiograph import open_radiograph
from medseg.cases.results import Boxes, Labels
from medseg.errors import InputError
from medseg.files import atomic_path
from medseg.transforms.readers import REMARK_KEY, case_of
from medseg.transforms.saving import case_folder


class ToLabelsd(MapTransform):
    """The network's logits (C, 1…) to probabilities of named classes.

    ``names``: one per channel. ``exclusive``: softmax over the classes, else a sigmoid of each.
    ``image_key``: the image that the case is known by. Raises InputError for another number of logits.
    """

    def __init__(
        self, keys="pred", names: Sequence[str] = (), exclusive: bool = True, image_key: str = "image"
    ):
        super().__init__(keys)
        self.names = tuple(names)
        self.exclusive = exclusive
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            logits = torch.as_tensor(d[key]).float().flatten()
            if len(logits) != len(self.names):
                raise InputError(f"{len(logits)} logits for {len(self.names)} named classes.")
            chances = torch.softmax(logits, 0) if self.exclusive else torch.sigmoid(logits)
            meta = d[self.image_key].meta
            flat = d[self.image_key].ndim == 3
            case = open_radiograph(meta["filename_or_obj"]) if flat else case_of(meta)
            d["labels"] = Labels(
                case,
                dict(zip(self.names, chances.tolist(), strict=True)),
                remark=meta.get(REMARK_KEY, ""),
            )
        return d


class SaveRecordd(MapTransform):
    """Write boxes or labels as ``<key>.json`` into ``output_dir/<case name>/``: the numbers and their
    units."""

    def __init__(self, keys="labels", output_dir: str | Path = "."):
        super().__init__(keys)
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            result: Boxes | Labels = data[key]
            folder = case_folder(data.get("case_name") or Path(result.case.source).stem, self.output_dir)
            with atomic_path(folder / f"{key}.json") as temporary:
                temporary.write_text(json.dumps(result.record(), indent=1, allow_nan=False) + "\n")
        return dict(data)
