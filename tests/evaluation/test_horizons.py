"""The times at which survival is scored."""

from __future__ import annotations

import numpy as np
import pytest

from histill.evaluation import horizons
from histill.evaluation.predictions import Outcomes
from histill.evaluation.scoring import survival_at
from tests.evaluation import synthetic


@pytest.mark.parametrize(
    ("time", "limit", "expected"),
    [
        (587.3, 1e9, 590.0),
        (36.2, 100.0, 36.0),
        (36.9, 36.95, 36.0),
        (36.9, 36.0, 35.0),
        (0.8349, 10.0, 0.83),
        (1234.0, 950.0, 940.0),
        (5.0, 0.0, None),
        (0.0, 5.0, None),
    ],
)
def test_readable_times_stay_below_their_limit(time, limit, expected):
    assert horizons.readable(time, limit) == expected


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("os_months", "months"),
        ("days_to_death", "days"),
        ("OS.time", "OS.time"),
        ("Years", "years"),
        ("today", "today"),
    ],
)
def test_units_are_read_off_the_column(column, unit):
    assert horizons.unit(column) == unit


def test_horizons_are_quartiles_of_event_times_that_every_fold_and_model_reaches():
    models, outcomes, _ = synthetic.survival({"abmil": 1.0}, patients=300)
    found = horizons.choose(outcomes, None, models)
    events = [time for time, event in outcomes.values.values() if event]
    assert found.times[:2] == tuple(float(f"{t:.2g}") for t in np.quantile(events, [0.25, 0.5]))
    assert found.times[-1] <= 36.0  # the intervals' end
    for members in outcomes.tested.values():
        assert sum(outcomes.values[patient][0] > found.times[-1] for patient in members) >= 10
    assert "quartiles of the event times" in found.note


def test_horizons_move_down_to_where_patients_are_followed_and_without_any_nothing_is_scored():
    models, outcomes, _ = synthetic.survival({"abmil": 1.0}, patients=30)
    for patient in outcomes.tested[0][2:]:
        outcomes.values[patient] = (min(outcomes.values[patient][0], 7.0), 0)
    assert max(horizons.choose(outcomes, None, models).times) < 7.0
    for patient in outcomes.values:
        outcomes.values[patient] = (outcomes.values[patient][0], 0)
    none = horizons.choose(outcomes, None, models)
    assert none.times == ()
    assert "nothing is scored" in none.note


def test_horizons_asked_for_are_kept_and_sorted():
    models, outcomes, _ = synthetic.survival({"abmil": 1.0})
    assert horizons.choose(outcomes, [24, 6, 24], models).times == (6.0, 24.0)


def test_censoring_is_of_the_patients_that_the_model_of_the_fold_may_have_seen():
    values = {f"p{i}": (float(i + 1), i % 2) for i in range(8)} | {"out": (99.0, 0), "elsewhere": (98.0, 0)}
    folds = {f"p{i}": [i % 2, 2 + i // 4] for i in range(8)} | {"out": [-1, -1], "elsewhere": [-2, -2]}
    outcomes = Outcomes("survival", values, folds)
    assert horizons.training_censoring(outcomes, 0).times.tolist() == [2, 4, 6, 8]
    assert horizons.training_censoring(outcomes, 3).times.tolist() == [1, 2, 3, 4]


def test_survival_between_the_ends_is_linear_and_unknown_beyond_the_last():
    models, outcomes, _ = synthetic.survival({"abmil": 1.0})
    members = outcomes.tested[0]
    curves = models[0].survival[0, 0]
    found = survival_at(curves, members, np.array([0.0, 6.0, 12.0, 36.0, 36.1]))
    ends = np.stack([curves.values[patient] for patient in members])
    np.testing.assert_allclose(found[:, 0], 1.0)
    np.testing.assert_allclose(found[:, 1], (1 + ends[:, 0]) / 2)
    np.testing.assert_allclose(found[:, 2:4], ends[:, [0, 2]])
    assert np.isnan(found[:, 4]).all()
