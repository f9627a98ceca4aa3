"""Kaplan-Meier groups: hand-computed values, degenerate cohorts, and the cut-off."""

from __future__ import annotations

import numpy as np
import pytest

from histill.evaluation.survival_curves import kaplan_meier, log_rank, risk_groups, risk_margin


def test_curve_of_a_hand_computed_example():
    curve = kaplan_meier(np.array([1, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0]), 0.95)
    assert curve["time"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert curve["survival"] == pytest.approx([1.0, 0.75, 0.75, 0.375, 0.0])
    assert curve["at_risk"] == [4, 4, 3, 2, 1]
    assert (curve["n"], curve["events"]) == (4, 3)
    for low, value, high in zip(curve["low"], curve["survival"], curve["high"], strict=True):
        assert low is None or high is None or low <= value <= high


def test_cut_off_is_the_training_median_and_ignores_the_scale():
    training = np.array([0.0, 1.0, 2.0, 3.0, 10.0])
    test = np.array([1.9, 2.0, 2.1])
    assert (risk_margin(test, training) > 0).tolist() == [False, False, True]
    assert risk_margin(100 * test, 100 * training) == pytest.approx(risk_margin(test, training))
    assert risk_margin(test, np.ones(5)).tolist() == [0.0, 0.0, 0.0]


def test_groups_that_differ_have_a_small_p_value():
    rng = np.random.default_rng(0)
    margin = np.repeat([-1.0, 1.0], 60)
    time = rng.exponential(np.exp(-margin))
    found = risk_groups(np.ones(120, bool), time, margin, 0.95)
    assert found["log_rank_p"] < 1e-6
    assert found["groups"]["high"]["n"] == found["groups"]["low"]["n"] == 60


@pytest.mark.parametrize(
    ("event", "time", "high"),
    [
        ([0, 0, 0, 0], [1, 2, 3, 4], [0, 1, 0, 1]),
        ([1, 1, 0, 1], [1, 2, 3, 4], [1, 1, 1, 1]),
        ([0, 0, 1, 1], [1, 2, 3, 4], [1, 1, 0, 0]),
    ],
    ids=["no event", "one group", "events where one group is left"],
)
def test_log_rank_without_information_has_no_p_value(event, time, high):
    assert log_rank(np.array(event), np.array(time, float), np.array(high)) is None


def test_an_empty_group_is_absent():
    found = risk_groups(np.array([1, 0]), np.array([1.0, 2.0]), np.zeros(2), 0.95)
    assert list(found["groups"]) == ["low"]
