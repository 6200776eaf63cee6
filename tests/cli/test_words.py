"""What the command line says: fields as options, and warnings of one kind in one line."""

from __future__ import annotations

from medseg.cli.words import in_flags, merged


def test_fields_become_options_and_other_words_stay():
    assert in_flags("choose `within` or `device=cpu`, not `else`") == (
        "choose --within or --device cpu, not `else`"
    )


def test_sentences_that_differ_in_names_and_numbers_alone_become_one():
    said = [
        "ROI 'Lung': 85 contours stored twice, used once.",
        "4 of 9 contours name an image which is not in the series.",
        "ROI 'Heart': 3 contours stored twice, used once.",
        "structure Femur is empty; it has no contours.",
        "structure Tibia is empty; it has no contours.",
    ]
    assert merged(said) == [
        "ROI 'Lung': 85 contours stored twice, used once. (and 1 more of this kind: 'Heart')",
        "4 of 9 contours name an image which is not in the series.",
        "structure Femur is empty; it has no contours. (and 1 more of this kind: Tibia)",
    ]


def test_what_differs_in_its_words_is_said_in_full_and_what_is_equal_once():
    said = ["slice 3: cut off.", "slice 4: cut off.", "slice 3: twice.", "slice 3: cut off."]
    assert merged(said) == ["slice 3: cut off. (and 1 more of this kind: 4)", "slice 3: twice."]
    assert merged([]) == []


def test_a_long_list_is_cut_and_counted():
    (line,) = merged([f"slice {number}: cut off." for number in range(20)])
    assert line == "slice 0: cut off. (and 19 more of this kind: 1, 2, 3, 4, 5, 6, 7, 8, …)"
