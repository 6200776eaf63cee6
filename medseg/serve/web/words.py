"""What the pages say, in English, Simplified and Traditional Chinese: one literal table, words.json.

The English text is the key, {names} in it are filled in. Django's own texts, of its forms and its
administration, come from Django. Messages about an input come from the library and are English.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from django.utils.translation import get_language

TABLE = Path(__file__).with_name("words.json")
COLUMNS = {"zh-hans": 0, "zh-hant": 1}


@cache
def table() -> dict[str, list[str]]:
    """{English: [Simplified, Traditional]}."""
    return json.loads(TABLE.read_text(encoding="utf-8"))


def say(text: str, **values: object) -> str:
    """``text`` in the language of this request, with its {names} filled in; English where the table lacks
    it."""
    column = COLUMNS.get(get_language() or "")
    words = text if column is None else table().get(text, [text, text])[column]
    return words.format(**values) if values else words
