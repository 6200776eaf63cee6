"""Label noise: each law against masks worked out by hand, exact shares, and one test that replays every
record."""

import json

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor

from medseg.errors import InputError
from medseg.training.noisy.generators import GENERATORS, FreshLabelNoised, LabelNoised, Noise, draw, plan
from medseg.training.noisy.noise import CORRUPTIONS, Corruption, CorruptionRecord, apply, corrupt


def drawn(picture: str) -> np.ndarray:
    """bool (1, rows, columns) of a picture in which # is set."""
    return np.array([[character == "#" for character in line] for line in picture.split()])[None]


DOT = drawn("..... ..... ..#.. ..... .....")
CROSS = drawn("..... ..#.. .###. ..#.. .....")
SQUARE = drawn("..... .###. .###. .###. .....")
BAR = drawn("..... ..... ##### ..... .....")


@pytest.mark.parametrize("size, expected", [(1.0, DOT), (1.1, CROSS), (1.4, CROSS), (1.5, SQUARE)])
def test_dilation_adds_what_is_nearer_than_its_size(size, expected):
    # Neighbours lie 1, diagonal ones sqrt(2) = 1.414 away.
    assert np.array_equal(apply(Corruption("dilate", {"size": size}), DOT, (1, 1)), expected)


@pytest.mark.parametrize("size, expected", [(1.0, SQUARE), (1.5, DOT), (2.0, DOT), (2.1, np.zeros_like(DOT))])
def test_erosion_keeps_what_is_at_least_its_size_deep(size, expected):
    # The square's middle is 2 from the nearest voxel outside, its other voxels 1.
    assert np.array_equal(apply(Corruption("erode", {"size": size}), SQUARE, (1, 1)), expected)


def test_sizes_are_mm_where_the_spacing_is():
    label = np.zeros((1, 5, 5, 5), bool)
    label[0, 2, 2, 2] = True
    grown = apply(Corruption("dilate", {"size": 2.5}), label, (3.0, 1.0, 1.0))
    # 3 mm between slices: nothing reaches the next one; in the plane all within 2.5 mm (2, sqrt(5)) but not
    # sqrt(8).
    assert grown[0].sum(axis=(1, 2)).tolist() == [0, 0, 21, 0, 0]
    assert not grown[0, 2, 0, 0] and grown[0, 2, 0, 1]


def test_a_thin_structure_that_erosion_empties_is_recorded():
    label = np.concatenate([SQUARE, BAR])
    noisy, record = corrupt("a", Corruption("erode", {"size": 1.5}), label, (1, 1))
    assert record.emptied == (1,) and not noisy[1].any()
    assert record.label_dice == (pytest.approx(2 * 1 / (9 + 1)), 0.0)  # one voxel of nine is left
    assert record.noisy and not corrupt("a", Corruption("clean"), label, (1, 1))[1].noisy


def test_an_empty_structure_stays_empty_and_has_no_dice():
    noisy, record = corrupt("a", Corruption("dilate", {"size": 3.0}), np.zeros((1, 4, 4), bool), (1, 1))
    assert not noisy.any() and np.isnan(record.label_dice[0]) and record.emptied == ()


def test_a_style_moves_straight_outlines_by_its_bias_and_smoothing_rounds_corners():
    label = np.zeros((1, 20, 20), bool)
    label[0, 5:15] = True
    for bias, rows in ((0.0, 10), (2.0, 14), (-3.0, 4)):
        styled = apply(Corruption("style", {"bias": bias, "smoothness": 0.0}), label, (1, 1))
        assert styled[0].any(1).sum() == rows and styled[0].all(1).sum() == rows
    square = np.zeros((1, 20, 20), bool)
    square[0, 5:15, 5:15] = True
    smooth = apply(Corruption("style", {"bias": 0.0, "smoothness": 1.0}), square, (1, 1))
    assert not smooth[0, 5, 5] and smooth[0, 5, 10]


def test_a_walk_that_always_goes_out_and_always_flips_grows_by_one_voxel_a_step():
    always = {"size": 2.0, "outward": 1.0, "flip": 1.0, "seed": 0}
    grown = apply(Corruption("walk", always), DOT, (1, 1))
    expected = drawn("..#.. .###. ##### .###. ..#..")  # steps along the axes
    assert np.array_equal(grown, expected)
    inward = apply(Corruption("walk", {**always, "outward": 0.0, "size": 1.0}), SQUARE, (1, 1))
    assert np.array_equal(inward, DOT)
    never = apply(Corruption("walk", {**always, "flip": 0.0}), DOT, (1, 1))
    assert np.array_equal(never, DOT)


