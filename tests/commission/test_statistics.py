"""Spread, bias, action levels and control limits of numbers worked out by hand."""

from __future__ import annotations

import json

import pytest

from medseg.commission.limits import Limits, read_limits
from medseg.commission.site import changed_since, charts, in_order, read_baseline
from medseg.commission.statistics import agreement, control, is_within, summaries, unjudged
from medseg.errors import InputError

NO_NUMBER = "no plan's contour has that number (no planned dose covers it, or it holds fewer cc)"


def row(dsc, manual_cc=10.0, automatic_cc=10.0, **more):
    percent = 100 * (automatic_cc / manual_cc - 1)
    numbers = {"dsc": dsc, "surface_dsc": dsc, "hd95_mm": 3.0, "shift_mm": 1.0, "volume_percent": percent}
    return {
        "name": "Cord",
        "state": "both",
        "reference_cc": manual_cc,
        "other_cc": automatic_cc,
        **numbers,
        **more,
    }


def case(name, *rows, **more):
    return {"case": name, "structures": list(rows), **more}


def test_limits_of_agreement_are_those_of_bland_and_altman():
    # differences 1, 2, 3: mean 2, standard deviation 1
    assert agreement([(1, 2), (2, 4), (3, 6)]) == {"mean": 2.0, "low": 2 - 1.96, "high": 2 + 1.96}
    assert agreement([(1, 2), (2, 4)]) == {"mean": 1.5, "low": None, "high": None}
    assert agreement([])["mean"] is None


def test_control_limits_are_2_66_mean_moving_ranges_from_the_mean():
    levels = control([10, 12, 10, 12, 11])  # moving ranges 2, 2, 2, 1
    assert levels == pytest.approx((11.0, 11 - 2.66 * 1.75, 11 + 2.66 * 1.75, 5))
    assert control([10, 12, 10, 12]) is None


def test_a_level_is_passed_when_its_share_of_the_cases_lies_within():
    cases = [case(f"c{n}", row(0.9)) for n in range(9)] + [case("c9", row(0.5))]
    assert summaries(cases, Limits(levels={"*": {"dsc": 0.8}}))[0]["passed"] is True
    assert summaries(cases, Limits(levels={"Cord": {"dsc": 0.8}}, cases_within=0.95))[0]["passed"] is False
    assert summaries(cases, Limits(levels={"*": {"dsc": 0.8}, "Cord": {"dsc": 0.4}}))[0]["passed"] is True
    assert summaries(cases, Limits())[0]["passed"] is None


def test_a_volume_and_a_dose_may_be_off_in_either_direction():
    small = row(0.9, 10.0, 8.0, dose={"Dmean": [20.0, 17.0]})
    assert is_within(small, Limits(levels={"*": {"volume_percent": 21}}, dose={"*": {"Dmean": 3.0}}))
    assert not is_within(small, Limits(levels={"*": {"volume_percent": 19}}))
    assert not is_within(small, Limits(dose={"Cord": {"Dmean": 2.9}}))


def test_a_distance_that_does_not_exist_is_within_no_level():
    found = summaries([case("c0", row(0.9, hd95_mm=None))], Limits(levels={"*": {"hd95_mm": 50}}))
    assert found[0]["verdicts"][0]["within"] == 0 and found[0]["passed"] is False


def test_scanners_are_told_apart_where_there_are_several():
    cases = [
        case("a", row(0.9), scanner="X"),
        case("b", row(0.7), scanner="Y"),
        case("c", row(0.8), scanner="X"),
    ]
    groups = {one["group"]: one["numbers"]["dsc"]["median"] for one in summaries(cases, Limits())}
    assert groups == {"all": 0.8, "X": pytest.approx(0.85), "Y": 0.7}
    assert [one["group"] for one in summaries(cases[:1], Limits())] == ["all"]


def test_a_structure_that_was_not_contoured_is_counted_and_has_no_numbers():
    found = summaries([case("a", {"name": "Cord", "state": "not contoured"}), case("b", row(0.9))], Limits())[
        0
    ]
    assert (found["n"], found["not_contoured"]) == (1, 1)


def test_drift_is_seen_against_the_baseline_and_not_against_itself(tmp_path):
    first = [case(f"a{n}", row(0.90 + 0.01 * (n % 2)), date=f"2026010{n + 1}") for n in range(6)]
    made = charts(first, {})
    assert not any(point["beyond"] for chart in made for point in chart["points"])
    (tmp_path / "site.json").write_text(json.dumps({"control": made}))
    later = [case(f"b{n}", row(0.80), date=f"2026060{n + 1}") for n in range(6)]
    own, drifted = charts(later, {}), charts(later, read_baseline(tmp_path / "site.json"))
    assert not any(point["beyond"] for point in own[0]["points"])
    assert drifted[0]["number"] == "surface_dsc" and all(point["beyond"] for point in drifted[0]["points"])
    assert drifted[0]["of_baseline"] and not own[0]["of_baseline"]
    with pytest.raises(InputError, match="not the site.json"):
        read_baseline(tmp_path / "no.json")


def test_cases_go_by_the_date_of_their_images_and_those_without_one_last():
    cases = [case("c", date="20260301"), case("a", date=""), case("b", date="20260201")]
    assert [one["case"] for one in in_order(cases)] == ["b", "c", "a"]


