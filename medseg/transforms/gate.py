"""The gate of a bundle: is this an image that the network can know anything about?

A network contours whatever it is shown. ``configs/gate.json`` holds, as plain numbers, what a bundle learned
from; :class:`CheckInputd` stands in its ``inference.json`` behind reader and region, so every door passes it.
docs/reference/gates.md lists what each bundle accepts of many images.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.cases.photograph import open_photograph
from medseg.cases.radiograph import open_radiograph
from medseg.cases.volume import ALLOWABLE_AT_THE_GATE
from medseg.errors import BundleError, InputError, MedsegWarning
from medseg.transforms.film_faults import RULES, film_faults
from medseg.transforms.likeness import LOOKS, axes_to_ras, coarse_ct, distances, small_film
from medseg.transforms.posture import posture_fault
from medseg.transforms.readers import CASE_KIND_KEY, REMARK_KEY, case_of
from medseg.transforms.sides import side_told

BODY_PARTS = {
    "head": "HEAD SKULL BRAIN FACE JAW MAXILLA MANDIBLE ORBIT SINUS EAR IAC SELLA TMJ HEADNECK",
    "neck": "NECK CSPINE CERVICALSPINE THYROID LARYNX HEADNECK",
    "chest": "CHEST THORAX LUNG HEART BREAST MEDIASTINUM STERNUM RIB TSPINE CHESTABDOMEN CHESTABDPELVIS",
    "abdomen": "ABDOMEN LIVER PANCREAS KIDNEY LSPINE ABDOMENPELVIS CHESTABDOMEN CHESTABDPELVIS",
    "pelvis": "PELVIS PROSTATE BLADDER SSPINE HIP ABDOMENPELVIS CHESTABDPELVIS",
    "eye": "EYE RETINA FUNDUS",
    "limb": "EXTREMITY ARM LEG THIGH KNEE ANKLE FOOT CALF HIP SHOULDER ELBOW WRIST HAND FEMUR HUMERUS",
}
"""Words of BodyPartExamined (DICOM PS3.16 Annex L, letters only) by part of the body. A word that is not here
says nothing: clinics write their own."""

DISTINCT_VALUES_LOOKED_AT = 2_000_000


@dataclass(frozen=True)
class Band:
    """A share that the values of a sound image keep to: ``hu`` (from, below) among those in ``of_hu``."""

    what: str
    hu: tuple[float, float]
    of_hu: tuple[float, float]
    share: tuple[float, float]

    def fault(self, values_hu: np.ndarray) -> str | None:
        """What is wrong with the share of these values in the band; None when it is kept to."""
        among = (values_hu >= self.of_hu[0]) & (values_hu < self.of_hu[1])
        inside = among & (values_hu >= self.hu[0]) & (values_hu < self.hu[1])
        share = inside.sum() / max(int(among.sum()), 1)
        if self.share[0] <= share <= self.share[1]:
            return None
        return (
            f"its values, {values_hu.min():g} to {values_hu.max():g}, are no Hounsfield units of a patient: "
            f"{100 * share:.2g} % {self.what}, expected {100 * self.share[0]:g} to {100 * self.share[1]:g} %"
        )


@dataclass(frozen=True)
class Gate:
    """What ``configs/gate.json`` says. ``learned_from``: in words.

    ``modalities`` and ``body_parts`` (keys of BODY_PARTS) are compared with tags that are there. Of a CT:
    ``fewest_values`` different ones, ``bands`` of HU, ``shortest_mm`` and ``longest_mm`` of the image or
    region to right, anterior and superior. ``look``, ``mean``, ``covariance``, ``limit`` and ``template``:
    see :mod:`medseg.transforms.likeness`. Of a radiograph: ``film_rules``, {rule: limit}, see
    :mod:`medseg.transforms.film_faults`; ``left_template`` and ``least_posture_margin`` where it is of one
    side, see :mod:`medseg.transforms.posture`. ``fitted``: on what, by which command, for the reader.
    """

    learned_from: str
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    look: str
    mean: np.ndarray
    covariance: np.ndarray
    limit: float
    fitted: Mapping[str, Any]
    template: np.ndarray | None = None
    fewest_values: int = 0
    bands: tuple[Band, ...] = ()
    shortest_mm: tuple[float, ...] = (0.0, 0.0, 0.0)
    longest_mm: tuple[float, ...] = (np.inf, np.inf, np.inf)
    film_rules: Mapping[str, float] = field(default_factory=dict)
    left_template: np.ndarray | None = None
    least_posture_margin: float = -np.inf


def read_gate(path: str | Path) -> Gate:
    """The gate in a file; BundleError when it is missing, incomplete or does not fit together."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        unknown = set(content) - {own.name for own in fields(Gate)}
        if unknown:
            raise ValueError(f"it has no field {sorted(unknown)[0]}")
        bands = tuple(
            Band(**{key: tuple(value) if isinstance(value, list) else value for key, value in band.items()})
            for band in content.pop("bands", ())
        )
        arrays = {
            key: np.array(content.pop(key), dtype=float)
            for key in ("mean", "covariance", "template", "left_template")
            if content.get(key) is not None
        }
        gate = Gate(**content, **arrays, bands=bands)
        count = len(LOOKS[gate.look].names)
        if gate.mean.shape != (count,) or gate.covariance.shape != (count, count):
            raise ValueError(f"look {gate.look} has {count} numbers, mean and covariance have others")
        if np.linalg.eigvalsh(gate.covariance)[0] <= 0 or not 0 < gate.limit < np.inf:
            raise ValueError("covariance or limit is not positive")
        unknown = [part for part in gate.body_parts if part not in BODY_PARTS]
        odd = [name for name in gate.film_rules if name not in RULES]
        if odd:
            raise ValueError(f"rule {odd[0]}; expected some of {', '.join(RULES)}")
        if unknown:
            raise ValueError(f"body part {unknown[0]}; expected some of {', '.join(BODY_PARTS)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: not a bundle's gate ({type(error).__name__}: {error}).") from error
    return gate


