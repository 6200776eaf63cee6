"""One label out of those of several annotators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medseg.errors import InputError


def majority(masks: Sequence[np.ndarray]) -> np.ndarray:
    """bool: where more than half of the masks are inside. A tie of an even number is outside."""
    return 2 * np.sum(masks, axis=0, dtype=np.int32) > len(masks)


def staple(masks: Sequence[np.ndarray]) -> np.ndarray:
    """bool: where the probability by STAPLE (Warfield et al. 2004, as SimpleITK has it) is at least 0.5.

    Each annotator is weighed by how well they agree with the consensus. Masks that are all empty, and masks
    that are all the same, come back as they are: there is nothing to estimate.
    """
    import SimpleITK

    first = np.asarray(masks[0], dtype=bool)
    if all(np.array_equal(first, mask) for mask in masks):
        return first.copy()
    images = [SimpleITK.GetImageFromArray(np.ascontiguousarray(mask, dtype=np.uint8)) for mask in masks]
    probability = SimpleITK.GetArrayFromImage(SimpleITK.STAPLE(images, 1.0))
    return probability >= 0.5


FUSIONS = {"majority": majority, "staple": staple}


def fuse(labels: Sequence[Mapping[str, np.ndarray]], method: str) -> dict[str, np.ndarray]:
    """{structure: bool} of {structure: bool} of several annotators, all on one grid.

    A structure counts by those who drew it: who left it out of their names says nothing of it. InputError
    for an unknown method and without a label.
    """
    if method not in FUSIONS:
        raise InputError(f"fusion {method!r}: expected one of {', '.join(FUSIONS)}.")
    if not labels:
        raise InputError("there is no label to fuse.")
    names = dict.fromkeys(name for label in labels for name in label)
    return {name: FUSIONS[method]([label[name] for label in labels if name in label]) for name in names}
