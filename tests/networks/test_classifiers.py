"""Backbones by name behind one contract, and where they look."""

from __future__ import annotations

import threading

import pytest
import torch
from monai.visualize import GradCAM
from torchvision import models

from medseg.errors import BundleError, InputError
from medseg.inference.cams import eigen_cam, grad_cam
from medseg.networks.classifiers import BACKBONES, Classifier


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "vgg16"])
def test_every_backbone_gives_logits_whatever_the_size(name):
    torch.manual_seed(0)
    network = Classifier(name, classes=3).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 1, 96, 80)).shape == (2, 3)
    maps = network.get_submodule(network.maps)
    assert isinstance(maps, torch.nn.Module)


@pytest.mark.slow
def test_vgg16_too():  # 138 million parameters
    with torch.no_grad():
        assert Classifier("vgg16").eval()(torch.rand(1, 1, 64, 64)).shape == (1, 2)


def test_covariates_join_behind_the_backbone():
    torch.manual_seed(0)
    network = Classifier("resnet18_narrow", covariates=2).eval()
    image, other = torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64)

    def answer(image, age, height):
        planes = [torch.full((1, 1, 64, 64), value) for value in (age, height)]
        with torch.no_grad():
            return network(torch.cat([image, *planes], dim=1))

    # A covariate moves the logits by its weight times its change, whatever the image.
    moved = answer(image, 0.7, 0.1) - answer(image, 0.2, 0.1)
    assert torch.allclose(moved[0], 0.5 * network.head.weight[:, -2], atol=1e-5)
    assert torch.allclose(moved, answer(other, 0.7, 0.1) - answer(other, 0.2, 0.1), atol=1e-5)
    with pytest.raises(InputError, match=r"expected \(B, 3, H, W\)"):
        network(image)


def test_what_is_no_network_is_refused():
    with pytest.raises(InputError, match="unknown backbone 'resnet19'; choose one of resnet18"):
        Classifier("resnet19")
    with pytest.raises(InputError, match="1 classes"):
        Classifier("resnet18", classes=1)


def test_published_weights_come_from_a_local_file(tmp_path):
    torch.manual_seed(1)
    published = models.resnet18()
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    network = Classifier("resnet18").with_backbone(tmp_path / "resnet18.pth")
    assert torch.equal(network.backbone.conv1.weight, published.conv1.weight)
    with pytest.raises(
        BundleError, match="does not fit the backbone: .* expected weights of torchvision resnet34"
    ):
        Classifier("resnet34").with_backbone(tmp_path / "resnet18.pth")
    with pytest.raises(InputError, match="no such file"):
        Classifier("resnet18").with_backbone(tmp_path / "none.pth")
    assert Classifier("resnet18").with_backbone(None).name == "resnet18"


class Bright(torch.nn.Module):
    """Two maps, the image and its opposite; class 1 is the mean of the first, class 0 of the second."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))
            self.layer.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, x):
        return self.layer(x).mean((2, 3))


def test_a_map_shows_what_speaks_for_the_class_and_not_the_rest():
    image = torch.zeros(1, 1, 16, 16)
    image[..., 2:6, 10:14] = 1.0
    network = Bright()
    bright, dark = (grad_cam(network, image, "layer", number) for number in (1, 0))
    assert bright.shape == (16, 16) and (bright.min(), bright.max()) == (0, 1)
    assert (bright[2:6, 10:14] == 1).all() and bright.sum() == 16
    assert (dark[2:6, 10:14] == 0).all() and (dark > 0).sum() == 256 - 16
    assert (eigen_cam(network, image, "layer")[2:6, 10:14] > 0.9).all()


def test_monai_draws_the_same_map():
    torch.manual_seed(0)
    network, image = Classifier("resnet18_narrow").eval(), torch.rand(1, 1, 96, 64)
    peer = GradCAM(network, network.maps, postprocessing=lambda found: found)(image, class_idx=1)[0, 0]
    peer = peer.detach().clamp(min=0)
    assert torch.allclose(grad_cam(network, image, network.maps, 1), peer / peer.max(), atol=1e-4)


def test_an_image_of_one_value_has_an_empty_component_and_the_mode_stays():
    network = Bright().train()
    assert eigen_cam(network, torch.full((1, 1, 8, 8), 0.5), "layer").sum() == 0
    assert grad_cam(network, torch.zeros(1, 1, 8, 8), "layer", 1).sum() == 0
    assert network.training
    assert not network.layer._forward_hooks


def test_another_thread_at_the_same_network_changes_no_map():
    """A cohort draws a case's map while the network is at the next case, in inference mode."""
    torch.manual_seed(0)
    network, image = Classifier("resnet18_narrow").eval(), torch.rand(1, 1, 64, 64)
    alone = grad_cam(network, image, network.maps, 1)
    stop = threading.Event()

    def answer_others():
        while not stop.is_set():
            with torch.inference_mode():
                network(torch.rand(1, 1, 64, 64))

    other = threading.Thread(target=answer_others)
    other.start()
    try:
        for _ in range(10):
            assert torch.equal(grad_cam(network, image, network.maps, 1), alone)
    finally:
        stop.set()
        other.join()


def test_other_weights_give_another_map():
    """The check of Adebayo et al. (2018): a map that stays when the weights are drawn again shows the image,
    not the network."""
    torch.manual_seed(0)
    image = torch.rand(1, 1, 64, 64)
    one = grad_cam(Classifier("resnet18_narrow").eval(), image, "backbone.layer4", 1)
    torch.manual_seed(5)
    other = grad_cam(Classifier("resnet18_narrow").eval(), image, "backbone.layer4", 1)
    together = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
    assert not together > 0.9
