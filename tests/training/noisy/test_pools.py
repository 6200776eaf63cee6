"""Score pools: the large batch in small pieces and over two processes has the same gradient; a queue has the
right pull."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from medseg.errors import InputError
from medseg.networks.quality import QualityModule
from medseg.training.noisy.pools import (
    BatchPool,
    GatherPool,
    QueuePool,
    TwoPassPool,
    of_all_processes,
    running_statistics_kept,
)
from medseg.training.noisy.weights import HELD_BACK, TAUGHT, Objective, PoolTable

COUNT, CHANNELS = 8, 3
ANCHORS = torch.tensor([TAUGHT, 0, 0, HELD_BACK, 0, 0, 0, 0, 0, 0])
"""By the number of the case."""


def make_networks(norm: type[nn.Module] | None = None) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, CHANNELS, 1)]
    if norm is not None:
        layers.insert(1, norm(4))
    quality = QualityModule(2, 1 + CHANNELS, backbone=((4,),), zero_init=False)
    return nn.Sequential(*layers), quality


def objective_of(quality: nn.Module, **settings) -> Objective:
    """Scores three times as large as the module's, so that the overfit control bends them."""
    return Objective(
        lambda features: 3 * quality.score(features), tuple(quality.head.parameters()), **settings
    )


def make_data(count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, 1, 8, 8), (torch.rand(count, CHANNELS, 8, 8) > 0.6).float()


def rows_of(networks, data, case=None):
    """What a learner hands to a pool: network, quality module and loss on a slice of the batch."""
    images, labels = data
    case = torch.arange(len(images)) if case is None else case

    def rows(piece: slice) -> tuple[PoolTable, torch.Tensor]:
        prediction = networks[0](images[piece])
        voxels = nn.functional.binary_cross_entropy_with_logits(prediction, labels[piece], reduction="none")
        losses = voxels.flatten(1).mean(1, keepdim=True)
        features = networks[1](torch.cat([images[piece], labels[piece]], 1), as_features=True)
        everywhere = torch.ones_like(losses, dtype=torch.bool)
        anchor = ANCHORS[case[piece]]
        table = PoolTable(features, losses, losses.detach(), everywhere, everywhere, case[piece], anchor)
        return table, prediction

    return rows


def gradients(networks) -> list[torch.Tensor]:
    return [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for network in networks
        for parameter in network.parameters()
    ]


def step_with(pool, networks, data, case=None, **settings):
    for network in networks:
        network.zero_grad()
    objective = objective_of(networks[1], **settings)
    step = pool.backward(rows_of(networks, data, case), len(data[0]), objective, list(networks))
    return step, gradients(networks)


STEPS = {
    "weighted": {},
    "regressed": {"kind": "regress", "strength": 4.0},
    "listening": {"weigh": False},
    "resting": {"weigh": False, "teach": False},
}


@pytest.mark.parametrize("settings", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize(
    "case", [None, torch.tensor([0, 0, 3, 3, 3, 2, 1, 0])], ids=["samples", "patches of cases"]
)
def test_two_passes_in_small_pieces_equal_one_large_batch(micro_batch, case, settings):
    networks, data = make_networks(nn.InstanceNorm2d), make_data()
    whole, expected = step_with(BatchPool(), networks, data, case, **settings)
    pieces, found = step_with(TwoPassPool(micro_batch), networks, data, case, **settings)
    assert sum(float(g.abs().sum()) for g in expected) > 0.5
    # Standardising cancels most of a bias's gradient, and leaves the rounding of its parts.
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=3e-5)
    torch.testing.assert_close(pieces.loss, whole.loss)
    torch.testing.assert_close(pieces.weights, whole.weights)
    torch.testing.assert_close(pieces.scores, whole.scores)
    torch.testing.assert_close(pieces.prediction, whole.prediction)


def test_features_are_standardised_over_the_pool_and_not_over_its_pieces():
    """Scores of pieces of one would all be the bias."""
    networks, data = make_networks(nn.InstanceNorm2d), make_data()
    step, _ = step_with(TwoPassPool(1), networks, data)
    assert step.scores.std() > 0.1
    running = networks[1].statistics.running_mean.clone()
    step_with(TwoPassPool(1), networks, data)
    assert not torch.equal(networks[1].statistics.running_mean, running)


def test_batch_norm_is_the_stated_exception_and_updates_its_statistics_once():
    data = make_data()
    large, small = make_networks(nn.BatchNorm2d), make_networks(nn.BatchNorm2d)
    _, expected = step_with(BatchPool(), large, data)
    _, found = step_with(TwoPassPool(2), small, data)
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(found, expected, strict=True))
    assert int(small[0][1].num_batches_tracked) == 4  # four micro-batches, counted in the second pass only
    for networks in (large, small):
        for network in networks:
            network.eval()
    _, expected = step_with(BatchPool(), large, data)
    small[0].load_state_dict(large[0].state_dict())
    _, found = step_with(TwoPassPool(2), small, data)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=3e-5)


