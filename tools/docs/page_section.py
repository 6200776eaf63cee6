"""The part of a documentation page that a benchmark writes, between two markers."""

from __future__ import annotations

from pathlib import Path


def put_section(path: Path, name: str, text: str) -> None:
    """Replace what stands between the section's two markers, or add it at the end of the file."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    section = f"{begin}\n{text}\n{end}"
    if begin in old:
        head, rest = old.split(begin, 1)
        section = head + section + rest.split(end, 1)[1]
    else:
        section = old + ("\n" if old else "") + section + "\n"
    path.write_text(section, encoding="utf-8")
