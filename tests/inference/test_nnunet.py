"""The parts of nnU-Net's inference against other ways to the same numbers: scipy at once, loops, whole
arrays."""

from __future__ import annotations

import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from medseg.errors import InputError
from medseg.inference import NnunetInferer
from medseg.inference.nnunet_labels import keep_largest, labels_of
from medseg.inference.nnunet_stage import Prepared, Scheme, Stage, prepare
from medseg.inference.nnunet_windows import Folds, importance, merged_planes, window_starts
from medseg.inference.resampling import Resampling, new_shape, resampled, resampled_labels
from medseg.networks import Stages

LINEAR = {"order": 1, "order_across": 0, "separate": None}
PLAIN = {
    "transpose": [0, 1, 2],
    "spacing_mm": [1.0, 1.0, 1.0],
    "patch_size": [4, 6, 6],
    "normalisation": [{"kind": "none"}],
    "image": {"order": 3, "order_across": 0, "separate": None},
    "logits": LINEAR,
    "labels": LINEAR,
    "classes": 3,
}


# ---- resampling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1, 3])
def test_axis_after_axis_gives_what_scipy_gives_at_once(order):
    volume = np.random.default_rng(0).normal(size=(7, 9, 8)).astype(np.float32)
    shape = (10, 6, 13)
    zooms = [b / a for a, b in zip(volume.shape, shape, strict=True)]
    wanted = ndimage.zoom(volume.astype(float), zooms, order=order, mode="nearest", grid_mode=True)
    found = resampled(volume, shape, Resampling(order))
    assert np.abs(found - np.clip(wanted, volume.min(), volume.max())).max() < 1e-5


def test_a_coarse_axis_is_resampled_apart_and_takes_the_nearest_slice():
    how = Resampling(1, 0)
    assert how.axis_apart((5.0, 1.0, 1.0), (5.0, 1.0, 1.0)) == 0
    assert how.axis_apart((1.0, 1.0, 2.0), (1.0, 1.0, 4.0)) == 2
    assert how.axis_apart((2.0, 1.0, 1.0), (1.0, 1.0, 1.0)) is None
    assert how.axis_apart((1.0, 4.0, 4.0), (1.0, 4.0, 4.0)) is None  # two axes are coarse: none stands out
    assert Resampling(1, 0, separate=False).axis_apart((9.0, 1.0, 1.0), (9.0, 1.0, 1.0)) is None
    volume = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)
    assert resampled(volume, (6, 2, 2), how, apart=0)[:, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_sizes_are_rounded_as_python_rounds():
    assert new_shape((30, 18, 10), (3.0, 1.1, 1.0), (4.0, 1.2, 3.0)) == (22, 16, 3)  # 22.5, 16.5, 3.33


def test_labels_are_resampled_one_by_one_and_of_equal_shares_the_nearest_wins():
    labels = np.array([[[0, 0, 2, 2, 1, 1]]])
    assert resampled_labels(labels, (1, 1, 6), Resampling(1)).tolist() == labels.tolist()
    assert resampled_labels(labels, (1, 1, 3), Resampling(1)).tolist() == [[[0, 2, 1]]]
    # The centre between 1 and 2 has a half of each; counted from 0, scipy's nearest voxel is the second.
    assert resampled_labels(np.array([[[1, 2]]]), (1, 1, 1), Resampling(1)).tolist() == [[[2]]]
    assert resampled_labels(np.array([[[2, 1]]]), (1, 1, 1), Resampling(1)).tolist() == [[[1]]]
    apart = resampled_labels(np.array([[[1]], [[2]]]), (4, 1, 1), Resampling(1), apart=0)
    assert apart.ravel().tolist() == [1, 1, 2, 2]


# ---- preparing ---------------------------------------------------------------------------------------------


def test_ct_values_are_clipped_and_scaled_by_those_of_the_training():
    scheme = Scheme("ct", low=-100.0, high=200.0, mean=50.0, spread=25.0)
    values = scheme.applied(np.array([[[-500.0, 50.0, 500.0]]], np.float32), None)
    assert values.tolist() == [[[-6.0, 0.0, 6.0]]]


def test_of_a_z_score_inside_the_patient_the_outside_stays():
    channel = np.array([[[0.0, 1.0, 3.0]]], np.float32)
    values = Scheme("z_score", inside_only=True).applied(channel, channel > 0)
    assert values.tolist() == [[[0.0, -1.0, 1.0]]]


def test_an_image_is_cut_to_what_is_not_0_and_the_answer_lies_there_again():
    volume = np.zeros((1, 6, 7, 8), np.float32)
    volume[0, 1:4, 2:6, 3:5] = 7.0
    prepared = prepare(volume, (1.0, 1.0, 1.0), Stage.of({**PLAIN, "transpose": [2, 0, 1]}))
    assert prepared.image.shape == (1, 2, 3, 4) and prepared.whole == (8, 6, 7)
    back = prepared.restored(np.ones((2, 3, 4), np.uint8), Stage.of({**PLAIN, "transpose": [2, 0, 1]}))
    assert (back == (volume[0] > 0)).all()
    assert prepare(volume * 0, (1.0, 1.0, 1.0), Stage.of(PLAIN)).image.shape == (1, 6, 7, 8)


# ---- windows -----------------------------------------------------------------------------------------------


def test_windows_are_spread_evenly_and_end_with_the_axis():
    assert window_starts(110, 64) == [0, 23, 46]
    assert window_starts(64, 64) == [0]
    assert window_starts(65, 64) == [0, 1]


def test_a_ring_of_planes_gives_the_sums_of_the_whole_volume():
    stage = Stage.of({**PLAIN, "mirror_axes": [0, 2]})
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 3, 3, padding=1).eval()
    image = torch.randn(1, 11, 13, 10)
    with torch.no_grad():
        planes = torch.stack(list(merged_planes(image, Folds([network, network], stage))), dim=1)
        sums, count, weights = (
            torch.zeros(3, 11, 13, 10),
            torch.zeros(11, 13, 10),
            importance((4, 6, 6)).float(),
        )
        for z in window_starts(11, 4):
            for y in window_starts(13, 6):
                for x in window_starts(10, 6):
                    place = (slice(z, z + 4), slice(y, y + 6), slice(x, x + 6))
                    window = image[(slice(None), *place)][None]
                    turns = [(), (2,), (4,), (2, 4)]
                    answers = [torch.flip(network(torch.flip(window, t)), t)[0] for t in turns]
                    sums[(slice(None), *place)] += torch.stack(answers).mean(0) * weights
                    count[place] += weights
    assert planes.dtype == torch.half
    # At corners weights are so small that float16 has no digits for them, here as in nnU-Net.
    known = count > 0.01
    assert (planes.float() - sums / count)[:, known].abs().max() < 5e-3 and known.float().mean() > 0.5


