"""Maps of detectors: they depend on the weights and on the class, and leave the network as it was."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import InputError
from medseg.inference.box_maps import METHODS, box_map
from medseg.networks import Detector
from medseg.transforms import BoxMapsd

SIDES = (8, 16, 32, 64, 128)


def detector(seed, **options):
    torch.manual_seed(seed)
    options = {"classes": 2, "most": 10, "score_from": 0.0, **options}
    return Detector("retinanet", "resnet18_narrow", anchor_sides=SIDES, **options).eval()


@pytest.fixture(scope="module")
def image():
    torch.manual_seed(5)
    picture = torch.rand(1, 1, 64, 64) * 0.3
    picture[..., 20:40, 24:44] = 1.0
    return picture


@pytest.mark.parametrize("method", METHODS)
def test_randomised_weights_change_the_map(method, image):
    network = detector(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, again, other = (box_map(n, image, method, 0) for n in (network, network, detector(1)))
    assert one.shape == (64, 64) and 0 <= float(one.min()) and float(one.max()) == pytest.approx(1)
    assert torch.allclose(one, again, atol=1e-5)
    alike = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
    assert float(alike) < 0.9
    assert not network.training and not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("method", ["Grad-CAM", "saliency"])
def test_classes_have_maps_of_their_own(method, image):
    network = detector(0)
    with torch.no_grad():  # the two classes look at different channels
        network.model.head.classification_head.cls_logits.weight[1::2] *= -1
    maps = torch.stack([box_map(network, image, method, number).flatten() for number in (0, 1)])
    assert (maps[0] - maps[1]).abs().max() > 0.05


def test_a_class_that_is_not_found_has_an_empty_map(image):
    network = detector(0, score_from=0.9999)
    assert not box_map(network, image, "Grad-CAM", 0).any()


def test_maps_come_with_their_names(image):
    item = {"image": MetaTensor(image[0])}
    found = BoxMapsd(network=detector(0), classes=("mass", "nodule"), methods=("EigenCAM", "saliency"))(item)
    assert found["map"].shape == (4, 64, 64)
    assert found["map_names"] == ("EigenCAM: mass", "saliency: mass", "EigenCAM: nodule", "saliency: nodule")
    with pytest.raises(InputError, match="map 'LIME': expected some of EigenCAM"):
        BoxMapsd(network=detector(0), methods=("LIME",))