def test_both_passes_draw_the_same_dropout():
    networks, data = make_networks(), make_data()
    networks = (nn.Sequential(nn.Dropout(0.5), networks[0]), networks[1])
    seen = []
    rows = rows_of(networks, data)

    def recorded(piece: slice):
        table, prediction = rows(piece)
        seen.append(prediction.detach())
        return table, prediction

    TwoPassPool(4).backward(recorded, COUNT, objective_of(networks[1]), list(networks))
    assert (
        torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3]) and not torch.equal(seen[0], seen[1])
    )


def test_running_statistics_are_put_back():
    norm = nn.BatchNorm1d(2)
    with running_statistics_kept([norm]):
        norm(torch.randn(5, 2))
        assert norm.running_mean.abs().sum() > 0
    assert norm.running_mean.abs().sum() == 0 and int(norm.num_batches_tracked) == 0


# ---- queue -------------------------------------------------------------------------------------------------


def fixed_rows(scores, losses, case):
    everywhere = torch.ones_like(losses, dtype=torch.bool)
    table = PoolTable(scores, losses, losses.detach(), everywhere, everywhere, case, torch.zeros_like(case))
    return lambda piece: (table, losses)


def queue_step(pool: QueuePool, score: float, loss: float, case: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of score and loss where the feature is the score."""
    scores, losses = (torch.tensor([[value]], requires_grad=True) for value in (score, loss))
    pool.backward(fixed_rows(scores, losses, torch.tensor([case])), 1, Objective(lambda given: given), [])
    return scores.grad, losses.grad


def test_a_batch_of_one_learns_from_the_queue_in_both_directions():
    pool = QueuePool(length=4)
    assert queue_step(pool, 0.0, 1.0, case=1)[0] == pytest.approx(0.0)  # nothing to compare with yet
    assert queue_step(pool, 0.0, 3.0, case=2)[0] > 0  # a larger loss than before: the score falls
    assert queue_step(pool, 0.0, 0.5, case=3)[0] < 0  # a smaller one: it rises


def test_equal_scores_in_batch_and_queue_give_the_plain_mean():
    pool = QueuePool(length=4)
    for case in range(4):
        _, of_loss = queue_step(pool, 0.7, float(case), case)
        assert float(of_loss) == pytest.approx(1.0)


def test_the_queue_forgets_what_is_old_beyond_its_length_and_seen_again():
    pool = QueuePool(length=2, max_age=3)
    for case in range(5):
        queue_step(pool, 0.0, 10.0 * case, case)
    assert [int(table.case) for table in pool.tables] == [4, 3, 2]
    # Loss 0 against remembered 40 and 30 (length 2; 20 is beyond it): w = 1/3, times the scale 3.
    of_score, _ = queue_step(pool, 0.0, 0.0, case=9)
    assert float(of_score) == pytest.approx(3 * (1 / 3) * (0 - 70 / 3) * 2, rel=1e-4)
    of_score, _ = queue_step(pool, 0.0, 0.0, case=9)  # its own older pair does not count: 40 and 30 remain
    assert float(of_score) == pytest.approx(3 * (1 / 3) * (0 - 70 / 3) * 2, rel=1e-4)


def test_a_queue_survives_a_checkpoint():
    pool, other = QueuePool(length=4), QueuePool(length=4)
    queue_step(pool, 0.0, 1.0, case=1)
    other.load_state_dict(pool.state_dict())
    assert queue_step(other, 0.0, 3.0, case=2)[0] == queue_step(pool, 0.0, 3.0, case=2)[0] > 0


def test_pools_refuse_sizes_below_one():
    with pytest.raises(InputError, match="micro_batch=0"):
        TwoPassPool(0)
    with pytest.raises(InputError, match="length=0"):
        QueuePool(length=0)


# ---- two processes -----------------------------------------------------------------------------------------


def one_process(rank: int, folder: Path) -> None:
    """Half of the batch on process `rank` of two; writes what it found to the folder."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    networks = make_networks()
    wrapped = [nn.parallel.DistributedDataParallel(network) for network in networks]
    images, labels = make_data()
    own = slice(rank * COUNT // 2, (rank + 1) * COUNT // 2)
    case = torch.arange(COUNT)[own]
    rows = rows_of(wrapped, (images[own], labels[own]), case)
    step = GatherPool().backward(rows, COUNT // 2, objective_of(networks[1]), wrapped)
    found = {"gradients": gradients(networks), "weights": step.weights, "loss": step.loss}
    found["cases"] = of_all_processes([case])[0]
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path, run_in_two_processes):
    run_in_two_processes(__file__, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    whole, expected = step_with(BatchPool(), make_networks(), make_data())
    for one in found:
        torch.testing.assert_close(one["loss"], whole.loss)
        for a, b in zip(one["gradients"], expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=3e-5)
        assert one["cases"].tolist() == list(range(COUNT)), "each process knows the rows of both"
    torch.testing.assert_close(torch.cat([one["weights"] for one in found]), whole.weights)


def test_without_a_process_group_gathering_is_the_batch_pool():
    networks, data = make_networks(), make_data()
    _, expected = step_with(BatchPool(), networks, data)
    _, found = step_with(GatherPool(), networks, data)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


if __name__ == "__main__":
    one_process(int(sys.argv[1]), Path(sys.argv[2]))
