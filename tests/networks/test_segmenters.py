"""Every named architecture takes a photograph of any size, learns, survives a batch of one and loads a local
backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet101, vgg16_bn

from medseg.errors import BundleError, InputError
from medseg.losses import BCEPerSample
from medseg.networks import Segmenter
from medseg.networks.segmenters import ARCHITECTURES, Architecture
from medseg.networks.segnet import SegNet

FIVE = ("unet", "fcn_resnet101", "segnet", "deeplabv3", "deeplabv3plus")
NARROW = tuple(f"{name}_narrow" for name in FIVE)
MILLIONS = {
    "unet": 31.1,  # Ronneberger's widths with batch norm
    "fcn_resnet101": 51.9,  # torchvision's table says 54.3 with its auxiliary head and 21 classes
    "segnet": 29.4,  # twice VGG16's 14.7 million
    "deeplabv3": 58.6,  # torchvision: 61.0 with auxiliary head
    "deeplabv3plus": 45.7,
}


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def narrow():
    torch.manual_seed(0)
    return {name: Segmenter(name) for name in NARROW}


def test_the_five_are_in_the_table_in_both_widths():
    assert {*FIVE, *NARROW} < set(ARCHITECTURES)


@pytest.mark.parametrize("name", FIVE)
def test_published_widths_have_the_published_number_of_parameters(name):
    with torch.device("meta"):
        network = ARCHITECTURES[name].build(1)
    assert parameters(network) / 1e6 == pytest.approx(MILLIONS[name], abs=0.1)


@pytest.mark.parametrize("name", NARROW)
def test_narrow_weights_fit_ten_megabytes_in_half_precision(name, narrow):
    assert 2 * sum(v.numel() for v in narrow[name].state_dict().values()) < 10e6


@pytest.mark.parametrize("name", NARROW)
def test_an_odd_size_goes_in_and_comes_out(name, narrow):
    with torch.inference_mode():
        assert narrow[name].eval()(torch.zeros(1, 3, 571, 640)).shape == (1, 1, 571, 640)
        assert narrow[name](torch.zeros(2, 3, 64, 33)).shape == (2, 1, 64, 33)


@pytest.mark.parametrize("name", NARROW)
def test_a_batch_of_one_trains_without_nan(name, narrow):
    torch.manual_seed(1)
    network = narrow[name].train()
    loss = BCEPerSample()(network(torch.randn(1, 3, 64, 64)), torch.zeros(1, 1, 64, 64)).mean()
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and len(gradients) > 20
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    network.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", NARROW)
def test_it_overfits_one_picture(name):
    torch.manual_seed(2)
    network = Segmenter(name)
    picture = 0.1 * torch.randn(1, 3, 64, 64)
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., 20:44, 24:40] = 1
    picture[:, :, 20:44, 24:40] += 1
    for module in network.modules():
        if isinstance(module, nn.Dropout):  # one picture is to be learnt by heart
            module.p = 0.0
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        logits = network.train()(picture)
        loss = BCEPerSample()(logits, truth).mean()
        loss.backward()
        optimizer.step()
        found = logits > 0
        common = (found & (truth > 0)).sum()
        if 2 * common / (found.sum() + truth.sum()) > 0.9:
            return
    pytest.fail(f"{name} did not learn one picture: loss {loss:.3f}")


def test_no_batch_norm_is_left_where_the_image_is_one_pixel():
    pooled = [
        module
        for name in ("deeplabv3_narrow", "deeplabv3plus_narrow")
        for module in Segmenter(name).modules()
        if isinstance(module, nn.Sequential) and len(module) and isinstance(module[0], nn.AdaptiveAvgPool2d)
    ]
    assert len(pooled) == 2
    assert not [layer for branch in pooled for layer in branch if isinstance(layer, nn.BatchNorm2d)]
    # What it does to two values, however close: the guard's reason.
    norm = nn.BatchNorm2d(1)
    assert norm(torch.tensor([1.0, 1.1]).reshape(2, 1, 1, 1)).flatten().tolist() == pytest.approx(
        [-1, 1], abs=0.01
    )
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(torch.ones(1, 1, 1, 1))


def test_segnet_puts_a_value_back_where_its_maximum_stood():
    network = SegNet(narrowing=4).eval()
    assert not [m for m in network.modules() if isinstance(m, nn.ConvTranspose2d | nn.Upsample)]
    with pytest.raises(InputError, match="needs 32 or more"):
        network(torch.zeros(1, 3, 31, 64))


def test_published_weights_of_the_backbones_have_the_names_of_ours():
    with torch.device("meta"):
        resnet = {name for name in resnet101().state_dict() if not name.startswith("fc.")}
        vgg = set(vgg16_bn().features.state_dict())
        for name, published in (("fcn_resnet101", resnet), ("deeplabv3plus", resnet), ("segnet", vgg)):
            network = ARCHITECTURES[name].build(1)
            assert set(network.get_submodule(ARCHITECTURES[name].encoder).state_dict()) == published, name


def test_a_backbone_comes_from_a_local_file_and_from_nowhere_else(tmp_path, monkeypatch):
    tiny = Architecture(lambda c: SegNet(c, 16), encoder="encoder", made_for="a tiny VGG16")
    monkeypatch.setitem(ARCHITECTURES, "tiny", tiny)
    weights = SegNet(1, 16).encoder.state_dict()
    more = {f"features.{name}": tensor for name, tensor in weights.items()}
    torch.save({**more, "classifier.0.weight": torch.ones(3)}, tmp_path / "vgg.pth")
    network = Segmenter("tiny").with_backbone(tmp_path / "vgg.pth")
    assert torch.equal(network.network.encoder[0].weight, weights["0.weight"])
    torch.save({**more, "features.0.weight": torch.ones(4, 3, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(BundleError, match=r"does not fit the backbone: 1 tensors, first '0.weight'"):
        Segmenter("tiny").with_backbone(tmp_path / "other.pth")
    with pytest.raises(InputError, match="no such file or folder; expected weights of a tiny VGG16"):
        Segmenter("tiny").with_backbone(tmp_path / "missing.pth")
    with pytest.raises(InputError, match="no backbone that anybody publishes"):
        Segmenter("unet_narrow").with_backbone(tmp_path / "vgg.pth")
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(BundleError, match="not a plain state dict"):
        Segmenter("tiny").with_backbone(tmp_path / "bad.pth")


def test_an_unknown_name_lists_the_known_ones_and_grey_input_is_refused(narrow):
    with pytest.raises(InputError, match="choose one of unet, unet_narrow, fcn_resnet101"):
        Segmenter("unet++")
    with pytest.raises(InputError, match=r"expected \(B, 3, H, W\)"):
        narrow["unet_narrow"](torch.zeros(1, 1, 64, 64))