def test_gross_errors_by_hand():
    both = np.concatenate([DOT, BAR])
    moved = apply(Corruption("shift", {"offset": [-2.0, 1.0]}), both, (1, 1))
    assert np.argwhere(moved[0]).tolist() == [[0, 3]] and moved[1, 0].tolist() == [
        False,
        True,
        True,
        True,
        True,
    ]
    assert np.argwhere(apply(Corruption("shift", {"offset": [4.0, 0.0]}), both, (2, 2))[0]).tolist() == [
        [4, 2]
    ]
    assert not apply(Corruption("shift", {"offset": [9.0, 0.0]}), both, (1, 1)).any()
    swapped = apply(Corruption("wrong_organ", {"channel": 0, "other": 1}), both, (1, 1))
    assert np.array_equal(swapped[0], BAR[0]) and np.array_equal(swapped[1], BAR[0])
    cut = apply(
        Corruption("drop_slices", {"channel": 0, "axis": 0, "first": 0.0, "last": 0.34}), SQUARE, (1, 1)
    )
    assert cut[0].any(1).tolist() == [False, False, False, True, False]  # ceil(0.34 * 3) = 2 of 3 rows
    pieces = drawn("##..# ##... ..... ..... #....")
    left = apply(Corruption("drop_component", {"channel": 0}), pieces, (1, 1))
    assert np.argwhere(left[0]).tolist() == [[0, 4], [4, 0]]


def test_swapped_sides_and_a_stray_piece_by_hand():
    both = np.concatenate([DOT, BAR])
    swapped = apply(Corruption("swap", {"channel": 0, "other": 1}), both, (1, 1))
    assert np.array_equal(swapped, both[::-1])
    # The ball's centre lies two rows of 2 mm above the dot's; within 2.1 mm are it and its neighbours in the
    # row.
    stray = apply(Corruption("stray_piece", {"offset": [-4.0, 0.0], "radius": 1.1}), DOT, (2, 1))
    assert np.argwhere(stray[0]).tolist() == [[0, 1], [0, 2], [0, 3], [2, 2]]
    assert not apply(
        Corruption("stray_piece", {"offset": [0.0, 0.0], "radius": 9.0}), DOT & False, (1, 1)
    ).any()


def test_each_structure_can_have_an_error_of_its_own_and_the_record_replays():
    label = np.concatenate([DOT, BAR, SQUARE])
    steps = [
        {"channel": 0, "kind": "dilate", "parameters": {"size": 1.1}},
        {"channel": 1, "kind": "swap", "parameters": {"other": 2}},
    ]
    noisy, record = corrupt("a", Corruption("each", {"steps": steps}), label, (1.0, 1.0))
    assert np.array_equal(noisy, np.concatenate([CROSS, SQUARE, BAR]))
    replayed = CorruptionRecord.from_json(record.to_json())
    assert np.array_equal(apply(replayed.corruption, label, (1.0, 1.0)), noisy)


