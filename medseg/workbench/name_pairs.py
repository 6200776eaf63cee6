"""Which structure of one set is meant by which of another: by name, by what the caller says, never left for
right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from medseg.errors import InputError, StructureError
from medseg.structures.tg263 import organ_code


def pair_names(
    names: Sequence[str], other_names: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], list[str]]:
    """([(name, other name)] in the order of ``names``, hints about names that only look alike).

    ``wanted``: texts "NAME=OTHER NAME"; names may hold "=" themselves. InputError when one of them names
    nothing or a name twice, or when there is no pair at all; StructureError when one joins a left with a
    right structure.
    """
    chosen: dict[str, str] = {}
    for text in wanted:
        name, other = _split_pair(text, names, other_names)
        if name in chosen or other in chosen.values():
            raise InputError(f"pair {text!r}: one of the names is paired twice.")
        if _side(name) and _side(other) and _side(name) != _side(other):
            raise StructureError(
                f"pair {text!r}: one is a left and the other a right structure; they are never compared."
            )
        chosen[name] = other
    free = [other for other in other_names if other not in chosen.values()]
    for key in (str, str.casefold):
        ours = Counter(key(name) for name in names if name not in chosen)
        theirs = {key(other): other for other in free if Counter(map(key, free))[key(other)] == 1}
        for name in names:
            if name not in chosen and ours[key(name)] == 1 and key(name) in theirs:
                chosen[name] = theirs[key(name)]
        free = [other for other in free if other not in chosen.values()]
    if not chosen:
        raise InputError(
            f"no structure has the same name in both sets ({', '.join(map(repr, names)) or 'none'}; "
            f'{", ".join(map(repr, other_names)) or "none"}); pair them with `pairs="NAME=OTHER NAME"`.'
        )
    return [(name, chosen[name]) for name in names if name in chosen], _hints(names, chosen, free)


def _split_pair(text: str, names: Sequence[str], other_names: Sequence[str]) -> tuple[str, str]:
    for cut in [match.start() for match in re.finditer("=", text)]:
        if text[:cut].strip() in names and text[cut + 1 :].strip() in other_names:
            return text[:cut].strip(), text[cut + 1 :].strip()
    raise InputError(
        f"pair {text!r}: expected NAME=OTHER NAME with a name of each set; the first has "
        f"{', '.join(map(repr, names))}, the second {', '.join(map(repr, other_names))}."
    )


def _hints(names: Sequence[str], chosen: Mapping[str, str], free: Sequence[str]) -> list[str]:
    def bare(name: str) -> str:
        return re.sub(r"[\W_]+", "", name).casefold()

    alike = [
        (name, other) for name in names if name not in chosen for other in free if bare(name) == bare(other)
    ]
    return [
        f'{name!r} and {other!r} were not paired; if they are one structure, add `pairs="{name}={other}"`.'
        for name, other in alike
    ]


def _side(name: str) -> str:
    """ "L", "R" or "" where a name tells no side."""
    _, side = organ_code(name)
    if side:
        return side
    words = re.split(r"[\W_]+", name.casefold())
    sides = {{"lt": "l", "left": "l", "rt": "r", "right": "r"}.get(word, word) for word in words} & {"l", "r"}
    return sides.pop().upper() if len(sides) == 1 else ""