def test_an_image_smaller_than_the_patch_is_framed_by_zeros_for_the_network_alone():
    seen = []

    def network(window):
        seen.append(window)
        return window.repeat(1, 3, 1, 1, 1)

    image = torch.ones(1, 3, 4, 5)
    planes = list(merged_planes(image, Folds([network], Stage.of(PLAIN))))
    assert seen[0].shape == (1, 1, 4, 6, 6) and seen[0].sum() == 60
    assert len(planes) == 3 and planes[0].shape == (3, 4, 5) and bool((planes[0] == 1).all())


def test_a_window_of_one_value_is_computed_once():
    calls = []

    def network(window):
        calls.append(1)
        return window.repeat(1, 3, 1, 1, 1)

    list(merged_planes(torch.zeros(1, 16, 18, 18), Folds([network], Stage.of(PLAIN))))
    assert len(calls) == 1


def test_a_plane_is_finished_as_soon_as_no_window_reaches_it_any_more():
    calls = []

    def network(window):
        calls.append(1)
        return window.repeat(1, 3, 1, 1, 1)

    planes = merged_planes(torch.randn(1, 40, 6, 6), Folds([network], Stage.of(PLAIN)))
    next(planes)
    assert len(calls) == 1  # of 19 windows, two planes apart
    next(planes)
    next(planes)
    assert len(calls) == 2 and len(list(planes)) == 37 and len(calls) == 19


def test_an_answer_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="not finite"):
        list(
            merged_planes(
                torch.ones(1, 4, 6, 6), Folds([lambda w: w.repeat(1, 3, 1, 1, 1) / 0], Stage.of(PLAIN))
            )
        )


# ---- labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regions", [False, True])
def test_tile_by_tile_the_labels_are_those_of_the_whole_volume(regions):
    rng = np.random.default_rng(1)
    logits = torch.from_numpy(
        ndimage.gaussian_filter(rng.normal(size=(3, 6, 30, 24)), (0, 1, 3, 3)) * 20
    ).half()
    shape, cropped = (6, 30, 24), (9, 50, 41)
    own = {"regions": [1, 2, 3], "classes": 0} if regions else {}
    stage = Stage.of({**PLAIN, **own})
    prepared = Prepared(np.zeros((1, *shape)), cropped, (slice(None),) * 3, cropped, None)
    found = labels_of((logits[:, n] for n in range(6)), shape, prepared, stage)
    large = [
        ndimage.zoom(
            channel.astype(float),
            [b / a for a, b in zip(shape, cropped, strict=True)],
            order=1,
            mode="nearest",
            grid_mode=True,
        )
        for channel in logits.numpy()
    ]
    large = np.stack(large).astype(np.float16)
    wanted = large.argmax(0)
    if regions:
        wanted = np.zeros(cropped, int)
        for number, channel in enumerate(large, start=1):
            wanted[channel > 0] = number
    assert (found == wanted).mean() > 0.9999 and len(np.unique(wanted)) > 2


