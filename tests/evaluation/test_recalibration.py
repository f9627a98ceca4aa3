"""Calibration slope and intercept against scikit-learn and known truth."""

from __future__ import annotations

import numpy as np
import pytest

from histill.evaluation.recalibration import intercept, logit, slope


def _predictions(rng, size, *, extreme):
    """Log odds that are `extreme` times the true ones, and what happened."""
    truth = rng.standard_normal(size) * 1.2 - 0.3
    return extreme * truth, rng.random(size) < 1 / (1 + np.exp(-truth))


@pytest.mark.parametrize("extreme", [0.5, 1.0, 3.0])
def test_slope_is_the_coefficient_of_a_logistic_regression_on_resampled_rows(extreme):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    log_odds, happened = _predictions(rng, 80, extreme=extreme)
    weights = np.concatenate([np.ones((1, 80)), rng.multinomial(80, np.full(80, 1 / 80), size=20)]).astype(float)
    found = slope(log_odds, happened, weights)
    for value, row in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(80), row.astype(int))
        expected = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(log_odds[rows][:, None], happened[rows])
        assert value == pytest.approx(expected.coef_[0, 0], abs=1e-5)


def test_intercept_makes_the_mean_prediction_the_observed_share():
    rng = np.random.default_rng(3)
    log_odds, happened = _predictions(rng, 200, extreme=1.0)
    weights = rng.multinomial(200, np.full(200, 1 / 200), size=20).astype(float)
    for value, row in zip(intercept(log_odds + 0.7, happened, weights), weights, strict=True):
        predicted = 1 / (1 + np.exp(-(log_odds + 0.7 + value)))
        assert row @ predicted == pytest.approx(row @ happened, abs=1e-6)


def test_truth_is_found_in_many_patients():
    rng = np.random.default_rng(4)
    log_odds, happened = _predictions(rng, 40_000, extreme=2.0)
    ones = np.ones((1, 40_000))
    assert slope(log_odds, happened, ones)[0] == pytest.approx(0.5, abs=0.03)
    assert intercept(log_odds / 2 + 0.4, happened, ones)[0] == pytest.approx(-0.4, abs=0.04)


@pytest.mark.parametrize(
    ("log_odds", "happened"),
    [([-2, -1, 1, 2], [0, 0, 1, 1]), ([-2, -1, 1, 2], [0, 0, 0, 0]), ([1, 1, 1, 1], [0, 1, 0, 1])],
    ids=["separated", "nothing happened", "constant"],
)
def test_without_a_finite_solution_the_slope_is_nan(log_odds, happened):
    found = slope(np.array(log_odds, float), np.array(happened, bool), np.ones((3, 4)))
    assert np.isnan(found).all()


def test_probabilities_of_0_and_1_have_finite_log_odds():
    assert np.isfinite(logit(np.array([0.0, 1.0, 0.5]))).all()
    assert logit(np.array([0.5]))[0] == 0
