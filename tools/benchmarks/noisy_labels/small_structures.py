"""Which quality module learns that contours are wrong where structures are small: volumes of 32 x 32 x 32
with an organ of some 1300 voxels, a gland of 90 and a cord of 180.

    python tools/benchmarks/noisy_labels/small_structures.py --seed 1

A plain segmenter is trained on 40 volumes, of which half have a blunder in every contour. Beside it modules
learn from its losses, and weigh nothing: {pooled over the whole volume, around each label} x {weighted,
regress}. Printed at the end: for each structure the area under the ROC curve of telling right contours from
wrong ones, by each module's score and by the segmenter's own final loss, which is cross-entropy as a mean
over the volume, or over the size of label and prediction. Two minutes of a core for 400 steps.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import torch
from monai.inferers import SimpleInferer
from monai.networks.nets import UNet
from scipy.ndimage import gaussian_filter
from scores import auroc

from medseg.losses import BCEPerSample, DiceBCEPerSample, SizedBCEPerSample
from medseg.networks import QualityModule, StructureQualityModule
from medseg.training.noisy.learners import Parts
from medseg.training.noisy.noise import Corruption, corrupt
from medseg.training.noisy.quality_weights import QualityWeights
from medseg.training.noisy.weights import Objective, PoolTable

SIDE, CASES, BATCH, RATE = 32, 40, 2, 1e-2
STRUCTURES = ("organ", "gland", "cord")
BACKBONE = ((8,), (16,), (32,))
GRID = np.indices((SIDE,) * 3)


# ---- volumes -----------------------------------------------------------------------------------------------


def ball(centre, radii) -> np.ndarray:
    return sum(((GRID[axis] - centre[axis]) / radii[axis]) ** 2 for axis in range(3)) < 1


def make(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image float32 (SIDE, SIDE, SIDE), and masks of STRUCTURES; a few bright spots are none of them."""
    rng = np.random.default_rng(seed)
    centre = 16 + rng.uniform(-1.5, 1.5, 3)
    body = ball(centre, (14, 13.5, 15.5))
    scale = rng.uniform(0.85, 1.15)
    place = centre + rng.uniform(-1.5, 1.5, 3) + (5 * scale, 1.5, -3)
    organ = ball(place, np.array((6, 6.6, 7.3)) * scale * rng.uniform(0.9, 1.1, 3))
    place = centre + rng.uniform(-1.5, 1.5, 3) + (-6 * scale, 3.5, 3)
    gland = ball(place, np.array((2.4, 2.8, 3.2)) * rng.uniform(0.85, 1.15, 3))
    along = GRID[2] - centre[2]
    across = (GRID[0] - centre[0] + 1 - 2 * np.sin(along / 10)) ** 2 + (GRID[1] - centre[1] + 8 * scale) ** 2
    cord = (across < 1.8**2) & (abs(along) < 9)
    image = 0.35 * body + 0.12 * organ + 0.2 * gland + 0.2 * cord
    for _ in range(4):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        spot = ball(centre + direction * rng.uniform(6, 10), rng.uniform(1.2, 2.2, 3))
        image += 0.2 * (spot & ~(organ | gland | cord) & body)
    image = gaussian_filter(image, 0.8) + rng.normal(0, 0.07, image.shape)
    return image.astype(np.float32), np.stack([organ, gland, cord])


def blunder(rng: np.random.Generator, channel: int) -> dict:
    kind = ("dilate", "erode", "shift", "drop_slices", "stray_piece")[rng.integers(5)]
    if kind == "dilate":
        parameters = {"size": float(rng.uniform(1.6, 2.6))}
    elif kind == "erode":
        parameters = {"size": float(rng.uniform(1.2, 2.3))}
    elif kind == "shift":
        parameters = {"offset": [0.0, 0.0, float(rng.uniform(2.6, 5) * rng.choice([-1, 1]))]}
    elif kind == "drop_slices":
        part, end = float(rng.uniform(0.3, 0.5)), float(rng.integers(2))
        first = end * (1 - part)
        parameters = {"channel": 0, "axis": 2, "first": first, "last": first + part}
    else:
        direction = rng.normal(size=3)
        away = direction / np.linalg.norm(direction) * rng.uniform(6, 10)
        parameters = {"offset": [float(step) for step in away], "radius": float(rng.uniform(1.6, 2.6))}
    return {"channel": channel, "kind": kind, "parameters": parameters}


