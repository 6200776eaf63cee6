"""Names of structures after AAPM TG-263 (Mayo et al., IJROBP 100(4):1057, 2018): check a name, suggest, never
rename.

A short list of common organs at risk is kept here with its SNOMED CT codes (from the context groups of DICOM
PS3.16); names outside the list are judged by their form alone. A suggestion is made only when every part of
the name is understood, because a wrong suggestion is worse than none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LENGTH = 16


@dataclass(frozen=True)
class Organ:
    """One row of the list. ``plural`` names the pair of a sided organ ("" when it is not paired); ``aliases``
    are other spellings in small letters without separators; ``code`` is a SNOMED CT value with its meaning,
    or None."""

    plural: str
    code: tuple[str, str] | None
    aliases: tuple[str, ...] = ()


ORGANS: dict[str, Organ] = {
    "A_Aorta": Organ("", ("15825003", "Aorta"), ("aorta",)),
    "A_Pulmonary": Organ("", ("81040000", "Pulmonary artery"), ("pulmonaryartery",)),
    "Anus": Organ("", ("53505006", "Anus")),
    "Atrium": Organ("", None),
    "Bag_Bowel": Organ("", None, ("bowelbag",)),
    "Bladder": Organ("", ("89837001", "Bladder"), ("urinarybladder",)),
    "Bone_Mandible": Organ("", ("91609006", "Mandible"), ("mandible",)),
    "Body": Organ("", None),
    "BoneMarrow": Organ("", ("14016003", "Bone Marrow")),
    "Bowel": Organ("", None),
    "Bowel_Large": Organ("", ("14742008", "Large intestine"), ("largebowel",)),
    "Bowel_Small": Organ("", ("30315005", "Small intestine"), ("smallbowel",)),
    "BrachialPlex": Organ(
        "BrachialPlexs", ("36582005", "Brachial plexus"), ("brachialplexus", "brachplexus")
    ),
    "Brain": Organ("", ("12738006", "Brain")),
    "Brainstem": Organ("", ("119238007", "Brain Stem")),
    "Breast": Organ("Breasts", ("76752008", "Breast")),
    "Bronchus": Organ("", ("955009", "Bronchus")),
    "Canal_Anal": Organ("", None, ("analcanal",)),
    "Carina": Organ("", ("28700002", "Carina")),
    "CaudaEquina": Organ("", None),
    "Cavity_Oral": Organ("", ("74262004", "Oral cavity"), ("oralcavity",)),
    "Cerebellum": Organ("", ("113305005", "Cerebellum")),
    "Chestwall": Organ("", ("78904004", "Chest wall")),
    "Cochlea": Organ("", None),
    "Colon": Organ("", ("71854001", "Colon")),
    "Colon_Sigmoid": Organ("", ("60184004", "Sigmoid colon"), ("sigmoid", "sigmoidcolon")),
    "Cornea": Organ("", ("28726007", "Cornea")),
    "Duodenum": Organ("", ("38848004", "Duodenum")),
    "Esophagus": Organ("", ("32849002", "Esophagus"), ("oesophagus",)),
    "External": Organ("", None),
    "Eye": Organ("Eyes", ("81745001", "Eye")),
    "Femur": Organ("Femurs", ("71341001", "Femur")),
    "Femur_Head": Organ("", ("2812003", "Head of Femur"), ("femoralhead", "femhead", "headoffemur")),
    "Gallbladder": Organ("", ("28231008", "Gallbladder")),
    "Glnd_Adrenal": Organ("", ("23451007", "Adrenal gland"), ("adrenal", "adrenalgland")),
    "Glnd_Lacrimal": Organ("", ("13561001", "Lacrimal gland"), ("lacrimalgland",)),
    "Glnd_Submand": Organ(
        "Glnd_Submands",
        ("54019009", "Submandibular gland"),
        ("submandibulargland", "submandibular", "submndsalv"),
    ),
    "Glnd_Thyroid": Organ("", ("69748006", "Thyroid"), ("thyroid", "thyroidgland")),
    "Glottis": Organ("", ("1307006", "Glottis")),
    "Heart": Organ("", ("80891009", "Heart")),
    "Hippocampus": Organ("Hippocampi", ("5366008", "Hippocampus")),
    "Humerus": Organ("", ("85050009", "Humerus")),
    "Joint_TM": Organ("", ("53620006", "Temporomandibular joint"), ("tmj", "temporomandibularjoint")),
    "Kidney": Organ("Kidneys", ("64033007", "Kidney")),
    "Larynx": Organ("", ("4596009", "Larynx")),
    "Lens": Organ("", ("78076003", "Lens")),
    "Lips": Organ("", ("48477009", "Lip")),
    "Liver": Organ("", ("10200004", "Liver")),
    "Lobe_Temporal": Organ("", ("78277001", "Temporal lobe"), ("temporallobe",)),
    "Lung": Organ("Lungs", ("39607008", "Lung")),
    "Mediastinum": Organ("", None),
    "Musc_Constrict_I": Organ("", None, ("pharconinf",)),
    "Musc_Constrict_M": Organ("", None, ("pharconmid",)),
    "Musc_Constrict_S": Organ("", None, ("pharconsup",)),
    "OpticChiasm": Organ("", ("244453006", "Optic chiasm"), ("chiasm", "chiasma", "opticchiasma")),
    "OpticNrv": Organ("", ("18234004", "Optic nerve"), ("opticnerve",)),
    "Ovary": Organ("Ovaries", ("15497006", "Ovary")),
    "Pancreas": Organ("", ("15776009", "Pancreas")),
    "Parotid": Organ("Parotids", ("45289007", "Parotid gland"), ("parotidgland",)),
    "PenileBulb": Organ("", None, ("bulbofpenis",)),
    "Pericardium": Organ("", ("76848001", "Pericardium")),
    "Pharynx": Organ("", ("54066008", "Pharynx")),
    "Pituitary": Organ("", ("56329008", "Pituitary"), ("pituitarygland",)),
    "Prostate": Organ("", ("41216001", "Prostate")),
    "Rectum": Organ("", ("34402009", "Rectum")),
    "Retina": Organ("Retinas", ("5665001", "Retina")),
    "Sacrum": Organ("", ("54735007", "Sacrum")),
    "SeminalVes": Organ("", ("64739004", "Seminal Vesicle"), ("seminalvesicles",)),
    "Skin": Organ("", ("39937001", "Skin")),
    "SpinalCanal": Organ("", ("61853006", "Spinal canal"), ("vertebralcanal",)),
    "SpinalCord": Organ("", ("2748008", "Spinal cord"), ("cord", "myelon", "spinlcrd")),
    "Spleen": Organ("", ("78961009", "Spleen")),
    "Stomach": Organ("", ("69695003", "Stomach")),
    "Tongue": Organ("", ("21974007", "Tongue")),
    "Trachea": Organ("", ("44567001", "Trachea")),
    "Urethra": Organ("", ("13648007", "Urethra")),
    "Uterus": Organ("", ("35039007", "Uterus")),
    "V_Venacava_I": Organ("", ("64131007", "Inferior vena cava"), ("inferiorvenacava", "ivc")),
    "V_Venacava_S": Organ("", ("48345005", "Superior vena cava"), ("superiorvenacava", "svc")),
}

NO_SIDE = frozenset(
    "Anus Bladder Body Bone_Mandible BoneMarrow Brain Brainstem Canal_Anal Carina CaudaEquina Cavity_Oral "
    "Duodenum Esophagus External Gallbladder Glnd_Thyroid Glottis Heart Larynx Lips Liver Mediastinum "
    "OpticChiasm Pancreas PenileBulb Pericardium Pharynx Pituitary Prostate Rectum Sacrum SpinalCanal "
    "SpinalCord Spleen Stomach Trachea Urethra Uterus".split()
)
"""Organs of the list that are single, so that a side in their name means something else."""

MUST_HAVE_SIDE = frozenset(name for name, organ in ORGANS.items() if organ.plural) | {"Femur_Head"}
"""Paired organs whose plain name TG-263 does not know: it wants _L, _R or the plural."""

TARGET = re.compile(
    r"(?P<kind>I?GTV|I?CTV|ITV|PTV)(?P<edited>!)?(?P<group>n|p|sb|par|vas|v)?(?P<number>\d)?"
    r"(?P<image>(_(CT|PT|MR|SP)\d)+)?(?P<organ>_[A-Z][A-Za-z]+(_[LR])?)?"
    r"(?P<dose>_(High|Low|Mid(\d\d)?|\d{4}|\d+([.p]\d+)?Gy))?(?P<fractions>x\d\d)?(?P<crop>-\d\d)?"
)
"""A target name in the order that TG-263 lays down."""

_TARGET_START = re.compile(r"[zZ]?_?(I?GTV|I?CTV|ITV|PTV)(?![a-z]{3})", re.IGNORECASE)
_TYPES = {"GTV": "GTV", "IGTV": "GTV", "CTV": "CTV", "ICTV": "CTV", "ITV": "CTV", "PTV": "PTV"}
_WHOLE_BODY = {"body", "external", "bodyexternal", "externalbody", "outercontour"}
_SIDES = {"l": "L", "lt": "L", "left": "L", "r": "R", "rt": "R", "right": "R"}
_PRV = re.compile(r"(?P<organ>.+?)_PRV(?P<margin>\d*)(?P<side>_[LR])?")
_FORM = re.compile(r"[A-Za-z][A-Za-z0-9]*~?(_[A-Za-z0-9]+~?)*(-[A-Za-z0-9]+(_[A-Za-z0-9.]+)*)?")
_ALIASES = {
    spelling: name
    for name, organ in ORGANS.items()
    for spelling in (name.replace("_", "").lower(), *organ.aliases)
}
_PLURALS = {organ.plural.replace("_", "").lower(): organ.plural for organ in ORGANS.values() if organ.plural}


@dataclass(frozen=True)
class NameCheck:
    """What TG-263 has against a name: ``problems`` in words (empty: none found); a certain ``suggestion``, or
    None."""

    name: str
    problems: tuple[str, ...]
    suggestion: str | None


def check_name(name: str) -> NameCheck:
    """Check one structure name against TG-263. An unknown but well-formed name has no problem; no name is
    changed."""
    problems = []
    if len(name) > MAX_LENGTH:
        problems.append(f"{len(name)} characters; at most {MAX_LENGTH}")
    if re.search(r"\s", name):
        problems.append("contains a space; parts are joined by _")
    checked = name.split("^", 1)[0]
    if not (_is_helper(name) or TARGET.fullmatch(checked)):
        problems += _form_problems(checked)
    suggestion = suggest(name) if problems else None
    return NameCheck(name, tuple(problems), suggestion)


def _form_problems(name: str) -> list[str]:
    plain = re.sub(r"\s", "_", name)
    if _TARGET_START.match(plain):
        return [
            "a target is named kind, class, digit, _image, _organ, _dose: for example GTVp1, CTV_6000, "
            "PTV_High"
        ]
    prv = _PRV.fullmatch(plain)
    if prv:
        margin, side = prv["margin"], prv["side"] or ""
        room = len(f"{prv['organ']}_PRV00{side}") <= MAX_LENGTH
        if len(margin) > 2 or (len(margin) == 1 and room):
            return ["the margin of a PRV is written with two digits in mm: _PRV05"]
        return _form_problems(prv["organ"] + side)
    if not _FORM.fullmatch(plain):
        return [
            "has characters other than letters, digits and _ (~ partly drawn, - subtraction, ^ before free "
            "text)"
        ]
    whole, dash, _ = plain.replace("~", "").partition("-")
    organ, side = _organ_and_side(whole)
    if organ is None:
        return []
    if whole != organ + (f"_{side}" if side else ""):
        return ["not spelled as in TG-263"]
    if organ in MUST_HAVE_SIDE and not side and not dash:
        return ["a paired organ needs its side last (_L, _R) or the plural"]
    return []


def suggest(name: str) -> str | None:
    """The TG-263 name that this name certainly means, or None: every part must be understood, nothing is
    dropped."""
    if _is_helper(name) or "^" in name or "~" in name or _TARGET_START.match(name):
        return None
    head, dash, target = name.partition("-")
    if dash and target not in _TYPES:
        head, dash, target = name.replace("-", "_"), "", ""
    margin = re.fullmatch(r"(?P<head>.+?)[ _]?PRV[ _]?(?P<mm>\d{0,2})(?P<side>[ _].+)?", head, re.IGNORECASE)
    if margin:
        head = margin["head"] + (margin["side"] or "")
    organ, side = _organ_and_side(head)
    if organ is None or (organ in MUST_HAVE_SIDE and not side):
        return None
    suggestion = organ
    if margin:
        suggestion += f"_PRV{margin['mm'].zfill(2)}" if margin["mm"] else "_PRV"
        if len(suggestion) + (2 if side else 0) > MAX_LENGTH and margin["mm"]:
            suggestion = f"{organ}_PRV{int(margin['mm'])}"
    suggestion += (f"_{side}" if side else "") + dash + target
    return suggestion if suggestion != name and len(suggestion) <= MAX_LENGTH else None


def _is_helper(name: str) -> bool:
    """True for a structure that TG-263 marks as not for dose evaluation: it starts with z or with an
    underscore."""
    return bool(re.match(r"_|z(?=[_A-Z])", name))


def _organ_and_side(name: str) -> tuple[str | None, str]:
    """(TG-263 organ or plural, "L" / "R" / ""), or (None, "") unless every word of the name is understood."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|\S", name.replace("_", " "))
    words = [word.lower() for word in words]
    joined = "".join(words)
    if joined in _PLURALS:
        return _PLURALS[joined], ""
    if joined in _ALIASES:
        return _ALIASES[joined], ""
    for position in (-1, 0):
        if len(words) > 1 and words[position] in _SIDES:
            rest = "".join(words[:-1] if position else words[1:])
            organ = _ALIASES.get(rest)
            if organ is not None and organ not in NO_SIDE:
                return organ, _SIDES[words[position]]
    return None, ""