@pytest.mark.parametrize("shape, spacing", [((3, 24, 24), (1.0, 1.0)), ((2, 8, 16, 16), (3.0, 1.5, 1.5))])
@pytest.mark.parametrize("generator", GENERATORS)
def test_every_record_replays_its_corruption(generator, shape, spacing):
    rng = np.random.default_rng(0)
    label = np.zeros(shape, bool)
    label[(slice(None), *[slice(n // 4, 3 * n // 4) for n in shape[1:]])] = True
    label[1] &= rng.random(shape[1:]) < 0.7
    direction = "dilate" if generator == "biased" else "both"
    noise = Noise(generator, 1.0, (2.0, 5.0), direction, channels=shape[0], axes=len(spacing), seed=3)
    kinds = set()
    for case in (f"case{n}" for n in range(24)):
        noisy, record = corrupt(case, draw(noise, case), label, spacing)
        replayed = CorruptionRecord.from_json(record.to_json())
        assert replayed == record
        assert np.array_equal(apply(replayed.corruption, label, spacing), noisy)
        kinds.add(record.corruption.kind)
    expected = {
        "paper": {"dilate", "erode"},
        "fixed": {"dilate", "erode"},
        "biased": {"dilate"},
        "styles": {"style"},
    }
    gross = {"shift", "wrong_organ", "drop_slices", "drop_component"}
    assert kinds == expected.get(generator, {"walk"} if generator == "markov" else gross)


def test_the_generators_together_use_every_corruption():
    noises = [Noise(name, 1.0, direction="erode", channels=2) for name in GENERATORS]
    kinds = {draw(noise, str(n)).kind for noise in noises for n in range(40)}
    by_hand_only = {"swap", "stray_piece", "each"}
    assert kinds | {"clean", "dilate"} | by_hand_only == set(CORRUPTIONS)


def test_a_plan_corrupts_exactly_its_share_and_does_not_depend_on_the_order():
    cases = [f"c{n}" for n in range(40)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        planned = plan(Noise("fixed", share, seed=1), cases)
        assert sum(c.kind != "clean" for c in planned.values()) == 40 * share
    assert plan(Noise("fixed", 0.5, seed=1), cases[::-1]) == plan(Noise("fixed", 0.5, seed=1), cases)
    assert plan(Noise("fixed", 0.5, seed=2), cases) != plan(Noise("fixed", 0.5, seed=1), cases)


def test_sizes_cover_their_range_evenly_and_both_directions_are_as_likely():
    corruptions = [draw(Noise("fixed", 1.0, (5.0, 13.0)), str(n)) for n in range(2000)]
    sizes = np.array([c.parameters["size"] for c in corruptions])
    assert 5 <= sizes.min() < 5.1 and 12.9 < sizes.max() < 13
    assert np.mean(sizes) == pytest.approx(9, abs=0.2)
    assert np.mean([c.kind == "dilate" for c in corruptions]) == pytest.approx(0.5, abs=0.04)


def test_all_cases_of_one_annotator_share_one_style():
    styles = [draw(Noise("styles", 1.0, annotators=3), str(n)).parameters for n in range(60)]
    assert len({tuple(style.items()) for style in styles}) == 3


def sample(case="a", **more):
    label = torch.zeros(2, 9, 9)
    label[0, 2:7, 2:7], label[1, 4, 4] = 1, 1
    return {"image": torch.rand(1, 9, 9), "label": label, "case_id": case, **more}


def test_the_transform_applies_the_plan_marks_the_sample_and_is_cached_once():
    noise = {"generator": "biased", "share": 0.5, "sizes": [1.5, 1.5], "direction": "dilate"}
    data = [sample(str(n)) for n in range(4)]
    transform = LabelNoised("label", noise, cases=[str(n) for n in range(4)])
    cached = CacheDataset(data, transform, progress=False)
    assert sum(item["noisy"] for item in cached) == 2
    for item, given in zip(cached, data, strict=True):
        assert item["label"].sum() == (
            (49 + 9) if item["noisy"] else 26
        )  # corners are 1.41 < 1.5 away: 7 x 7
        assert torch.equal(given["label"], sample()["label"]), "the given label is left alone"
        assert json.loads(item["noise_record"])["case"] == item["case_id"]


def test_a_structure_that_was_not_contoured_stays_so():
    given = sample()
    given["label"][1] = torch.nan
    noisy = LabelNoised("label", Noise("biased", 1.0, (2, 2), "dilate"), cases=["a"])(given)["label"]
    assert torch.isnan(noisy[1]).all() and noisy[0].sum() > 25


def test_in_mm_the_voxel_size_of_the_image_counts():
    coarse = sample()
    coarse["label"] = MetaTensor(coarse["label"], affine=torch.diag(torch.tensor([4.0, 1.0, 1.0, 1.0])))
    noise = Noise("biased", 1.0, (1.5, 1.5), "dilate")
    grown = LabelNoised("label", noise, cases=["a"], in_mm=True)(coarse)["label"]
    assert grown[1].sum(1).tolist() == [0, 0, 0, 0, 3, 0, 0, 0, 0]
    assert torch.equal(grown.affine, coarse["label"].affine)
    with pytest.raises(InputError, match="no voxel size"):
        LabelNoised("label", noise, cases=["a"], in_mm=True)(sample())


def test_fresh_noise_changes_between_fetches_and_repeats_with_its_seed():
    transform = FreshLabelNoised("label", Noise("paper", 0.75, (1.5, 4.0)))

    def fetches(seed: int) -> list[str]:
        transform.set_random_state(seed)
        return [transform(sample())["noise_record"] for _ in range(2000)]

    records = fetches(5)
    assert records == fetches(5) != fetches(6)
    kinds = [CorruptionRecord.from_json(text).corruption.kind for text in records]
    assert {kind: kinds.count(kind) / 2000 for kind in set(kinds)} == {
        "clean": pytest.approx(0.25, abs=0.04),
        "dilate": pytest.approx(0.375, abs=0.04),
        "erode": pytest.approx(0.375, abs=0.04),
    }


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"generator": "salt", "share": 0.5}, "unknown noise generator 'salt'; choose one of paper, fixed"),
        ({"generator": "fixed", "share": 1.5}, "share of corrupted cases is 1.5"),
        ({"generator": "fixed", "share": 0.5, "sizes": (8, 1)}, "expected .smallest, largest."),
        ({"generator": "biased", "share": 0.5}, "needs the direction"),
        ({"generator": "fixed", "share": 0.5, "direction": "sideways"}, "choose both, dilate or erode"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Noise(**settings)


def test_misuse_is_refused_in_one_line():
    with pytest.raises(InputError, match="noise has no setting sized"):
        LabelNoised("label", {"generator": "fixed", "share": 0.5, "sized": [1, 2]}, cases=["a"])
    with pytest.raises(InputError, match="use FreshLabelNoised"):
        LabelNoised("label", Noise("paper", 0.5), cases=["a"])
    with pytest.raises(InputError, match="use LabelNoised"):
        FreshLabelNoised("label", Noise("fixed", 0.5))
    with pytest.raises(InputError, match="case 'b' is not among the 1 cases"):
        LabelNoised("label", Noise("fixed", 0.5), cases=["a"])(sample("b"))
    with pytest.raises(InputError, match="same name"):
        plan(Noise("fixed", 0.5), ["a", "a"])
    with pytest.raises(InputError, match="unknown corruption 'blur'"):
        apply(Corruption("blur"), DOT, (1, 1))
    with pytest.raises(InputError, match="expected bool"):
        apply(Corruption("clean"), DOT, (1, 1, 1))
