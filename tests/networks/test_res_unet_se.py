"""ResUNetSE and CycleNet: shapes, switches, sizes, and that they learn."""

import pytest
import torch
from torch import nn

from medseg.errors import InputError
from medseg.losses.per_sample import DiceBCEPerSample
from medseg.networks.cycle import CycleNet
from medseg.networks.res_unet_se import ResUNetSE

SMALL = {"channels": (4, 8, 8), "strides": (2, 2)}


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("spatial_dims", "strides", "size"),
    [
        (3, (2, 2, 2, 2), (32, 48, 32)),
        (3, ((2, 2, 1), (2, 2, 1), 2, 2), (32, 32, 12)),
        (2, (2, 2, 2, 2), (32, 48)),
        (2, ((2, 1), 2, 2, 2), (32, 24)),
    ],
)
def test_logits_have_the_size_of_the_input_and_one_channel_per_structure(spatial_dims, strides, size):
    network = ResUNetSE(spatial_dims, in_channels=2, out_channels=3, strides=strides)
    assert network(torch.rand(1, 2, *size)).shape == (1, 3, *size)


def test_total_stride_is_the_product_of_the_steps_on_each_axis():
    assert ResUNetSE(3, 1, 1, strides=((2, 2, 1), (2, 2, 1), 2, 2)).size_multiple == (16, 16, 4)


def test_output_is_logits_that_leave_the_range_of_a_probability():
    torch.manual_seed(0)
    logits = ResUNetSE(2, 1, 1)(torch.randn(1, 1, 32, 32) * 10)
    assert logits.min() < 0


def test_residual_unit_adds_one_1x1_convolution_where_the_width_changes():
    plain = ResUNetSE(2, 1, 1, **SMALL, residual=False, squeeze_excitation=False)
    residual = ResUNetSE(2, 1, 1, **SMALL, residual=True, squeeze_excitation=False)
    # Width changes 1->4, 4->8 in the encoder (8->8 does not), 16->8 and 8->4 in the decoder; weights plus
    # bias.
    by_hand = (1 * 4 + 4) + (4 * 8 + 8) + (16 * 8 + 8) + (8 * 4 + 4)
    assert n_parameters(residual) - n_parameters(plain) == by_hand


