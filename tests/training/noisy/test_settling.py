"""Where quality weights settle: on the clean labels under symmetric noise, the majority under one-sided."""

import numpy as np
import torch

from medseg.networks.quality import QualityModule
from medseg.phantoms.chest_film import make_radiograph
from medseg.training.noisy.noise import Corruption, apply
from medseg.training.noisy.weights import Objective, PoolTable, pool_weights

CHANNELS = 2
QUALITY = QualityModule(2, 1 + CHANNELS, backbone=((4,),))


def converged_weights(kinds: dict[str, float], sizes=(2.5, 6.5), patients=2) -> tuple[float, float, float]:
    """Mass on clean labels, Dice of the weighted and of the plain answer, where quality weights settle with a
    perfect segmenter (the weighted mean of the labels it is shown) and a perfect quality module (a score per
    kind of noise)."""
    spread = np.linspace(*sizes, 5)
    variants = [("clean", 0.0, kinds["clean"])]
    variants += [(kind, size, kinds[kind] / 5) for kind in kinds if kind != "clean" for size in spread]
    share = torch.tensor([v[2] for v in variants])
    masks = [make_radiograph(seed, 128).masks for seed in range(patients)]
    parameters = [{"size": float(size)} if kind != "clean" else {} for kind, size, _ in variants]
    labels = torch.tensor(
        np.stack(
            [
                [apply(Corruption(v[0], p), mask, (1, 1)) for v, p in zip(variants, parameters, strict=True)]
                for mask in masks
            ],
            axis=1,
        )
    ).float()
    scores = torch.zeros(len(variants), 1)
    copies = (share * 200).round().long()
    index = torch.repeat_interleave(torch.arange(len(variants)), copies)
    everywhere = torch.ones(len(index), 1, dtype=torch.bool)
    for _ in range(60):
        mass = torch.zeros(len(variants)).index_add(0, index, pool_weights(scores[index])[:, 0])
        answer = torch.einsum("v,vnchw->nchw", mass, labels).clamp(1e-4, 1 - 1e-4)
        loss = torch.stack([torch.nn.functional.binary_cross_entropy(answer, label) for label in labels])[
            index, None
        ]
        leaf = scores.clone().requires_grad_()
        case = torch.arange(len(index))
        pool = PoolTable(leaf[index], loss, loss, everywhere, everywhere, case, torch.zeros_like(case))
        Objective(lambda features: features)(pool).loss.backward()
        scores = scores - 0.5 * leaf.grad / leaf.grad.abs().max().clamp(min=1e-9)
    plain = torch.einsum("v,vnchw->nchw", copies / copies.sum(), labels)
    return float(mass[0]), soft_dice(answer > 0.5, labels[0] > 0.5), soft_dice(plain > 0.5, labels[0] > 0.5)


def soft_dice(predicted: torch.Tensor, truth: torch.Tensor) -> float:
    both = (predicted & truth).sum((2, 3))
    return float((2 * both / (predicted.sum((2, 3)) + truth.sum((2, 3)))).mean())


def test_at_75_percent_symmetric_noise_quality_weights_settle_on_the_clean_labels():
    mass, weighted, _ = converged_weights({"clean": 0.25, "dilate": 0.375, "erode": 0.375})
    assert mass > 0.9 and weighted > 0.99


def test_at_75_percent_one_sided_noise_they_lock_on_the_wrong_majority():
    mass, weighted, plain = converged_weights({"clean": 0.25, "dilate": 0.75})
    assert mass < 0.1, "weight goes to the majority's habit, not to the truth"
    assert weighted < plain + 0.01 and weighted < 0.85, "no better than plain training, and wrong"
    mass, weighted, _ = converged_weights({"clean": 0.5, "dilate": 0.5})
    assert mass > 0.9 and weighted > 0.99, "at 50 % the clean labels are still the largest group"
