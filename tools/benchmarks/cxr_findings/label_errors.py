"""Are wrong boxes found? On films of formulas, with errors put in on purpose.

    python tools/benchmarks/cxr_findings/label_errors.py --films 200 --epochs 20

A fifth of the films has a wrong label: a box shifted by its own size, a box taken away, or one of the wrong
class. Detectors (FCOS, small) learn from the labels as they are, by folds, and judge the films that they
never saw: by the loss of the image, and as ``medseg audit`` does, box by box. Prints the AUROC of each kind
of error against the sound labels, with a 95 % interval over films: by the loss, by the highest suspicion of
the film, and by its highest suspicion of that kind.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from medseg.audit.box_suspicions import suspicions_of
from medseg.losses import BoxesPerSample
from medseg.metrics.detection import ImageBoxes
from medseg.metrics.intervals import interval
from medseg.metrics.pixels import count_levels, roc_auc
from medseg.networks import Detector
from medseg.phantoms.chest_film import make_radiograph
from medseg.training import image_losses

SIDE = 128
CLASSES = ("nodule", "mass")
ERRORS = ("shifted", "missing", "wrong class")
SHARE = 0.2
RADII = {0: (5, 7), 1: (9, 12)}
"""Pixels: class 0 is a nodule, class 1 a mass."""


def film(number: int) -> tuple[np.ndarray, np.ndarray]:
    """(image float32 (SIDE, SIDE), boxes (2, 5)): a nodule and a mass, bright discs in the lungs."""
    rng = np.random.default_rng([number, 17])
    phantom = make_radiograph(number, SIDE)
    rows, columns = np.nonzero(phantom.masks[0])
    image, boxes = phantom.image.copy(), []
    y, x = np.mgrid[:SIDE, :SIDE]
    for kind, (least, most) in RADII.items():
        radius, place = rng.uniform(least, most), rng.integers(len(rows))
        r, c = (float(np.clip(v[place], radius + 1, SIDE - radius - 1)) for v in (rows, columns))
        image += 0.35 * ((y - r) ** 2 + (x - c) ** 2 <= radius**2)
        boxes.append([r - radius, c - radius, r + radius, c + radius, kind])
    return np.clip(image, 0, 1).astype(np.float32), np.array(boxes)


def spoil(boxes: np.ndarray, error: str, rng: np.random.Generator) -> np.ndarray:
    """The boxes with one error in one of them."""
    boxes, which = boxes.copy(), rng.integers(len(boxes))
    if error == "missing":
        boxes[which] = np.nan
    elif error == "wrong class":
        boxes[which, 4] = 1 - boxes[which, 4]
    else:
        size = boxes[which, 2] - boxes[which, 0]
        away = size if boxes[which, 2] + size <= SIDE else -size
        boxes[which, [0, 2]] += away
    return boxes


def data(films: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """(images (N, 1, SIDE, SIDE), targets (N, 2, 5), the error of each, "" for none)."""
    rng = np.random.default_rng(seed)
    made = [film(number) for number in range(films)]
    wrong = rng.random(films) < SHARE
    errors = np.where(wrong, np.array(ERRORS)[np.arange(films) % len(ERRORS)], "")
    boxes = [spoil(own, error, rng) if error else own for (_, own), error in zip(made, errors, strict=True)]
    images = torch.from_numpy(np.stack([image for image, _ in made]))[:, None]
    return images, torch.from_numpy(np.stack(boxes)).float(), errors


def learn(images: torch.Tensor, target: torch.Tensor, epochs: int, seed: int) -> Detector:
    """A detector trained on these films and labels as they are."""
    torch.manual_seed(seed)
    network = Detector("fcos", "resnet18_narrow", classes=2, anchor_sides=(8, 16, 32, 64, 128)).train()
    loss, optimizer = BoxesPerSample(), torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(8):
            optimizer.zero_grad()
            loss(network(images[rows]), target[rows]).mean().backward()
            optimizer.step()
    return network


def judged(
    images: torch.Tensor, target: torch.Tensor, epochs: int, folds: int, seed: int
) -> dict[str, np.ndarray]:
    """{"loss", "suspicion" and each of ERRORS: float (N,)} of films by detectors that never saw them."""
    number = np.random.default_rng([seed, 1]).permutation(len(images)) % folds
    found = {name: np.zeros(len(images)) for name in ("loss", "suspicion", *ERRORS)}
    for fold in range(folds):
        own = np.flatnonzero(number == fold)
        network = learn(images[number != fold], target[number != fold], epochs, seed)
        batches = zip(images[own].split(8), target[own].split(8), strict=True)
        found["loss"][own] = image_losses(network, batches)["loss"].numpy()
        network.eval()
        with torch.no_grad():
            rows = torch.cat([network(batch) for batch in images[own].split(8)])
        for place, seen, label in zip(own, rows, target[own], strict=True):
            for one in suspicions_of(image_of(seen, label), CLASSES):
                for name in ("suspicion", one.kind):
                    if name in found:
                        found[name][place] = max(found[name][place], one.score)
    return found


def image_of(seen: torch.Tensor, label: torch.Tensor) -> ImageBoxes:
    """A network's rows beside the label's, without those of NaN."""
    rows, true = (part[~part.isnan().any(dim=1)].double().numpy() for part in (seen, label))
    return ImageBoxes(rows[:, :4], rows[:, 4], rows[:, 5].astype(int), true[:, :4], true[:, 4].astype(int))


def table(found: dict[str, np.ndarray], errors: np.ndarray) -> list[str]:
    """The rows that are printed."""
    lines = [f"{(errors != '').sum()} of {len(errors)} labels are wrong", ""]
    lines += ["| error | n | loss of the film | suspicion | of this kind |", "|---|--:|--:|--:|--:|"]
    for error in (*ERRORS, "any"):
        bad = errors != "" if error == "any" else errors == error
        chosen = np.flatnonzero(bad | (errors == ""))
        names = ("loss", "suspicion", error) if error in found else ("loss", "suspicion")
        cells = [auroc_words(found[name][chosen], bad[chosen]) for name in names]
        lines.append(f"| {error} | {int(bad.sum())} | {' | '.join([*cells, ''][:3])} |")
    return lines


def auroc_words(scores: np.ndarray, bad: np.ndarray) -> str:
    ranks = np.unique(scores, return_inverse=True)[1] / len(scores)

    def auroc(rows: np.ndarray) -> float:
        return roc_auc(count_levels(ranks[rows], bad[rows]))

    value, low, high = interval(auroc, [str(n) for n in range(len(scores))], draws=500)
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images, target, errors = data(options.films, options.seed)
    found = judged(images, target, options.epochs, options.folds, options.seed)
    print("\n".join(table(found, errors)))


if __name__ == "__main__":
    main()
