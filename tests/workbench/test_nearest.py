"""The nearest record: exact, with its ties and its limits, against a search by hand and pandas."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.workbench.nearest import (
    EQUALLY_NEAR,
    NO_MATCH,
    OTHER_IMAGE_NEARER,
    PAIRED,
    TOO_FAR,
    nearest_records,
)


def nearest(images, records, most_days=183):
    """``images``: (group, day) or (group, day, side); ``records``: (group, day, value)."""
    sides = [image[2] if len(image) > 2 else 0 for image in images]
    return nearest_records(
        *np.array([image[:2] for image in images], np.int64).reshape(-1, 2).T,
        np.array(sides, np.int64),
        *np.array([record[:2] for record in records], np.int64).reshape(-1, 2).T,
        np.array([record[2] for record in records], float),
        most_days,
    )


def test_the_nearest_record_counts_whether_before_or_after():
    found = nearest([(0, 100), (1, 100)], [(0, 90, -1.0), (0, 105, -3.0), (1, 98, 0.0), (1, 109, 1.0)])
    assert found.outcome.tolist() == [PAIRED, PAIRED]
    assert found.record.tolist() == [1, 2]
    assert found.days.tolist() == [5, -2]


def test_the_last_day_of_the_window_is_in_it_and_the_next_is_not():
    found = nearest([(0, 0), (1, 0), (2, 400)], [(0, 183, 1.0), (1, 184, 1.0), (2, 217, 1.0)])
    assert found.outcome.tolist() == [PAIRED, TOO_FAR, PAIRED]
    assert found.days.tolist() == [183, 184, -183]
    assert found.record.tolist() == [0, -1, 2]


def test_a_record_of_another_group_is_never_taken_however_near():
    found = nearest([(1, 100)], [(0, 100, 1.0), (2, 100, 1.0)])
    assert found.outcome.tolist() == [NO_MATCH]
    assert found.record.tolist() == [-1]


def test_two_records_equally_near_pair_only_where_they_agree():
    before_and_after = [(0, 90, -1.0), (0, 110, -3.0), (1, 90, -2.0), (1, 110, -2.0)]
    found = nearest([(0, 100), (1, 100)], before_and_after)
    assert found.outcome.tolist() == [EQUALLY_NEAR, PAIRED]
    assert found.record.tolist() == [-1, 2]
    on_one_day = [(0, 90, -1.0), (0, 90, -3.0), (1, 90, -2.0), (1, 90, -2.0)]
    found = nearest([(0, 100), (1, 100)], on_one_day)
    assert found.outcome.tolist() == [EQUALLY_NEAR, PAIRED]


def test_a_record_goes_to_the_images_of_the_nearest_date_alone():
    found = nearest([(0, 100), (0, 104), (0, 104), (0, 150)], [(0, 105, -1.0)])
    assert found.outcome.tolist() == [OTHER_IMAGE_NEARER, PAIRED, PAIRED, OTHER_IMAGE_NEARER]


def test_two_dates_equally_near_to_a_record_leave_it_to_neither():
    found = nearest([(0, 100), (0, 110)], [(0, 105, -1.0)])
    assert found.outcome.tolist() == [EQUALLY_NEAR, EQUALLY_NEAR]


def test_images_of_two_sides_may_share_a_record():
    found = nearest([(0, 100, 0), (0, 104, 1)], [(0, 105, -1.0)])
    assert found.outcome.tolist() == [PAIRED, PAIRED]


@pytest.mark.parametrize("images, records", [([], [(0, 1, 0.0)]), ([(0, 1)], []), ([], [])])
def test_nothing_on_one_side_pairs_nothing(images, records):
    found = nearest(images, records)
    assert len(found.outcome) == len(images)
    assert (found.outcome == NO_MATCH).all()


def test_a_search_through_every_pair_finds_the_same():
    draw = np.random.default_rng(4)
    images = [
        (int(g), int(d)) for g, d in zip(draw.integers(0, 44, 300), draw.integers(0, 900, 300), strict=True)
    ]
    values = draw.integers(-4, 2, 200).astype(float)
    records = [
        (int(g), int(d), v)
        for g, d, v in zip(draw.integers(0, 40, 200), draw.integers(0, 900, 200), values, strict=True)
    ]
    found = nearest(images, records, 60)
    wanted = [_by_hand(image, records, 60) for image in images]
    taken: dict[tuple[int, int], list[int]] = {}
    for index, (outcome, row) in enumerate(wanted):
        if outcome == PAIRED:
            taken.setdefault(records[row][:2], []).append(index)
    for date, rivals in taken.items():
        least = min(abs(images[index][1] - date[1]) for index in rivals)
        at_least = [index for index in rivals if abs(images[index][1] - date[1]) == least]
        for index in rivals:
            if index not in at_least:
                wanted[index] = (OTHER_IMAGE_NEARER, -1)
            elif len({images[other][1] for other in at_least}) > 1:
                wanted[index] = (EQUALLY_NEAR, -1)
    assert found.outcome.tolist() == [outcome for outcome, _ in wanted]
    assert found.record.tolist() == [row for _, row in wanted]
    assert set(found.outcome.tolist()) == {PAIRED, NO_MATCH, TOO_FAR, EQUALLY_NEAR, OTHER_IMAGE_NEARER}


def _by_hand(image, records, most_days):
    group, day = image
    own = [(abs(record[1] - day), record[1], row) for row, record in enumerate(records) if record[0] == group]
    if not own:
        return NO_MATCH, -1
    gap = min(own)[0]
    if gap > most_days:
        return TOO_FAR, -1
    nearest_rows = [row for distance, _, row in sorted(own) if distance == gap]
    if len({records[row][2] for row in nearest_rows}) > 1:
        return EQUALLY_NEAR, -1
    return PAIRED, nearest_rows[0]


def test_pandas_pairs_the_same_where_there_are_no_ties():
    pandas = pytest.importorskip("pandas")
    draw = np.random.default_rng(5)
    image_day = np.sort(draw.choice(np.arange(0, 20000, 2), 400, replace=False))
    record_day = np.sort(draw.choice(np.arange(1, 20000, 2), 400, replace=False))
    group_of = {"image": draw.integers(0, 5, 400), "record": draw.integers(0, 5, 400)}
    table = pandas.merge_asof(
        pandas.DataFrame({"day": image_day, "group": group_of["image"]}),
        pandas.DataFrame({"day": record_day, "group": group_of["record"], "row": np.arange(400)}),
        on="day",
        by="group",
        direction="nearest",
        tolerance=50,
    )
    found = nearest_records(
        group_of["image"],
        image_day,
        np.arange(400),  # no two images share: pandas does not ask who is nearer
        group_of["record"],
        record_day,
        np.zeros(400),
        50,
    )
    expected = table["row"].fillna(-1).to_numpy(np.int64)
    same = found.record == expected
    # As long before as after, with one value: the earlier is taken, pandas may take the later.
    assert (np.abs(record_day[found.record] - image_day) == np.abs(record_day[expected] - image_day))[
        ~same
    ].all()
    assert same.mean() > 0.95
