"""The 3D RetinaNet: losses per image that are MONAI's own, answers in rows, and boxes that are learned."""

from __future__ import annotations

import pytest
import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector

from medseg.errors import InputError
from medseg.inference import BoxWindows
from medseg.losses import BoxesPerSample
from medseg.networks import VolumeDetector
from medseg.networks.volume_detectors import FocalOverPositives

SHAPES = ((3, 3, 3), (5, 5, 5), (7, 7, 7))


def small(**options):
    torch.manual_seed(0)
    options = {"anchor_shapes": SHAPES, "first_stride": (1, 1, 1), "most": 10, **options}
    return VolumeDetector("resnet10_narrow", **options)


def cubes(count=2, side=24):
    """(volumes (count, 1, *3 x side), targets (count, 3, 7)): a bright cube each, the last has none."""
    generator = torch.Generator().manual_seed(1)
    volumes = torch.rand(count, 1, side, side, side, generator=generator) * 0.2
    target = torch.full((count, 3, 7), torch.nan)
    for number in range(count - 1):
        low = 6 + 4 * number
        volumes[number, 0, low : low + 6, low : low + 6, low : low + 6] = 1.0
        target[number, 0] = torch.tensor([low] * 3 + [low + 6] * 3 + [0.0])
    return volumes, target


def test_losses_are_one_value_per_image_with_their_parts():
    network, loss, (volumes, target) = small(), BoxesPerSample(), cubes()
    values = loss(network.train()(volumes), target)
    assert values.shape == (2,) and set(loss.parts) == {"classification", "box regression"}
    assert torch.allclose(sum(loss.parts.values()), values.detach())
    assert loss.parts["box regression"][1] == 0  # a volume without a nodule has no box to regress
    values.mean().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_a_batch_of_one_has_the_loss_of_monai():
    network, (volumes, target) = small(), cubes()
    torch.manual_seed(1)
    values = BoxesPerSample()(network.train()(volumes[:1]), target[:1]).detach()
    torch.manual_seed(1)  # MONAI draws among the hard anchors
    assert isinstance(network.model, RetinaNetDetector)
    truth = [{"boxes": target[0, :1, :6], "labels": torch.tensor([0])}]
    expected = sum(part.detach() for part in network.model(list(volumes[:1]), truth).values())
    assert float(values[0]) == pytest.approx(float(expected), rel=1e-5)


def test_a_weight_changes_the_loss_and_one_of_no_part_is_refused():
    network, (volumes, target) = small().train(), cubes()
    seen = network(volumes)
    halved = BoxesPerSample({"classification": 0.5})
    values = halved(seen, target).detach()
    expected = 0.5 * halved.parts["classification"] + halved.parts["box regression"]
    assert torch.allclose(values, expected)
    with pytest.raises(InputError, match="no part 'mask' to weigh"):
        BoxesPerSample({"mask": 1.0})(seen, target)


def test_it_learns_where_a_cube_is_and_windows_say_the_same():
    network, loss, (volumes, target) = small(score_from=0.2), BoxesPerSample(), cubes()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    for _ in range(50):
        optimizer.zero_grad()
        loss(network(volumes), target).mean().backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        whole = BoxWindows((24, 24, 24))(volumes[:1], network)
        parts = BoxWindows((16, 24, 24), overlap=0.5)(volumes[:1], network)
    assert whole.shape == (1, 10, 8) and whole.dtype == torch.float32
    for rows, near in ((whole[0], 2), (parts[0], 4)):
        middle = (rows[0, :3] + rows[0, 3:6]) / 2
        assert (middle - 9).abs().max() < near and rows[0, 6] >= rows[1:, 6].nan_to_num(0).max()
    assert torch.equal(whole[0, 0], network(volumes[:1])[0, 0])
    assert not torch.equal(parts.nan_to_num(), whole.nan_to_num()), "windows are used"


def test_by_the_focal_loss_all_anchors_count_for_each_one_on_a_finding():
    loss = FocalOverPositives()
    logits, targets = torch.zeros(4, 1), torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    # At a probability of a half each anchor adds 0.5 * (1 - 0.5)^2 * ln 2; four of them, two on findings.
    assert float(loss(logits, targets)) == pytest.approx(4 * 0.125 * 0.693147 / 2, rel=1e-5)
    assert float(loss(logits, torch.zeros(4, 1))) == pytest.approx(4 * 0.125 * 0.693147, rel=1e-5)
    sure = torch.tensor([[9.0], [9.0], [-9.0], [-9.0]])
    assert float(loss(sure, targets)) < 1e-6
    network, (volumes, target) = small(judged=None), cubes()
    parts = BoxesPerSample()
    parts(network.train()(volumes), target)
    again = BoxesPerSample()  # nothing is drawn: the same answer without a seed
    again(network.train()(volumes), target)
    assert torch.equal(parts.parts["classification"], again.parts["classification"])


def test_no_row_above_the_least_score_is_an_answer():
    with torch.no_grad():
        assert small(score_from=0.999).eval()(cubes()[0]).isnan().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"anchor_shapes": ((3, 3),)}, "three positive sides"),
        ({"anchor_shapes": ((3, 0, 3),)}, "three positive sides"),
        ({"classes": 0}, "expected 1 or more"),
    ],
)
def test_anchors_and_classes_that_cannot_be_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        small(**options)


def test_names_and_inputs_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="choose one of resnet50, resnet10_narrow"):
        VolumeDetector("resnet18")
    with pytest.raises(InputError, match=r"expected \(B, 1, x, y, z\)"):
        small()(torch.zeros(1, 1, 16, 16))
    with pytest.raises(InputError, match=r"expected \(B, rows, 7\)"):
        BoxesPerSample()(small().train()(cubes()[0]), torch.zeros(2, 3, 5))
