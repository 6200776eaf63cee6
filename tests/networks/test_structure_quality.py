"""The quality module that scores each structure by what it sees around its label."""

from __future__ import annotations

import pytest
import torch

from medseg.networks.quality import StructureQualityModule


def module_of(structures: int = 2) -> StructureQualityModule:
    torch.manual_seed(0)
    return StructureQualityModule(3, 1 + structures, structures, backbone=((4,), (8,)), zero_init=False)


def volumes(count: int = 5) -> torch.Tensor:
    """Images of noise with a cube of structure 0 and one of structure 1, far apart."""
    x = torch.zeros(count, 3, 32, 32, 32)
    x[:, :1] = torch.rand(count, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    x[:, 1, 4:8, 4:8, 4:8] = 1
    x[:, 2, 24:28, 24:28, 24:28] = 1
    return x


def test_a_structure_is_pooled_over_the_cells_that_its_label_touches_and_those_beside_them():
    module, x = module_of(), volumes()
    cells = torch.zeros(5, 8, 8, 8, 8)
    cells[:, :, 1, 1, 1] = 27.0  # the only cell that label 0 touches: voxels 4 to 7 of 4 each
    features = module.pooled(cells, x).unflatten(1, (2, 9))
    assert features[0, 0].tolist() == [1.0] * 9, "one of 3 x 3 x 3 cells, and a mark that it is there"
    assert features[0, 1].tolist() == [0.0] * 8 + [1.0]


def test_a_score_depends_on_its_own_surroundings_alone():
    module, x = module_of(), volumes()
    before = module(x)
    assert before.shape == (5, 2) and module.scores == 2
    x[2, 0, :12, :12, :12] += 3  # around label 0 of one case
    after = module(x)
    assert (after[:, 0] - before[:, 0]).abs().max() > 0.1
    torch.testing.assert_close(after[:, 1], before[:, 1])


@pytest.mark.parametrize("absent", [0.0, torch.nan])
def test_an_empty_or_unknown_label_scores_0_and_leaves_the_others_alone(absent):
    module, x = module_of(), volumes()
    without = module(x[[0, 1, 3, 4]])
    x[2, 1] = absent
    scores = module(x)
    assert scores[2, 0] == 0 and (scores[[0, 1, 3, 4], 0].abs() > 0).all()
    # Filled with the mean of the four, the fifth widens nothing: deviations shrink by the root of 4/5 alone.
    head = module.head.bias[0].detach()
    torch.testing.assert_close(
        scores[[0, 1, 3, 4], 0] - head, (without[:, 0] - head) * (5 / 4) ** 0.5, rtol=2e-2, atol=1e-3
    )
    scores.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_one_case_and_evaluation_meet_the_running_statistics_and_a_zero_head_scores_alike():
    module, x = module_of(), volumes()
    for _ in range(200):
        module(x)
    running = module.eval()(x)
    module.train()
    torch.testing.assert_close(module(x[:1]), running[:1], rtol=1e-3, atol=1e-3)
    fresh = StructureQualityModule(3, 3, 2, backbone=((4,), (8,)))
    assert torch.equal(fresh(x), torch.zeros(5, 2))
