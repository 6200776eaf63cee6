"""Which ROI of a clinic's structure set is meant by a structure: regular expressions, the name itself,
TG-263.

The map ``{"GTV": ["gtv.*"], "Lung_L": []}`` gives each structure its patterns. They are tried in order, each
against the whole name and without regard to case; the first that fits any ROI decides. So an order is a
preference: of the ROIs "GTV" and "GTV old" the patterns ``["gtv", "gtv.*"]`` mean the first. After the
patterns come the structure's own name and then every spelling that TG-263 certainly understands as it ("LUNG
LEFT" for Lung_L).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.errors import InputError, StructureError
from medseg.files import load_json
from medseg.structures import tg263

Aliases = Mapping[str, Sequence[str]]
"""{structure: regular expressions of ROI names}"""


def check_aliases(aliases: object, where: str) -> dict[str, tuple[str, ...]]:
    """The map as it is used, checked: InputError, naming ``where``, for anything but {name: [regular
    expression, ...]}."""
    if not isinstance(aliases, Mapping) or not aliases:
        raise InputError(
            f'{where}: expected a map of structures like {{"GTV": ["gtv.*"]}}, found {str(aliases)[:60]!r}.'
        )
    checked = {}
    for structure, patterns in aliases.items():
        if isinstance(patterns, str) or not isinstance(patterns, Sequence):
            raise InputError(
                f"{where}: {structure} has {patterns!r}; expected a list of regular expressions, maybe empty."
            )
        for pattern in patterns:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise InputError(
                    f"{where}: {structure} has {pattern!r}, no regular expression ({error})."
                ) from error
        checked[str(structure)] = tuple(patterns)
    return checked


def load_aliases(path: str | Path) -> dict[str, tuple[str, ...]]:
    """:func:`check_aliases` of a JSON file; InputError for one that cannot be read."""
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file of structures ({error}).") from error
    return check_aliases(content, str(path))


def matching_rois(structure: str, patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The ROI names that are meant by a structure, as many as the first fitting rule fits; [] where none
    does."""
    for pattern in patterns:
        fitting = [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]
        if fitting:
            return fitting
    same = [name for name in names if name.casefold() == structure.casefold()]
    return same or [name for name in names if tg263.suggest(name) == structure]


def match_all_rois(aliases: Aliases, names: Sequence[str], where: str) -> dict[str, list[str]]:
    """{class: every ROI name that :func:`matching_rois` finds}, for findings that have an ROI each.
    StructureError, naming ``where``, when two classes mean one ROI."""
    matched: dict[str, list[str]] = {}
    for structure, patterns in aliases.items():
        fitting = matching_rois(structure, patterns, names)
        for other, rois in matched.items():
            both = [name for name in fitting if name in rois]
            if both:
                raise StructureError(
                    f"{where}: {both[0]!r} fits both {other} and {structure}; make the patterns narrower."
                )
        matched[structure] = fitting
    return matched


def match_rois(aliases: Aliases, names: Sequence[str], where: str) -> dict[str, str | None]:
    """{structure: the one ROI name that is meant, or None}.

    StructureError, naming ``where``, when several ROIs are meant by one structure, or one ROI by two
    structures.
    """
    matched: dict[str, str | None] = {}
    for structure, patterns in aliases.items():
        fitting = matching_rois(structure, patterns, names)
        if len(fitting) > 1:
            raise StructureError(
                f"{where}: {', '.join(map(repr, fitting))} could all be {structure}; put a pattern that fits "
                "only one of them first."
            )
        matched[structure] = fitting[0] if fitting else None
        twins = [other for other, name in matched.items() if fitting and name == fitting[0]]
        if len(twins) > 1:
            raise StructureError(
                f"{where}: {fitting[0]!r} fits both {twins[0]} and {twins[1]}; make the patterns narrower."
            )
    return matched