def organ_code(name: str) -> tuple[tuple[str, str] | None, str]:
    """((SNOMED CT value, meaning) or None, side "L" / "R" / "") of an organ's name in any spelling that is
    understood.

    A part, margin or difference (``Lung~_L``, ``SpinalCord_PRV05``, ``Lungs-GTV``) is not the organ and has
    no code.
    """
    organ, side = _organ_and_side(name)
    singular = next((base for base, row in ORGANS.items() if row.plural and row.plural == organ), organ)
    return (ORGANS[singular].code, side) if singular in ORGANS else (None, "")


def interpreted_type(name: str) -> str:
    """RT ROI Interpreted Type of a name: GTV, CTV, PTV, EXTERNAL, BOLUS, SUPPORT, CONTROL, and ORGAN for all
    others.

    DICOM has no term for an ITV, which is a CTV with its motion: it is typed CTV. Helper structures (z...,
    _...) are CONTROL.
    """
    if _is_helper(name):
        return "CONTROL"
    target = _TARGET_START.match(name)
    if target:
        return _TYPES[target[1].upper()]
    letters = re.sub(r"[^a-z]", "", name.lower())
    if letters in _WHOLE_BODY:
        return "EXTERNAL"
    if letters.startswith("bolus"):
        return "BOLUS"
    return "SUPPORT" if letters.startswith("couch") else "ORGAN"