def test_squeeze_excitation_adds_two_dense_layers_per_unit():
    residual = ResUNetSE(2, 1, 1, **SMALL, squeeze_excitation=False)
    with_se = ResUNetSE(2, 1, 1, **SMALL, squeeze_excitation=True)
    # Units of width 4, 8, 8 (down) and 8, 4 (up); reduction 2: w -> w/2 -> w, both with bias.
    by_hand = sum((w * w // 2 + w // 2) + (w // 2 * w + w) for w in (4, 8, 8, 8, 4))
    assert n_parameters(with_se) - n_parameters(residual) == by_hand


def test_convolutions_of_the_plain_unet_are_the_two_per_level_of_the_paper():
    plain = ResUNetSE(3, 1, 1, residual=False, squeeze_excitation=False)
    kernels = [m.kernel_size for m in plain.modules() if isinstance(m, nn.Conv3d)]
    assert kernels.count((3, 3, 3)) == 2 * 5 + 2 * 4  # five resolutions down, four back up
    assert kernels.count((1, 1, 1)) == 1  # the head


def test_dropout_changes_the_output_in_training_only():
    torch.manual_seed(0)
    network, x = ResUNetSE(2, 1, 1, **SMALL, dropout=0.5), torch.rand(1, 1, 16, 16)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize("setting", [{"norm": "BATCH"}, {"activation": "ELU"}])
def test_norm_and_activation_change_the_output(setting):
    torch.manual_seed(0)
    default = ResUNetSE(2, 1, 1, **SMALL)
    torch.manual_seed(0)
    changed = ResUNetSE(2, 1, 1, **SMALL, **setting)
    x = torch.rand(2, 1, 16, 16)
    assert not torch.allclose(default(x), changed(x), atol=1e-3)


def test_size_that_does_not_halve_evenly_is_refused_with_the_size_to_pad_to():
    with pytest.raises(InputError, match=r"\(30, 32, 31\).*Pad to \(32, 32, 32\)"):
        ResUNetSE(3, 1, 1, **SMALL)(torch.rand(1, 1, 30, 32, 31))


def test_wrong_number_of_strides_is_refused():
    with pytest.raises(InputError, match="3 channels and 3 strides"):
        ResUNetSE(3, 1, 1, channels=(4, 8, 8), strides=(2, 2, 2))
    with pytest.raises(InputError, match="has 2 axes; the network has 3"):
        ResUNetSE(3, 1, 1, channels=(4, 8), strides=((2, 2),))


@pytest.mark.parametrize("switches", [(False, False), (True, False), (True, True)])
def test_network_overfits_one_tiny_batch(switches):
    torch.manual_seed(0)
    residual, squeeze_excitation = switches
    network = ResUNetSE(3, 1, 1, **SMALL, residual=residual, squeeze_excitation=squeeze_excitation)
    image = torch.rand(2, 1, 16, 16, 16) * 0.2
    image[0, :, 3:9, 4:12, 2:8] += 0.5
    image[1, :, 8:15, 2:6, 5:14] += 0.5
    label = (image > 0.45).float()
    assert dice_after_training(network, image, label, steps=60) > 0.95


def dice_after_training(network: nn.Module, image: torch.Tensor, label: torch.Tensor, steps: int) -> float:
    optimizer, loss = torch.optim.Adam(network.parameters(), 1e-2), DiceBCEPerSample()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network(image), label).mean().backward()
        optimizer.step()
    predicted = network(image) > 0
    return float(2 * (predicted * label).sum() / (predicted.sum() + label.sum()))


def test_one_cycle_equals_the_plain_network_with_a_zero_channel():
    torch.manual_seed(0)
    network, image = ResUNetSE(2, 1 + 2, 2, **SMALL), torch.rand(1, 1, 16, 16)
    by_hand = network(torch.cat([image, torch.zeros(1, 2, 16, 16)], dim=1))
    assert torch.equal(CycleNet(network, out_channels=2, cycles=1)(image), by_hand)


def test_second_cycle_sees_the_probabilities_of_the_first():
    torch.manual_seed(0)
    network, image = ResUNetSE(2, 1 + 1, 1, **SMALL), torch.rand(1, 1, 16, 16)
    first = network(torch.cat([image, torch.zeros(1, 1, 16, 16)], dim=1))
    by_hand = network(torch.cat([image, torch.sigmoid(first)], dim=1))
    twice = CycleNet(network, out_channels=1, cycles=2)(image)
    assert torch.equal(twice, by_hand)
    assert not torch.allclose(twice, first, atol=1e-4)


def test_cycles_share_their_weights_and_all_pass_gradients():
    network = ResUNetSE(2, 2, 1, **SMALL)
    assert n_parameters(CycleNet(network, 1, cycles=3)) == n_parameters(network)

    class Recorder(nn.Module):
        """Scales its prediction channel, so the derivative after K passes is known: sum over the chain of
        passes."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * (x[:, :1] + x[:, 1:])

    recorder = Recorder()
    CycleNet(recorder, 1, cycles=2)(torch.zeros(1, 1, 1, 1)).sum().backward()
    # pass 1: z1 = w (0 + 0) = 0; pass 2: z2 = w sigmoid(z1) = 0.5 w, and dz1/dw = 0, so dz2/dw = 0.5.
    assert recorder.weight.grad.item() == pytest.approx(0.5)
    recorder.weight.grad = None
    CycleNet(recorder, 1, cycles=2)(torch.ones(1, 1, 1, 1)).sum().backward()
    # z1 = w, z2 = w (1 + s(w)); dz2/dw = 1 + s + w s (1 - s) at w = 1, s = 0.731059: the last term is pass
    # 1's.
    assert recorder.weight.grad.item() == pytest.approx(1 + 0.731059 + 0.731059 * 0.268941, abs=1e-5)


def test_zero_cycles_are_refused():
    with pytest.raises(InputError, match="cycles=0"):
        CycleNet(nn.Identity(), out_channels=1, cycles=0)