class CheckInputd(MapTransform):
    """Refuse an image that is unlike those the bundle learned from. Stands behind reader and region.

    ``gate``: the bundle's gate.json. The file's own values must be sound, size and look those of what the
    network will be shown, cropped or not. InputError says, in one line, what was seen and
    expected; with ``out_of_distribution`` among ``allow`` it is a MedsegWarning instead, and the image
    carries the words to every file that is written. The image itself stays as it is. ``side``: L or R of a
    film of one side, instead of ``item["side"]`` or what the file says; where nobody says it, only turned
    films are found out.
    """

    def __init__(self, keys, gate: str | Path, allow: Sequence[str] = (), side: str | None = None):
        super().__init__(keys)
        self.side = side
        self.gate = read_gate(gate)
        others = [name for name in allow if name not in ALLOWABLE_AT_THE_GATE]
        if others and self.gate.look in ("film", "fundus"):
            raise InputError(
                f"fault {', '.join(map(repr, others))}: a single picture has none of these; expected "
                f"{', '.join(ALLOWABLE_AT_THE_GATE)}."
            )
        self.allowed = any(name in ALLOWABLE_AT_THE_GATE for name in allow)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            faults = self.faults(d[key], self.side or d.get("side"))
            if not faults:
                continue
            words = f"unlike the {self.gate.learned_from} that this bundle learned from: {'; '.join(faults)}"
            if not self.allowed:
                raise InputError(
                    f"{d[key].meta['filename_or_obj']}: {words}. To contour it all the same, with a warning "
                    f"in every file that has a place for it: `allow=out_of_distribution`."
                )
            remark = f"Accepted out_of_distribution: the image is {words}."
            warnings.warn(remark, MedsegWarning, stacklevel=2)
            d[key] = d[key].clone()
            d[key].meta[REMARK_KEY] = remark
        return d

    def faults(self, image: MetaTensor, side: str | None = None) -> list[str]:
        """What is unlike, a clause each; the look is left out where values or size are wrong already."""
        if image.meta.get(CASE_KIND_KEY) == "photograph":
            header = getattr(open_photograph(image.meta["filename_or_obj"]).stored, "header", None)
            return self._tags(header) + self._look(image.as_tensor(), None)
        if image.ndim == 3:
            header = getattr(open_radiograph(image.meta["filename_or_obj"]).stored, "header", None)
            film = image.as_tensor()[0]
            faults = self._tags(header) + film_faults(film.numpy(), self.gate.film_rules)
            look = self._look(film, self.gate.template)
            return faults + (look or self._posture(film, side_told(image, side)))
        case = case_of(image.meta)
        tags = self._tags(None if case.series is None else case.series.headers[0])
        found = self._values(case.volume)
        affine = np.asarray(image.affine)
        sides_mm = [n * float(mm) for n, mm in zip(image.shape[1:], image.pixdim, strict=True)]
        found += self._sizes([sides_mm[axis] for axis in axes_to_ras(affine)[0]])
        return tags + (found or self._look(*coarse_ct(image.as_tensor()[0], affine)))

    def _tags(self, header) -> list[str]:
        """Of what a DICOM header states; a picture, a NIfTI file and a tag that is missing say nothing."""
        if header is None:
            return []
        found = []
        modality = str(header.get("Modality") or "")
        if modality and modality not in self.gate.modalities:
            found.append(f"modality {modality}, expected {' or '.join(self.gate.modalities)}")
        tag = str(header.get("BodyPartExamined") or "")
        word = "".join(letter for letter in tag.upper() if letter.isalpha())
        parts = [part for part, words in BODY_PARTS.items() if word in words.split()]
        if parts and not set(parts) & set(self.gate.body_parts):
            found.append(f"BodyPartExamined {tag}, expected {' or '.join(self.gate.body_parts)}")
        return found

    def _values(self, volume: np.ndarray) -> list[str]:
        """Whether the whole image holds Hounsfield units of a patient."""
        step = max(volume.size // DISTINCT_VALUES_LOOKED_AT, 1)
        values = volume.reshape(-1)[::step]
        distinct = np.unique(values)
        if len(distinct) < self.gate.fewest_values:
            kind = "a label map" if (distinct == np.rint(distinct)).all() else "no CT"
            return [
                f"only {len(distinct)} different values, {distinct[0]:g} to {distinct[-1]:g} ({kind}?), "
                f"expected Hounsfield units, {self.gate.fewest_values} values or more"
            ]
        return [fault for fault in (band.fault(values) for band in self.gate.bands) if fault][:1]

    def _sizes(self, sides_mm: Sequence[float]) -> list[str]:
        found = []
        names = ("from left to right", "from back to front", "from feet to head")
        limits = zip(sides_mm, self.gate.shortest_mm, self.gate.longest_mm, names, strict=True)
        for side, shortest, longest, direction in limits:
            if side < shortest:
                found.append(f"{side:.0f} mm {direction}, expected {shortest:g} mm or more")
            if side > longest:
                found.append(
                    f"{side:.0f} mm {direction}, expected {longest:g} mm or less (cut it with `within`)"
                )
        return found[:1]

    def _posture(self, film, side: str | None) -> list[str]:
        """Whether the film lies as it is said to; of what does not look like one nothing is said."""
        if self.gate.left_template is None:
            return []
        side = side if side in ("L", "R") else None
        return posture_fault(small_film(film), self.gate.left_template, self.gate.least_posture_margin, side)

    def _look(self, image, beside) -> list[str]:
        """Whether the image looks like the training images; the arguments are those of the look's numbers."""
        look = LOOKS[self.gate.look]
        rows = look.numbers(image, beside)
        far = distances(rows, self.gate.mean, self.gate.covariance)
        if len(far) and far.min() <= self.gate.limit:
            return []
        if not len(far):
            return [f"nothing in it that could be a {self.gate.look}"]
        spreads = (rows[far.argmin()] - self.gate.mean) / np.sqrt(np.diag(self.gate.covariance))
        worst = int(np.abs(spreads).argmax())
        direction = "above" if spreads[worst] > 0 else "below"
        return [
            f"it looks different (distance {far.min():.1f}, expected {self.gate.limit:g} or less), most of "
            f"all in {look.names[worst]}: {abs(spreads[worst]):.1f} standard deviations {direction} the usual"
        ]
