"""Mask R-CNN on slices: losses per slice, masks that are learned, findings linked in a volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes
from torchvision.ops import masks_to_boxes

from medseg.errors import InputError
from medseg.inference import LinkedSlices
from medseg.losses import BoxesPerSample
from medseg.networks import SliceDetector
from medseg.networks.slice_detectors import paste_masks

PARTS = {"classification", "box regression", "mask", "RPN objectness", "RPN box"}


def small(**options):
    torch.manual_seed(0)
    options = {"anchor_sides": (8, 16, 24, 32, 48), "proposals": 40, "most": 5, **options}
    return SliceDetector("resnet18_narrow", **options)


def squares(count=2, side=64):
    """(slices (count, 3, side, side), label maps): finding 4 on each, none on the last."""
    slices, labels = torch.rand(count, 3, side, side) * 0.2, torch.zeros(count, 1, side, side)
    slices[: count - 1, :, 20:36, 12:32] = 1.0
    labels[: count - 1, 0, 20:36, 12:32] = 4
    return slices, labels


def test_losses_are_one_value_per_slice_with_their_parts():
    network, loss, (slices, labels) = small(), BoxesPerSample(), squares()
    values = loss(network.train()(slices), labels)
    assert values.shape == (2,) and set(loss.parts) == PARTS
    assert loss.parts["mask"][1] == 0 and loss.parts["mask"][0] > 0
    values.mean().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_a_batch_of_one_has_the_loss_of_torchvision():
    network, (slices, labels) = small(), squares()
    torch.manual_seed(1)
    values = BoxesPerSample()(network.train()(slices[:1]), labels[:1]).detach()
    truth = {"boxes": torch.tensor([[12.0, 20, 32, 36]]), "labels": torch.tensor([1])}
    torch.manual_seed(1)  # torchvision draws the anchors that it judges
    expected = network.model([slices[0]], [{**truth, "masks": (labels[0] == 4).to(torch.uint8)}])
    assert float(values[0]) == pytest.approx(float(sum(v.detach() for v in expected.values())), rel=1e-5)


def test_two_findings_of_a_slice_are_two_boxes_by_their_numbers():
    network, (slices, labels) = small().train(), squares()
    apart = labels.clone()
    apart[0, 0, 20:36, 22:32] = 9
    one, two = (BoxesPerSample()(network(slices), maps).detach()[0] for maps in (labels, apart))
    assert one != two


class Bright(torch.nn.Module):
    """A detector that finds what is bright on the middle slice, and scores it by the slice below."""

    def forward(self, x):
        masks = x[:, 1] > 0.5
        rows = [torch.tensor([[0, 0, 1, 1, float(s[0].max()), 0.0]]) for s in x]
        return [
            {"rows": row[: int(mask.any())], "masks": mask[None][: int(mask.any())]}
            for row, mask in zip(rows, masks, strict=True)
        ]


def test_findings_of_slices_become_rows_and_masks_of_the_volume():
    volume = torch.zeros(1, 1, 10, 12, 6)
    volume[0, 0, 2:5, 3:7, 1:4] = 0.8
    found = LinkedSlices(most=3, batch_size=4)(volume, Bright())
    assert found["rows"].shape == (1, 3, 8) and found["rows"][0, 1:].isnan().all()
    score = (0.8 + 0.8) / 2  # of the two best: the first of three sees nothing below
    assert found["rows"][0, 0].tolist() == pytest.approx([2, 3, 1, 5, 7, 4, score, 0])
    assert np.array_equal(found["masks"][0, 0] == 1, volume[0, 0] > 0.5)


def test_the_first_and_the_last_slice_are_their_own_neighbours():
    volume = torch.full((1, 1, 10, 12, 2), 0.8)
    assert LinkedSlices()(volume, Bright())["rows"][0, 0, 6] == pytest.approx(0.8)


def test_a_volume_without_a_finding_and_two_at_once():
    found = LinkedSlices()(torch.zeros(1, 1, 10, 12, 3), Bright())
    assert found["rows"].isnan().all() and not found["masks"].any()
    with pytest.raises(InputError, match="one volume"):
        LinkedSlices()(torch.zeros(2, 1, 10, 12, 3), Bright())


def test_it_learns_a_square_and_its_mask():
    network, loss, (slices, labels) = small(), BoxesPerSample(), squares()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    network.train()
    parts = []
    for _ in range(25):
        optimizer.zero_grad()
        loss(network(slices), labels).mean().backward()
        optimizer.step()
        parts.append({name: float(values[0]) for name, values in loss.parts.items()})
    for name in ("mask", "classification", "RPN objectness"):
        assert np.mean([part[name] for part in parts[-5:]]) < 0.7 * parts[0][name], name
    with torch.no_grad():
        found = network.eval()(slices)
    assert len(found) == 2 and found[0]["rows"].shape[1] == 6
    assert found[0]["masks"].dtype == torch.bool and found[0]["masks"].shape[1:] == (64, 64)


SQUARES = ((4, 8), (12, 16), (24, 32), (40, 44), (48, 56))


def test_a_level_of_several_sides_has_their_squares_and_one_side_has_three_shapes():
    several, one = (small(anchor_sides=sides).model.rpn for sides in (SQUARES, (8, 16, 24, 32, 48)))
    found = several.anchor_generator.cell_anchors[0]
    assert (found[:, 2:] - found[:, :2]).tolist() == [[4, 4], [8, 8]]
    assert several.head.cls_logits.out_channels == 2 and one.head.cls_logits.out_channels == 3
    slices, labels = squares()
    assert BoxesPerSample()(small(anchor_sides=SQUARES).train()(slices), labels).isfinite().all()


def test_rules_change_what_counts_as_on_a_finding_and_how_many_are_judged():
    (slices, labels), regressed = squares(), {}
    box = torch.tensor([[12.0, 20, 32, 36]])
    truth = {"boxes": box, "labels": torch.tensor([1]), "masks": labels[0] > 0}
    proposals = torch.tensor([[n, 0.0, n + 8, 8] for n in range(40)])
    rules = {"box_batch_size_per_image": 4, "rpn_fg_iou_thresh": 0.4}
    for judged, network in ((20, small().train()), (4, small(rules=rules).train())):
        loss = BoxesPerSample()
        torch.manual_seed(1)
        loss(network(slices), labels)
        regressed[judged] = float(loss.parts["RPN box"][0])
        chosen, *_ = network.model.roi_heads.select_training_samples([proposals], [truth])
        assert len(chosen[0]) == judged
    assert regressed[20] != regressed[4], "more anchors lie on the finding"
    with pytest.raises(InputError, match="unknown 'box_score_thresh'; choose one of rpn_fg_iou_thresh"):
        small(rules={"box_score_thresh": 0.5})


@pytest.mark.slow  # 0.1 billion weights
def test_resnext_101_trains_a_few_steps():
    torch.manual_seed(0)
    network, loss, (slices, labels) = SliceDetector(proposals=50), BoxesPerSample(), squares()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.002, momentum=0.9)
    network.train()
    values = []
    for _ in range(4):
        optimizer.zero_grad()
        value = loss(network(slices), labels).mean()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()
        values.append(float(value.detach()))
    assert np.isfinite(values).all() and min(values[1:]) < values[0]


def test_names_and_inputs_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown 'resnext'; choose one of resnext101_32x8d"):
        SliceDetector("resnext")
    for sides in ((8, 16, 32), (8, (16, 24), 32, 48, 64), ((),) * 5):
        with pytest.raises(InputError, match="anchor sides .*; expected 5 levels"):
            small(anchor_sides=sides)
    with pytest.raises(InputError, match=r"expected \(B, 3, H, W\)"):
        small()(torch.zeros(1, 1, 64, 64))
    with pytest.raises(InputError, match=r"expected \(B, 1, H, W\)"):
        BoxesPerSample()(small().train()(squares()[0]), torch.zeros(2, 3, 5))


@pytest.mark.parametrize("side", [4, 6, 12])
def test_a_mask_comes_back_where_it_was_cut_for_training(side):
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(50), indexing="ij")
    disc = (rows - 20.3) ** 2 + (columns - 31.6) ** 2 <= (side / 2) ** 2
    boxes = masks_to_boxes(disc[None]) + torch.tensor([0, 0, 1, 1])
    cut = project_masks_on_boxes(disc[None].float(), boxes, torch.zeros(1, dtype=torch.long), 28)
    pasted = paste_masks(cut[:, None], boxes, (40, 50))
    assert torch.equal(pasted[0, 0] >= 0.5, disc)
    assert not torch.equal(paste_masks_in_image(cut[:, None], boxes, (40, 50))[0, 0] >= 0.5, disc)


def test_a_slice_without_findings_has_no_masks():
    assert paste_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (40, 50)).shape == (0, 1, 40, 50)


def test_the_detector_pastes_masks_that_way():
    found = [{"boxes": torch.tensor([[3.0, 4, 7, 9]]), "masks": torch.ones(1, 1, 28, 28)}]
    transform = small().eval().model.transform
    (placed,) = transform.postprocess(found, [(16, 16)], [(16, 16)])
    assert placed["masks"][0, 0].nonzero().amin(dim=0).tolist() == [4, 3]
    assert placed["masks"][0, 0].nonzero().amax(dim=0).tolist() == [8, 6]
