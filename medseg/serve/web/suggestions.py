"""Which bundles an image could go through, the likeliest first: by what their metadata says they take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medseg.bundles.find import Bundle, find_bundle, read_json
from medseg.bundles.kinds import DICOM_FORMATS, KINDS, case_kind, kind_of
from medseg.errors import InputError
from medseg.serve.web.site import the_site

BODY_PART_WORDS = {
    "HEADNECK": "head neck",
    "NECK": "head neck",
    "HEAD": "head neck",
    "BRAIN": "head brain",
    "CHEST": "chest lung thorax",
    "THORAX": "chest lung thorax",
    "LUNG": "chest lung",
    "ABDOMEN": "abdomen liver kidney",
    "PELVIS": "pelvis hip prostate",
    "HIP": "hip pelvis femur",
    "LEG": "soft tissue sarcoma thigh",
    "THIGH": "soft tissue sarcoma thigh",
    "EXTREMITY": "soft tissue sarcoma thigh",
    "EYE": "eye fundus retina photographs",
    "RETINA": "eye fundus retina photographs",
}
"""Words of a bundle's task that speak of a Body Part Examined (PS3.16 annex L); others stand for
themselves."""

KIND_OF_ENTRY = {"series": "volume", "volumes": "volume", "pictures": ""}


@dataclass(frozen=True)
class Offer:
    """A bundle that takes an image. ``task``: in words, from its metadata. ``settings``: those of its config
    that the page asks for. ``takes_points``: points inside the tumour may stand for a region. ``matches``:
    how many words of the body part its task has."""

    name: str
    title: str
    task: str
    version: str
    requires_region: bool
    settings: tuple[str, ...]
    several: tuple[str, ...]
    takes_points: bool
    kind: str
    has_weights: bool
    matches: int

    @property
    def is_suggested(self) -> bool:
        return self.matches > 0


ASKED_SETTINGS = ("ctv_margin_mm", "ptv_margin_mm", "side")
"""Of a bundle's config, where it has them. ``side``: L or R, of a radiograph that does not say its own."""


def listed_bundle(name: str) -> Bundle:
    """A bundle that the operator listed, by the name it is listed under. InputError for any other: a
    bundle is a program."""
    if name not in the_site().bundles:
        raise InputError("this site does not offer that bundle; choose one of those listed.")
    return find_bundle(name)


def offers_for(kind: str, entry: Mapping[str, Any]) -> list[Offer]:
    """What can be done with an entry of a study's contents (``kind``: "series", "volumes", "pictures")."""
    words = _words_of(entry)
    found = []
    for name in the_site().bundles:
        bundle = find_bundle(name)
        if takes(bundle, kind, entry):
            found.append(_offer(name, bundle, words))
    return sorted(found, key=lambda offer: (-offer.matches, not offer.has_weights, offer.name))


def takes(bundle: Bundle, kind: str, entry: Mapping[str, Any]) -> bool:
    """True when the bundle's metadata speak of images like this one."""
    case = case_kind(bundle)
    if kind in ("series", "volumes"):
        wanted = bundle.modalities["image"]
        return case == "volume" and (kind == "volumes" or not wanted or entry.get("modality") == wanted)
    if case == "volume":
        return False
    modality = entry.get("modality")
    return not modality or case == ("photograph" if modality in ("OP", "XC") else "radiograph")


def formats_for(bundle: Bundle, entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Every format that the bundle's result can be written in for this entry: DICOM objects of DICOM images
    alone, NIfTI of slices that make a plain box."""
    impossible = set() if "uid" in entry or entry["path"].endswith(".dcm") else set(DICOM_FORMATS)
    if not entry.get("regular", True):
        impossible.add("nifti")
    return tuple(name for name in kind_of(bundle).writers[case_kind(bundle)] if name not in impossible)


def _offer(name: str, bundle: Bundle, words: set[str]) -> Offer:
    config = read_json(bundle.folder / "configs" / "inference.json")
    said = bundle.metadata
    task = str(said.get("task", ""))
    own = _split(f"{task} {said.get('name', '')} {said.get('description', '')}")
    return Offer(
        name,
        str(said.get("name", bundle.name)),
        task,
        bundle.version,
        bool(said.get("requires_region")),
        tuple(key for key in ASKED_SETTINGS if key in config),
        tuple(bundle.modalities[key] for key in bundle.modalities if key != "image"),
        "clicks" in said,
        bundle.result_kind if bundle.result_kind in KINDS else "",
        bundle.has_weights,
        len(words & own),
    )


def _words_of(entry: Mapping[str, Any]) -> set[str]:
    body_part = str(entry.get("body_part", "")).upper().replace(" ", "")
    said = BODY_PART_WORDS.get(body_part, body_part)
    return _split(f"{said} {entry.get('description', '')}")


def _split(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]{3,}", text.lower()) if word not in _EMPTY}


_EMPTY = {"and", "the", "with", "for", "network", "contour", "image", "images", "series", "where", "there"}
