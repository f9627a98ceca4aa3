"""Calibration and decision curves of predictions whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from histill.evaluation.calibration import calibrate
from histill.evaluation.decision_curves import THRESHOLDS, decide, net_benefit
from histill.evaluation.horizons import Horizons, choose
from histill.evaluation.predictions import Curves
from histill.evaluation.sampling import Sample, by_fold
from histill.evaluation.scoring import score
from tests.evaluation import synthetic


def _sample(outcomes, draws=200):
    folds = by_fold(set(outcomes.values), outcomes)
    return Sample.draw(folds, {fold: lambda weights: np.ones(len(weights), bool) for fold in folds}, draws, 1)


def _calibrate(models, outcomes, horizons=None, seeds=(0,)):
    return calibrate(models, _sample(outcomes), outcomes, horizons or Horizons(), list(seeds), 0.95, "months")


@pytest.mark.parametrize(("extreme", "slope"), [(1.0, 1.0), (2.0, 0.5)])
def test_slopes_and_curves_of_two_classes(extreme, slope):
    models, outcomes = synthetic.classes({"abmil": extreme}, patients=600)
    (entry,) = _calibrate(models, outcomes)["models"]["abmil"]
    assert entry["of"] == "class yes"
    assert entry["slope"]["low"] < slope < entry["slope"]["high"]
    assert entry["slope"]["value"] == pytest.approx(slope, abs=0.15)
    curve = entry["curve"]
    assert sum(curve["n"]) == 600
    assert len(curve["n"]) == 10
    assert curve["predicted"] == sorted(curve["predicted"])
    held = [low <= p <= high for p, low, high in zip(curve["predicted"], curve["low"], curve["high"], strict=True)]
    assert sum(held) >= 8 if extreme == 1.0 else sum(held) <= 7


def test_the_slope_is_the_metric_of_the_same_name_and_every_class_of_three_has_a_curve():
    models, outcomes = synthetic.classes({"abmil": 1.5}, seeds=(0, 1))
    metric = score(models, set(outcomes.values), outcomes, [0, 1], 200, 1).estimates["abmil"]["calibration_slope"]
    assert _calibrate(models, outcomes, seeds=(0, 1))["models"]["abmil"][0]["slope"] == metric.plain(0.95)
    models, outcomes = synthetic.classes({"abmil": 1.0}, names=("a", "b", "c"), patients=300)
    found = _calibrate(models, outcomes)["models"]["abmil"]
    assert [entry["of"] for entry in found] == ["class a", "class b", "class c"]
    mean = score(models, set(outcomes.values), outcomes, [0], 200, 1).estimates["abmil"]["calibration_slope"]
    assert mean.value == pytest.approx(np.mean([entry["slope"]["value"] for entry in found]))


def test_a_calibrated_model_of_survival_is_calibrated_at_its_horizons():
    models, outcomes, _ = synthetic.survival({"abmil": 1.0, "wsi-only": 0.3}, patients=900)
    horizons = choose(outcomes, [12.0, 24.0], models)
    found = _calibrate(models, outcomes, horizons)["models"]
    assert [entry["of"] for entry in found["abmil"]] == ["12 months", "24 months"]
    for entry in found["abmil"]:
        assert entry["slope"]["low"] < 1.0 < entry["slope"]["high"]
        assert entry["intercept"]["low"] < 0.0 < entry["intercept"]["high"]
        curve = entry["curve"]
        inside = [a <= p <= b for p, a, b in zip(curve["predicted"], curve["low"], curve["high"], strict=True)]
        assert sum(inside) >= len(inside) - 1
    for entry in found["wsi-only"]:  # sees a third and is as sure as the other
        assert entry["slope"]["high"] < 0.6


def test_repeated_patients_are_counted_once():
    models, outcomes = synthetic.classes({"abmil": 1.0}, patients=60, repeats=3, seeds=(0, 1))
    (entry,) = _calibrate(models, outcomes, seeds=(0, 1))["models"]["abmil"]
    assert sum(entry["curve"]["n"]) == 60


def test_models_without_the_horizon_in_some_fold_are_not_shown():
    models, outcomes, _ = synthetic.survival({"abmil": 1.0, "wsi-only": 0.5})
    short = models[0].survival[1, 0]
    models[0].survival[1, 0] = Curves(short.times[:1], {p: values[:1] for p, values in short.values.items()})
    horizons = choose(outcomes, [10.0, 20.0], models)
    found = _calibrate(models, outcomes, horizons)["models"]
    assert [[entry["of"] for entry in found[name]] for name in found] == [["10 months"], ["10 months", "20 months"]]
    decided = decide(models, _sample(outcomes), outcomes, horizons, [0], "months")["of"]
    assert [list(entry["models"]) for entry in decided] == [["abmil", "wsi-only"], ["wsi-only"]]


def test_constant_predictions_have_one_group_and_no_slope():
    models, outcomes = synthetic.classes({"abmil": 0.0})
    (entry,) = _calibrate(models, outcomes)["models"]["abmil"]
    assert entry["slope"] is None
    assert entry["intercept"]["value"] is not None
    assert entry["curve"]["n"] == [120]


def test_net_benefit_by_hand():
    predicted, happened = np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, False, True, False])
    found = dict(zip(THRESHOLDS.round(2), net_benefit(predicted, happened), strict=True))
    assert found[0.05] == pytest.approx(2 / 4 - 2 / 4 * 0.05 / 0.95)  # everybody
    assert found[0.5] == pytest.approx(1 / 4 - 1 / 4)
    assert found[0.2] == pytest.approx(2 / 4 - 1 / 4 * 0.25)
    assert found[0.95] == 0.0  # nobody


def test_net_benefit_without_censoring_is_that_of_classes():
    rng = np.random.default_rng(0)
    predicted, time = rng.random(100), rng.exponential(10, 100)
    by_time = net_benefit(predicted, np.ones(100, bool), time, time=8.0)
    np.testing.assert_allclose(by_time, net_benefit(predicted, time <= 8.0), atol=1e-12)


def test_net_benefit_with_censoring_uses_kaplan_meier():
    """Four patients above the threshold, one censored between two events before the horizon."""
    time, died = np.array([1.0, 2.0, 3.0, 9.0]), np.array([True, False, True, False])
    found = net_benefit(np.full(4, 0.5), died, time, time=5.0)[THRESHOLDS.round(2) == 0.3][0]
    events = 1 - 3 / 4 * 1 / 2
    assert found == pytest.approx(events - (1 - events) * 0.3 / 0.7)


def test_a_good_model_is_worth_more_than_treating_all_or_none():
    models, outcomes = synthetic.classes({"abmil": 1.0, "wsi-only": 0.0}, patients=600)
    (entry,) = decide(models, _sample(outcomes), outcomes, Horizons(), [0], "")["of"]
    at = [index for index, t in enumerate(entry["thresholds"]) if 0.3 <= t <= 0.7]
    best = np.maximum(entry["all"], 0.0)
    assert all(entry["models"]["abmil"][index] > best[index] for index in at)
    assert all(entry["models"]["wsi-only"][index] <= best[index] + 1e-6 for index in at)
    assert decide(models, None, outcomes, Horizons(), [0], "")["of"] == []


def test_where_nobody_was_followed_so_long_the_last_estimate_stands():
    predicted, time, died = np.array([0.9, 0.9, 0.1]), np.array([1.0, 2.0, 9.0]), np.array([True, False, False])
    found = net_benefit(predicted, died, time, time=5.0)[THRESHOLDS.round(2) == 0.5][0]
    assert found == pytest.approx((1 / 2 * 2 - 1 / 2 * 2) / 3)
    assert net_benefit(predicted, died, time, time=5.0)[-1] == 0.0
