"""Every architecture: losses per image, answers in rows, and boxes that are learned."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import FasterRCNN

from medseg.errors import BundleError, InputError
from medseg.losses import BoxesPerSample
from medseg.networks import Detector
from medseg.networks.detectors import ARCHITECTURES
from medseg.training import BoxPrecision

PARTS = {
    "faster_rcnn": {"classification", "box regression", "RPN objectness", "RPN box"},
    "retinanet": {"classification", "box regression"},
    "fcos": {"classification", "box regression", "centre-ness"},
}


def small(architecture="faster_rcnn", **options):
    torch.manual_seed(0)
    return Detector(architecture, "resnet18_narrow", anchor_sides=(8, 16, 32, 64, 128), most=20, **options)


def squares(count=2, side=64):
    """(images (count, 1, side, side), targets (count, 3, 5)): one bright square each, none on the last."""
    images, target = torch.rand(count, 1, side, side) * 0.2, torch.full((count, 3, 5), torch.nan)
    for number in range(count - 1):
        low = 8 + 8 * number
        images[number, 0, low : low + 16, low : low + 20] = 1.0
        target[number, 0] = torch.tensor([low, low, low + 16, low + 20, 0.0])
    return images, target


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_are_one_value_per_image_with_their_parts(architecture):
    network, loss = small(architecture), BoxesPerSample()
    images, target = squares()
    values = loss(network.train()(images), target)
    assert values.shape == (2,) and set(loss.parts) == PARTS[architecture]
    assert torch.allclose(sum(loss.parts.values()), values.detach())
    assert loss.parts["box regression"][1] == 0  # a normal image has no box to regress
    values.mean().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_a_batch_of_one_has_the_loss_of_torchvision():
    network, (images, target) = small(), squares()
    torch.manual_seed(1)
    values = BoxesPerSample()(network.train()(images[:1]), target[:1])
    torch.manual_seed(1)  # torchvision draws the anchors that it judges
    truth = [{"boxes": target[0, :1, [1, 0, 3, 2]], "labels": torch.tensor([1])}]
    assert isinstance(network.model, FasterRCNN)
    expected = network.model([images[0].expand(3, -1, -1)], truth)
    values = values.detach()
    assert float(values[0]) == pytest.approx(
        float(sum(loss.detach() for loss in expected.values())), rel=1e-5
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_rows_within_the_image(architecture):
    with torch.no_grad():
        rows = small(architecture, classes=2, score_from=0.0).eval()(squares()[0])
    assert rows.shape == (2, 20, 6) and rows.dtype == torch.float32
    known = rows[~rows.isnan().any(dim=2)]
    assert len(known) and (known[:, :2] <= known[:, 2:4]).all() and known[:, :4].max() <= 64
    assert set(known[:, 5].tolist()) <= {0.0, 1.0}
    assert (known[:, 4].diff()[: len(known) // 2 - 1] <= 0).all()


def test_a_detector_answers_on_the_grid_it_learned_on():
    """torchvision enlarges images to 800 pixels in evaluation unless it is kept from it."""
    network, loss = small("fcos"), BoxesPerSample()
    images, target = squares(3)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    network.train()
    for _ in range(20):
        optimizer.zero_grad()
        loss(network(images), target).mean().backward()
        optimizer.step()
    with torch.no_grad():
        rows = network.eval()(images)
    metric = BoxPrecision(lambda pair: pair, "map", overlaps=[0.5])
    metric.update((rows, target))
    assert metric.compute() > 0.9


def test_a_part_may_weigh_more_and_only_a_part_that_there_is():
    network, (images, target) = small("retinanet").train(), squares()
    plain, doubled = BoxesPerSample(), BoxesPerSample({"classification": 2.0})
    seen = network(images)
    difference = doubled(seen, target) - plain(seen, target)
    assert torch.allclose(difference, plain.parts["classification"])
    with pytest.raises(InputError, match="no part 'RPN box' to weigh; this detector has"):
        BoxesPerSample({"RPN box": 2.0})(seen, target)


def test_what_is_no_detector_no_target_and_no_image_is_refused(tmp_path):
    network = small().train()
    with pytest.raises(InputError, match="the loss of boxes got Tensor"):
        BoxesPerSample()(torch.zeros(1), torch.zeros(1, 2, 5))
    with pytest.raises(InputError, match=r"boxes of shape \(1, 2, 4\)"):
        BoxesPerSample()(network(torch.zeros(1, 1, 64, 64)), torch.zeros(1, 2, 4))
    with pytest.raises(InputError, match=r"expected \(B, 1, H, W\)"):
        network(torch.zeros(1, 3, 64, 64))
    with pytest.raises(InputError, match="unknown 'yolo'; choose one of faster_rcnn, retinanet, fcos"):
        Detector("yolo")
    with pytest.raises(InputError, match="unknown 'vgg'"):
        Detector(backbone="vgg")
    with pytest.raises(InputError, match="0 classes and 5 anchor sides"):
        Detector(classes=0)
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(BundleError, match="does not fit the backbone"):
        network.with_backbone(tmp_path / "w.pt")


def test_the_measure_of_boxes_by_hand():
    metric = BoxPrecision(lambda pair: pair, "mar_100", overlaps=[0.4])
    target = torch.full((2, 5), torch.nan)
    metric.update(([torch.full((3, 6), torch.nan)], [target]))
    assert metric.compute() != metric.compute()  # nan: no image has a box
    target[0], target[1] = torch.tensor([0, 0, 10, 10, 0.0]), torch.tensor([20, 20, 30, 30, 0.0])
    metric.update(([torch.tensor([[0, 0, 10, 9, 0.7, 0.0]])], [target]))
    assert metric.compute() == 0.5
    with pytest.raises(InputError, match="measure 'dice'"):
        BoxPrecision(lambda pair: pair, "dice")
