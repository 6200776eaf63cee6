"""What a message of the library calls a field, said as the option that sets it."""

from __future__ import annotations

import re

FLAGS = {
    "allow": "--allow",
    "append_to": "--append-to",
    "bundle": "--bundle",
    "device": "--device",
    "engine": "--engine",
    "format": "--format",
    "formats": "--format",
    "group": "--group",
    "holes": "--holes",
    "images": "--reference",
    "input": "INPUT",
    "name": "--to",
    "output_dir": "-o",
    "overwrite": "--overwrite",
    "pairs": "--map",
    "datalist": "--datalist",
    "predictions": "--predictions",
    "reference": "--reference",
    "region_margins_mm": "--region-margins-mm",
    "rois": "--roi",
    "settings": "--set",
    "simplify_mm": "--simplify-mm",
    "tolerances": "--tolerance",
    "truth": "--truth",
    "validation": "--validation",
    "variant": "--variant",
    "weights": "--weights",
    "within": "--within",
}
"""Field of a request, as messages write it in backquotes, and the option of the command line that sets it."""


def in_flags(message: str) -> str:
    """The message with every `field` and `field=value` as an option: --field, --field value. Other words in
    backquotes stay."""

    def flag(found: re.Match) -> str:
        field, value = found.group(1), found.group(2)
        if field not in FLAGS:
            return found.group(0)
        return FLAGS[field] if value is None else f"{FLAGS[field]} {value}"

    return re.sub(r"`(\w+)(?:=([^`]*))?`", flag, message)