def cases_of(seed: int, share: float) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Images, labels, and which are wrong."""
    rng = np.random.default_rng(seed + 777)
    wrong = set(rng.permutation(CASES)[: round(share * CASES)].tolist())
    images, labels = [], []
    for number in range(CASES):
        image, masks = make(seed * 1000 + number)
        if number in wrong:
            steps = [blunder(rng, channel) for channel in range(len(STRUCTURES))]
            masks, _ = corrupt(f"{number}", Corruption("each", {"steps": steps}), masks, (1, 1, 1))
        images.append(image[None])
        labels.append(masks.astype(np.float32))
    noisy = [int(number in wrong) for number in range(CASES)]
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), noisy


# ---- training ----------------------------------------------------------------------------------------------


def listeners(parts: Parts, seed: int) -> dict[str, QualityWeights]:
    """A learner for each module; only its module and pool are used."""
    found = {}
    for pooled, objective in itertools.product(("whole volume", "around the label"), ("weighted", "regress")):
        torch.manual_seed(seed + 5)
        module = StructureQualityModule if pooled == "around the label" else QualityModule
        found[f"{pooled}, {objective}"] = QualityWeights(
            parts,
            module(3, 1 + len(STRUCTURES), len(STRUCTURES), backbone=BACKBONE),
            objective=objective,
            strength=4.0 if objective == "regress" else 2.0,
            pool="queue",
            pool_options={"length": 30, "max_age": 15},
            per_class=True,
        )
    return found


def listen(learner: QualityWeights, given: tuple, progress: float) -> None:
    """One step of a module on (pairs of image and label, prediction, labels, cases)."""
    pairs, prediction, labels, cases = given
    optimizer, module = learner.optimizers["quality"], learner.quality
    for group in optimizer.param_groups:
        group["lr"] = learner.rates[0] * min(1, (1 - progress) / (1 - learner.decay_from))
    optimizer.zero_grad()
    judged = learner.judge.per_channel(prediction, labels)[0]
    drawn = labels.flatten(2).amax(-1) > 0

    def rows(piece: slice) -> tuple[PoolTable, torch.Tensor]:
        features = module(pairs, as_features=True)
        everywhere, nobody = torch.ones_like(drawn), torch.zeros_like(cases)
        return PoolTable(features, judged * 0, judged, everywhere, drawn, cases, nobody), prediction

    head = tuple(module.head.parameters())
    objective = Objective(module.score, head, learner.strength, learner.objective, weigh=False)
    learner.pool.backward(rows, BATCH, objective, [])
    optimizer.step()


def run(seed: int, share: float, steps: int) -> dict[str, list[float]]:
    """{ranking: AUROC of each structure}."""
    images, labels, noisy = cases_of(seed, share)
    torch.manual_seed(seed)
    network = UNet(3, 1, 3, (8, 16, 32), (2, 2), num_res_units=1, norm="instance")
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    loss = DiceBCEPerSample(2.0, 0.001)
    learners = listeners(Parts(network, optimizer, SimpleInferer(), loss), seed)
    generator = torch.Generator().manual_seed(seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.15)
    for step in range(1, steps + 1):
        index = torch.randperm(CASES, generator=generator)[:BATCH]
        for _ in range(3):
            torch.rand((), generator=generator)
        moved = torch.randint(-2, 3, (3,), generator=generator).tolist()
        image, label = (torch.roll(values[index], moved, (2, 3, 4)) for values in (images, labels))
        network.train()
        optimizer.zero_grad()
        prediction = network(image)
        loss(prediction, label).mean().backward()
        optimizer.step()
        schedule.step()
        if step / steps > 1 / 6:
            given = torch.cat([image, label], 1), prediction.detach(), label, index
            for learner in learners.values():
                listen(learner, given, step / steps)
    network.eval()
    rankings = {"loss, mean over the volume": BCEPerSample(), "loss over the size": SizedBCEPerSample()}
    with torch.no_grad():
        suspected = {
            name: torch.cat([one.per_channel(network(images[[n]]), labels[[n]])[0] for n in range(CASES)])
            for name, one in rankings.items()
        }
        for name, learner in learners.items():
            suspected[name] = -learner.quality.eval()(torch.cat([images, labels], 1))
    return {
        name: [auroc(np.array(noisy), values[:, column].numpy()) for column in range(len(STRUCTURES))]
        for name, values in suspected.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.5, help="of the volumes that are wrong")
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{'ranking':28}" + "".join(f"{name:>8}" for name in STRUCTURES))
    for name, values in run(given.seed, given.share, given.steps).items():
        print(f"{name:28}" + "".join(f"{value:8.2f}" for value in values))
    return 0


if __name__ == "__main__":
    main()