def test_a_file_of_limits_is_read_and_what_it_cannot_mean_is_refused(tmp_path):
    path = tmp_path / "limits.json"
    content = {"cases_within": 0.8, "*": {"dsc": 0.7}, "Cord": {"tolerance_mm": 1, "dose": {"D2%": 2}}}
    path.write_text(json.dumps(content))
    limits = read_limits(path)
    assert (limits.tolerance_of("Cord"), limits.tolerance_of("Lung")) == (1.0, 2.0)
    assert limits.levels_of("Cord") == {"dsc": 0.7} and limits.dose_of("Cord") == {"D2%": 2.0}
    wrong = [
        {"Cord": {"dice": 1}},
        {"Cord": {"dsc": "high"}},
        {"Cord": {"dose": {"V20": 1}}},
        {"Cord": 1},
        [],
    ]
    for content in (*wrong, {"cases_within": 0}, {"Cord": {"hd95_mm": -1}}):
        path.write_text(json.dumps(content))
        with pytest.raises(InputError):
            read_limits(path)


def test_a_structure_that_was_not_contoured_is_within_no_level_and_one_without_a_plan_is_not_asked():
    lost, unasked = {"name": "Cord", "state": "not contoured"}, {"name": "Cord", "state": "no plan"}
    levels = Limits(levels={"*": {"dsc": 0.8}}, dose={"*": {"Dmean": 1.0}})
    cases = [case("a", row(0.9)), case("b", lost), case("c", unasked)]
    found = summaries(cases, levels)[0]
    assert [(v["within"], v["n"]) for v in found["verdicts"]] == [(1, 2), (0, 1)] and found["passed"] is False
    assert summaries([case("b", lost)], levels)[0]["passed"] is False
    assert summaries([case("c", unasked)], levels)[0]["passed"] is None
    assert not is_within(lost, levels) and is_within(unasked, levels)


def test_an_automatic_contour_whose_dose_cannot_be_told_is_not_within_and_a_plan_without_one_is_not_asked():
    levels = Limits(dose={"*": {"Dmean": 1.0}})
    leaked, uncovered = row(0.9, dose={"Dmean": [20.0, None]}), row(0.9, dose={"Dmean": [None, None]})
    assert not is_within(leaked, levels) and is_within(uncovered, levels) and is_within(row(0.9), levels)
    found = summaries([case("a", leaked), case("b", uncovered), case("c", row(0.9))], levels)[0]
    assert [(v["within"], v["n"]) for v in found["verdicts"]] == [(0, 1)]


def test_a_level_by_which_no_case_could_be_judged_is_told():
    levels = Limits(
        levels={"*": {"dsc": 0.8}, "Brain": {"hd95_mm": 5.0}},
        dose={"Cord": {"D2%": 2.0}, "Lens": {"Dmean": 1.0}},
    )
    nobody = {"name": "Larynx", "state": "no plan"}
    found = unjudged(summaries([case("a", row(0.9), nobody), case("b", row(0.9))], levels), levels)
    assert found == [
        "Brain: no case could be judged by its action levels; no plan has it",
        f"Cord: no case could be judged by D2%; {NO_NUMBER}",
        "Lens: no case could be judged by its action levels; no plan has it",
    ]
    only_dose, undosed = Limits(dose={"Cord": {"D2%": 2.0}}), [case("a", row(0.9))]
    assert unjudged(summaries(undosed, only_dose), only_dose) == [
        f"Cord: no case could be judged by D2%; {NO_NUMBER}"
    ]
    lens = {**row(0.9, dose={"Dmean": [1.0, 1.5]}), "name": "Lens"}
    of_all = Limits(dose={"*": {"Dmean": 2.0}})
    assert unjudged(summaries([case("a", row(0.9), lens, nobody)], of_all), of_all) == [
        f"Cord: no case could be judged by Dmean; {NO_NUMBER}"
    ]
    dosed = row(0.9, dose={"D2%": [40.0, 41.0]})
    only = Limits(levels={"*": {"dsc": 0.8}}, dose={"Cord": {"D2%": 2.0}})
    assert unjudged(summaries([case("a", dosed, nobody)], only), only) == []
    assert unjudged(summaries([case("a", row(0.9))], Limits()), Limits()) == []


def test_a_baseline_of_another_bundle_tolerance_or_scanner_is_told(tmp_path):
    bundle = {"name": "a", "version": "1", "weights_sha256": "x"}
    earlier = {"bundle": bundle, "limits": {"tolerance_mm": {"*": 2.0}}, "cases": [{"group": "X"}]}
    (tmp_path / "site.json").write_text(json.dumps(earlier))
    assert changed_since(tmp_path / "site.json", earlier) == [] and changed_since(None, earlier) == []
    now = {
        "bundle": {**bundle, "version": "2"},
        "limits": {"tolerance_mm": {"*": 3.0}},
        "cases": [{"group": "X"}, {"group": "Y"}],
    }
    said = changed_since(tmp_path / "site.json", now)
    assert len(said) == 3 and "version 1, this one 2" in said[0] and "images of Y" in said[2]
