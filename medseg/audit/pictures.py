"""The worst labels beside their predictions: as pictures for the page, as contours for a planning viewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.audit.disagreement import predicted_mask
from medseg.audit.evidence import Evidence, file_stem, load_evidence
from medseg.audit.places import place_of
from medseg.audit.ranking import Ranking
from medseg.audit.viewer_sets import write_viewer_set
from medseg.geometry import LPS_TO_RAS, Geometry
from medseg.reports.pictures import Picture, draw_pair


def draw_worst(
    ranking: Ranking,
    ranks: Sequence[int],
    suspected: int,
    evidence_dir: Path,
    data_dir: Path,
    folder: Path,
) -> tuple[dict[int, tuple[Picture, ...]], dict[str, str]]:
    """({rank: pictures}, {case: its contour set in ``folder``, or why there is none}) of the labels of these
    ranks, from 1; only the first ``suspected`` ranks get a set. Cases are read one at a time."""
    worst = {rank: ranking.findings[rank - 1] for rank in ranks}
    drawn, sets = {}, {}
    for case in dict.fromkeys(one.case for one in worst.values()):
        evidence = load_evidence(evidence_dir / f"{file_stem(case)}.npz")
        own = {rank: one for rank, one in worst.items() if one.case == case}
        cuts = {}
        for rank, one in own.items():
            cut = ranking.thresholds[one.structure][one.fold]
            drawn[rank] = draw_label(evidence, evidence.names.index(one.structure), cut)
            if rank <= suspected:
                cuts[one.structure] = cut
        if not cuts:
            continue
        written = write_viewer_set(evidence, list(cuts), cuts, data_dir, folder)
        sets[case] = written if isinstance(written, str) else f"{folder.name}/{written.name}"
    return {rank: drawn[rank] for rank in ranks}, sets


def draw_label(evidence: Evidence, number: int, threshold: float) -> tuple[Picture, ...]:
    """Pictures of a label and its prediction, cut at ``threshold``; () when both are empty.

    3D: the axial slice with the largest difference and three planes, slices by number in the image's own
    series; 2D: the image around them.
    """
    label, image = evidence.label[number], evidence.image
    prediction = predicted_mask(evidence.probability[number], threshold)
    if evidence.affine_ras is not None:
        geometry = Geometry.from_lps_affine(np.linalg.inv(LPS_TO_RAS) @ evidence.affine_ras, label.shape)
        either = label | prediction

        def words(index: int) -> str:
            shown = either[index] if either[index].any() else either.any(axis=0)
            return str(place_of(evidence, index, shown))

        return draw_pair(label, prediction, geometry, image, modality="", slice_words=words)
    affine_lps = np.eye(4)[:, [2, 1, 0, 3]] @ np.diag([1.0, *evidence.spacing, 1.0])
    geometry = Geometry.from_lps_affine(affine_lps, (1, *label.shape))
    pictures = draw_pair(
        label[None], prediction[None], geometry, None if image is None else image[None], modality=""
    )
    return tuple(replace(picture, caption="the image around label and prediction") for picture in pictures)
