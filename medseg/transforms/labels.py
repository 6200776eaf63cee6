"""What a network says about the whole image, and a result as a file for machines."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import MapTransform

from medseg.cases.radiograph import open_radiograph
from medseg.cases.results import Boxes, Labels
from medseg.errors import BundleError, InputError
from medseg.files import atomic_path, load_json
from medseg.metrics.classification import venn_abers
from medseg.metrics.numbers import conformal_ends
from medseg.transforms.quantities import quantities_of
from medseg.transforms.readers import REMARK_KEY, case_of
from medseg.transforms.saving import case_folder


class ToClassd(MapTransform):
    """A class number, or its name, to float32 (C,), 1 at the class and 0 elsewhere; InputError for what is no
    class.

    ``classes``: how many; or their names, of which a label may be one.
    """

    def __init__(self, keys="label", classes: int | Sequence[str] = 2):
        super().__init__(keys)
        self.names = () if isinstance(classes, int) else tuple(classes)
        self.count = classes if isinstance(classes, int) else len(self.names)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            label = d[key]
            number = self.names.index(label) if label in self.names else label
            if isinstance(number, str) or number != int(number) or not 0 <= number < self.count:
                known = ", ".join(self.names) or f"0 to {self.count - 1}"
                raise InputError(f"{key} {label!r}: expected one of {known}.")
            d[key] = torch.zeros(self.count)
            d[key][int(number)] = 1.0
        return d


class ToLabelsd(MapTransform):
    """The network's logits (C, 1…) to probabilities of named classes.

    ``names``: one per channel. ``exclusive``: softmax over the classes, else a sigmoid of each.
    ``image_key``: the image that the case is known by. ``calibration``: a JSON file with ``temperature``,
    that logits are divided by, ``offset``, that is then added to the second of two
    (:func:`medseg.metrics.classification.fit_platt`), and the ``scores`` (before the offset) and ``truth`` of
    images that were not trained on, from which the interval of the second class is made
    (:func:`medseg.metrics.classification.venn_abers`). ``numbers``: of the channels behind the classes, see
    :func:`medseg.transforms.quantities.quantities_of`; how far the network was off on images that were
    not trained on, ``off`` of the calibration, moves a number by its median and makes the interval
    (:func:`medseg.metrics.numbers.conformal_ends`). ``remark``: what every answer has to say. Raises
    InputError for another number of channels.
    """

    def __init__(
        self,
        keys="pred",
        names: Sequence[str] = (),
        exclusive: bool = True,
        image_key: str = "image",
        calibration: str | Path | None = None,
        remark: str = "",
        numbers: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        super().__init__(keys)
        self.quantities = quantities_of(numbers or {})
        self.names = tuple(names)
        self.exclusive = exclusive
        self.image_key = image_key
        self.calibration = None if calibration is None else read_calibration(calibration)
        self.remark = remark

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            channels = torch.as_tensor(d[key]).float().flatten()
            if len(channels) != len(self.names) + len(self.quantities):
                raise InputError(
                    f"{len(channels)} channels for {len(self.names)} named classes and "
                    f"{len(self.quantities)} numbers."
                )
            logits, intervals = channels[: len(self.names)], {}
            values, of_numbers = self._numbers(channels[len(self.names) :].tolist())
            if self.calibration is not None:
                logits = logits / self.calibration.temperature
                score = float(logits[1] - logits[0])
                low, high = venn_abers(self.calibration.scores, self.calibration.truth, score)
                intervals = {self.names[1]: (low, high)}
                logits[1] += self.calibration.offset
            chances = torch.softmax(logits, 0) if self.exclusive else torch.sigmoid(logits)
            meta = d[self.image_key].meta
            flat = d[self.image_key].ndim == 3
            case = open_radiograph(meta["filename_or_obj"]) if flat else case_of(meta)
            d["labels"] = Labels(
                case,
                dict(zip(self.names, chances.tolist(), strict=True)),
                values,
                intervals=intervals | of_numbers,
                remark=" ".join(filter(None, (meta.get(REMARK_KEY, ""), self.remark))),
            )
        return d

    def _numbers(
        self, learned: list[float]
    ) -> tuple[dict[str, tuple[float, str]], dict[str, tuple[float, float]]]:
        """(values, their intervals) of what the network said of the numbers."""
        values: dict[str, tuple[float, str]] = {}
        intervals = {}
        for (field, quantity), number in zip(self.quantities.items(), learned, strict=True):
            off = np.zeros(1) if self.calibration is None else self.calibration.off.get(field, np.zeros(1))
            values |= quantity.values(number - float(np.median(off)))
            least, most = conformal_ends(off)
            if np.isfinite(most):
                low, high = quantity.values(number - most), quantity.values(number - least)
                intervals |= {name: (low[name][0], high[name][0]) for name in low}
        return values, intervals


class Calibration(NamedTuple):
    """``temperature``, above 0; ``offset`` of the second class; ``scores``, logit differences (N,) at that
    temperature without the offset; ``truth``, bool (N,); ``off``: {field of a number: what the network said
    less the truth, standardised (N,)}."""

    temperature: float
    offset: float
    scores: np.ndarray
    truth: np.ndarray
    off: dict[str, np.ndarray]


def read_calibration(path: str | Path) -> Calibration:
    """BundleError for a file that does not hold what :class:`ToLabelsd` says."""
    try:
        content = load_json(path)
        temperature, scores = float(content["temperature"]), np.array(content["scores"], float)
        truth = np.array(content["truth"], int)
        off = {field: np.array(numbers, float) for field, numbers in content.get("off", {}).items()}
        offset = float(content.get("offset", 0.0))
        sound = np.isfinite(offset) and all(
            numbers.ndim == 1 and len(numbers) and np.isfinite(numbers).all() for numbers in off.values()
        )
        sound = (
            sound and temperature > 0 and scores.ndim == 1 and scores.shape == truth.shape and len(scores) > 1
        )
        sound = sound and bool(np.isfinite(scores).all()) and set(truth.tolist()) == {0, 1}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: no calibration ({type(error).__name__}: {error}).") from error
    if not sound:
        raise BundleError(
            f"{path}: expected a temperature above 0, as many finite scores as truths, of 0 and of 1, and "
            "finite numbers under off."
        )
    return Calibration(temperature, offset, scores, truth == 1, off)


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