def test_labels_are_decided_while_no_more_than_three_planes_are_held():
    alive, most = [], []

    def planes():
        for _ in range(30):
            plane = torch.randn(3, 8, 8).half()
            alive.append(weakref.ref(plane))
            most.append(sum(ref() is not None for ref in alive))
            yield plane
            del plane

    prepared = Prepared(np.zeros((1, 30, 8, 8)), (41, 9, 10), (slice(None),) * 3, (41, 9, 10), None)
    assert labels_of(planes(), (30, 8, 8), prepared, Stage.of(PLAIN)).shape == (41, 9, 10)
    assert max(most) <= 3


def test_of_two_pieces_the_larger_stays_and_of_two_as_large_both():
    labels = np.array([[[1, 1, 0, 1, 0, 2, 2, 0, 2, 2]]])
    assert keep_largest(labels, [[1], [2]]).tolist() == [[[1, 1, 0, 0, 0, 2, 2, 0, 2, 2]]]


# ---- the whole ---------------------------------------------------------------------------------------------


def test_an_inferer_asks_for_what_it_needs():
    inferer, network = NnunetInferer([PLAIN]), Stages([[torch.nn.Conv3d(1, 3, 1)]])
    with pytest.raises(InputError, match="no voxel size"):
        inferer(torch.zeros(1, 1, 4, 4, 4), network)
    with pytest.raises(InputError, match="2 networks for 1 stages"):
        inferer(
            MetaTensor(torch.zeros(1, 1, 4, 4, 4)), Stages([[torch.nn.Identity()], [torch.nn.Identity()]])
        )
    with pytest.raises(InputError, match="2 channels for a network of 1"):
        inferer(MetaTensor(torch.zeros(1, 2, 4, 4, 4)), network)
    with pytest.raises(InputError, match="unknown field 'patch'"):
        NnunetInferer([{**PLAIN, "patch": 3}])
    with pytest.raises(InputError, match="does not come before it"):
        NnunetInferer([{**PLAIN, "previous": 0}])


def test_a_stage_looks_only_around_what_an_earlier_one_found():
    seen = []

    class Bright(torch.nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape[2:]))
            return torch.cat([torch.full_like(x, 0.5), x, torch.zeros_like(x)], dim=1)

    first = {**PLAIN, "result": False}
    second = {**PLAIN, "around": {"stage": 0, "labels": [1], "margin_mm": 1.0}, "merge": {"1": 9}}
    image = torch.full((1, 1, 20, 20, 20), 0.1)
    image[..., 8:10, 8:10, 8:10] = 1.0
    found = NnunetInferer([first, second], engine="torch")(
        MetaTensor(image), Stages([[Bright()], [Bright()]])
    )
    assert found.shape == (1, 1, 20, 20, 20) and ((found == 9) == (image == 1)).all()
    nothing = NnunetInferer([first, second], engine="torch")(
        MetaTensor(image * 0.1), Stages([[Bright()], [Bright()]])
    )
    assert not nothing.any()


@pytest.mark.slow  # six minutes of an idle processor, and 3.4 GB
@pytest.mark.timeout(3600)
def test_117_classes_of_a_whole_ct_stay_under_6_gb():
    """In five networks, as TotalSegmentator has them; all logits at once would be 11 GB in float16."""
    before, grown = memory_gb((400, 512, 512), [128, 128, 128], classes=[25, 27, 19, 24, 27])
    assert before + grown < 6.0, (before, grown)


def memory_gb(shape, patch, classes):
    """(before, how much more at the most) of a process that labels an image of 0.98 x 0.98 x 1.5 mm voxels at
    1.5 mm, with a stage for each number of classes, each of which is found."""
    script = f"""
import resource, numpy as np, torch
from monai.data import MetaTensor
from medseg.inference import NnunetInferer
from medseg.networks import Stages
class Bands(torch.nn.Module):
    # The nearest of evenly spaced values: of -(x - c)^2 what differs between classes.
    def __init__(self, classes):
        super().__init__()
        values = torch.linspace(-2, 2, classes).reshape(1, -1, 1, 1, 1)
        self.slope, self.at_0 = 2 * values, -(values**2)
    def forward(self, x):
        return torch.addcmul(self.at_0, x, self.slope)
common = {{**{PLAIN!r}, "spacing_mm": [1.5] * 3, "patch_size": {patch}}}
stages = [{{**common, "classes": classes}} for classes in {classes}]
noise = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 8, 8, 8)).astype(np.float32))
affine = torch.diag(torch.tensor([0.9765625, 0.9765625, 1.5, 1.0]))
inferer = NnunetInferer(stages, engine="torch")
network = Stages([[Bands(classes)] for classes in {classes}])
def peak_gb(size):
    image = MetaTensor(torch.nn.functional.interpolate(noise, size, mode="trilinear"), affine=affine)
    labels = inferer(image, network)
    assert labels.shape == image.shape and len(labels.as_tensor().unique()) == max({classes})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
before = peak_gb((48, 48, 32))
print(before, peak_gb({shape[::-1]}) - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, grown = map(float, done.stdout.split())
    return before, grown
