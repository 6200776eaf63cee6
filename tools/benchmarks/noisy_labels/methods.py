"""What the benchmark compares: a name for each method, its trainer's settings and its quality module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from medseg.losses.per_sample import BCEPerSample, DiceBCEPerSample, PerSampleLoss


@dataclass(frozen=True)
class Compared:
    """method: the trainer's. loss: instead of the method's own. standardise: of the quality module.
    needs_share: it is told the true share of wrong labels, which the others do without. anchors: how many
    labels it is told to be right; anchors_only: it is trained on nothing else."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[], PerSampleLoss] | None = None
    standardise: bool = True
    needs_share: bool = False
    anchors: int = 0
    anchors_only: bool = False


REGRESS = {"objective": "regress", "strength": 4.0}
WATCHED_BY_NOBODY = {"fallback": False}


def _ablations() -> dict[str, Compared]:
    """{standardised features, raw ones} x {Dice + CE, CE} x {weighted, regress}, without the fallback, so
    that each shows what it does."""
    found = {}
    for features, standardise in (("standardised", True), ("raw", False)):
        for name, loss in (("dice_ce", DiceBCEPerSample), ("ce", BCEPerSample)):
            for kind, options in (("weighted", {}), ("regress", REGRESS)):
                found[f"qam_ocm.{features}.{name}.{kind}"] = Compared(
                    "qam_ocm", {**options, **WATCHED_BY_NOBODY}, loss, standardise
                )
    return found


COMPARED: dict[str, Compared] = {
    "ce": Compared("ce"),
    "dice_ce": Compared("dice_ce"),
    "trimming": Compared("trimming", needs_share=True),
    "co_teaching": Compared("co_teaching", needs_share=True),
    "loss_history": Compared("loss_history"),
    "adele": Compared("adele"),
    "confident_learning": Compared("confident_learning"),
    "qam_ocm_published": Compared("qam_ocm_published", standardise=False),
    "qam_ocm": Compared("qam_ocm"),
    "qam_ocm_regress": Compared("qam_ocm", REGRESS),
    **_ablations(),
    "qam_ocm_5_anchors": Compared("qam_ocm", anchors=5),
    "qam_ocm_10_anchors": Compared("qam_ocm", anchors=10),
    "dice_ce_10_anchors_only": Compared("dice_ce", anchors=10, anchors_only=True),
}

ABLATIONS = tuple(_ablations())
