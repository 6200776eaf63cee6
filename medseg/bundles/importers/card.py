"""The card of an imported bundle once its user scored it."""

from __future__ import annotations

from datetime import date

from medseg.bundles.find import Bundle
from medseg.bundles.importers.writing import NOT_EVALUATED
from medseg.files import atomic_path


def note_scores(bundle: Bundle, cases: int, table: str) -> None:
    """Write the table of scores into ``docs/scores.md`` of an imported bundle, and into its card that it was
    scored; nothing is done to other bundles. A card that says other things by now keeps them."""
    card = bundle.folder / "docs" / "README.md"
    if not bundle.inference_only or not card.is_file():
        return
    with atomic_path(bundle.folder / "docs" / "scores.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    scored = f"Scored by medseg on {cases} case{'' if cases == 1 else 's'} on {date.today().isoformat()}"
    lines = card.read_text(encoding="utf-8").splitlines()
    told = [
        f"{scored}: see scores.md. No gate refuses images that are unlike those it learned from."
        if line.startswith((NOT_EVALUATED, "Scored by medseg on "))
        else line
        for line in lines
    ]
    with atomic_path(card) as temporary:
        temporary.write_text("\n".join(told) + "\n", encoding="utf-8")
