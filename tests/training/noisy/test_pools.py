"""Score pools: the large batch in small pieces and over two processes has the same gradient; a queue has the
right pull."""

import multiprocessing
from functools import partial

import pytest
import torch
from torch import nn

from medseg.errors import InputError
from medseg.training.noisy.pools import BatchPool, GatherPool, QueuePool, TwoPassPool, running_statistics_kept
from medseg.training.noisy.weights import PoolTable

COUNT, CHANNELS = 8, 3


def make_networks(norm: type[nn.Module] | None = None) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, CHANNELS, 1)]
    if norm is not None:
        layers.insert(1, norm(4))
    quality = nn.Sequential(
        nn.Conv2d(1 + CHANNELS, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
    )
    return nn.Sequential(*layers), quality


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
        scores = 3 * networks[1](torch.cat([images[piece], labels[piece]], 1))
        everywhere = torch.ones_like(losses, dtype=torch.bool)
        return PoolTable(scores, losses, losses, everywhere, everywhere, case[piece]), prediction

    return rows


def gradients(networks) -> list[torch.Tensor]:
    return [parameter.grad.clone() for network in networks for parameter in network.parameters()]


def step_with(pool, networks, data, case=None):
    for network in networks:
        network.zero_grad()
    step = pool.backward(rows_of(networks, data, case), len(data[0]), 2.0, list(networks))
    return step, gradients(networks)


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize(
    "case", [None, torch.tensor([4, 4, 9, 9, 9, 2, 1, 4])], ids=["samples", "patches of cases"]
)
def test_two_passes_in_small_pieces_equal_one_large_batch(micro_batch, case):
    networks, data = make_networks(nn.InstanceNorm2d), make_data()
    whole, expected = step_with(BatchPool(), networks, data, case)
    pieces, found = step_with(TwoPassPool(micro_batch), networks, data, case)
    assert sum(float(g.abs().sum()) for g in expected) > 0.01
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(pieces.loss, whole.loss)
    torch.testing.assert_close(pieces.weights, whole.weights)
    torch.testing.assert_close(pieces.prediction, whole.prediction)


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
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_both_passes_draw_the_same_dropout():
    networks, data = make_networks(), make_data()
    networks = (nn.Sequential(nn.Dropout(0.5), networks[0]), networks[1])
    seen = []
    rows = rows_of(networks, data)

    def recorded(piece: slice):
        table, prediction = rows(piece)
        seen.append(prediction.detach())
        return table, prediction

    TwoPassPool(4).backward(recorded, COUNT, 2.0, list(networks))
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
    return lambda piece: (PoolTable(scores, losses, losses.detach(), everywhere, everywhere, case), losses)


def queue_step(pool: QueuePool, score: float, loss: float, case: int) -> tuple[torch.Tensor, torch.Tensor]:
    scores, losses = (torch.tensor([[value]], requires_grad=True) for value in (score, loss))
    pool.backward(fixed_rows(scores, losses, torch.tensor([case])), 1, 2.0, [])
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


def one_process(rank: int, meeting_point: str, answers) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2
    )
    networks = make_networks()
    wrapped = [nn.parallel.DistributedDataParallel(network) for network in networks]
    images, labels = make_data()
    own = slice(rank * COUNT // 2, (rank + 1) * COUNT // 2)
    case = torch.arange(COUNT)[own]
    rows = rows_of(wrapped, (images[own], labels[own]), case)
    step = GatherPool().backward(rows, COUNT // 2, 2.0, wrapped)
    answers.put((rank, [g.numpy() for g in gradients(networks)], step.weights.numpy(), float(step.loss)))
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    start = partial(context.Process, target=one_process)
    processes = [start(args=(rank, str(tmp_path / "meet"), answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = sorted((answers.get(timeout=120) for _ in processes), key=lambda answer: answer[0])
    for process in processes:
        process.join(timeout=60)
    whole, expected = step_with(BatchPool(), make_networks(), make_data())
    for _, gradient, _, loss in found:
        assert loss == pytest.approx(float(whole.loss), rel=1e-5)
        for a, b in zip(gradient, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(a), b, rtol=1e-4, atol=1e-6)
    weights = torch.cat([torch.from_numpy(answer[2]) for answer in found])
    torch.testing.assert_close(weights, whole.weights)


def test_without_a_process_group_gathering_is_the_batch_pool():
    networks, data = make_networks(), make_data()
    _, expected = step_with(BatchPool(), networks, data)
    _, found = step_with(GatherPool(), networks, data)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
