"""Which DICOM series the channels of an imported model are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medseg.errors import InputError

MODALITIES = {
    "adc": "MR",
    "ct": "CT",
    "dwi": "MR",
    "flair": "MR",
    "mr": "MR",
    "mri": "MR",
    "pet": "PT",
    "pt": "PT",
    "suv": "PT",
    "swi": "MR",
    "t1": "MR",
    "t1c": "MR",
    "t1ce": "MR",
    "t1gd": "MR",
    "t1n": "MR",
    "t1w": "MR",
    "t2": "MR",
    "t2f": "MR",
    "t2w": "MR",
}
"""DICOM modality of a channel by a word of its name."""


def series_words(names: Sequence[str], modalities: Sequence[str] = ()) -> dict[str, str]:
    """{item key: modality} of a bundle's metadata.json; the first key is "image", on whose voxels results
    lie.

    Channels of one modality are told apart by their names, as in "MR:T1". ``modalities``: CT, MR or PT of
    each channel in order, where their names do not say it. InputError then.
    """
    if modalities and len(modalities) != len(names):
        raise InputError(f"`modalities`: {len(modalities)} for {len(names)} channels: {', '.join(names)}.")
    unknown = [word for word in modalities if word not in MODALITIES.values()]
    if unknown:
        raise InputError(f"`modalities`: {unknown[0]!r}; expected CT, MR or PT of each channel.")
    found = list(modalities) or [_modality(name) for name in names]
    if "" in found:
        raise InputError(
            f"channel {names[found.index('')]!r} of {', '.join(names)}: its name is no modality; say what "
            "all channels are, in order: `modalities=CT`, or MR,MR."
        )
    words = {}
    for number, (name, modality) in enumerate(zip(names, found, strict=True)):
        plain = re.sub(r"\W+", "_", name).strip("_") or str(number)
        word = f"{modality}:{plain.upper()}" if found.count(modality) > 1 else modality
        words["image" if number == 0 else plain.lower()] = word
    if len(words) < len(names) or len(set(words.values())) < len(names):
        raise InputError(f"channels {', '.join(names)}: two have one name.")
    return words


def _modality(name: str) -> str:
    for word in re.findall(r"[a-z]+\d?[a-z]*", name.lower()):
        if word in MODALITIES:
            return MODALITIES[word]
    return ""
