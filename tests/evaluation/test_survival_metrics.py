"""Metrics of censored times against scikit-survival, on the patients and on resamples carried out row by row."""

from __future__ import annotations

import numpy as np
import pytest
from sksurv.metrics import (
    brier_score,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from histill.evaluation import metrics, survival_metrics
from histill.evaluation.survival_metrics import Censoring

AT = (4.0, 9.0, 15.0)
TAU = 15.0


def _cohort(rng, size, *, ties=False):
    """Event, time, risk and survival [N, 3] at `AT` of patients followed for up to 40."""
    truth = rng.standard_normal(size)
    time, censored = rng.exponential(12 * np.exp(-truth)), np.minimum(rng.exponential(25, size), 40)
    event, time = time <= censored, np.minimum(time, censored)
    risk = truth + rng.standard_normal(size)
    if ties:
        time, risk = np.ceil(time), np.round(risk)
    survival = np.exp(-np.outer(np.exp(0.5 * risk), AT) / 15)
    return event, time, risk, survival


@pytest.fixture(scope="module", params=[False, True], ids=["continuous", "tied"])
def case(request):
    """A training cohort followed for longer than any test patient, a test cohort, and resamples of it."""
    rng = np.random.default_rng(5)
    event, time, _, _ = _cohort(rng, 150, ties=request.param)
    event, time = np.append(event, [False, False]), np.append(time, [50.0, 60.0])
    test = _cohort(rng, 60, ties=request.param)
    counts = rng.multinomial(60, np.full(60, 1 / 60), size=30).astype(float)
    return (event, time), test, np.concatenate([np.ones((1, 60)), counts])


def _resamples(weights):
    return [np.repeat(np.arange(len(row)), row.astype(int)) for row in weights]


def _both(case):
    (event, time), (test_event, test_time, *_), _ = case
    return Surv.from_arrays(event, time), Surv.from_arrays(test_event, test_time)


def test_uno_concordance_is_that_of_scikit_survival(case):
    train, test = _both(case)
    training, (event, time, risk, _), weights = case
    pairs = survival_metrics.uno_pairs(event, time, TAU, Censoring.fit(*training))
    found = metrics.concordance(pairs, risk, weights)
    for value, rows in zip(found, _resamples(weights), strict=True):
        assert value == pytest.approx(concordance_index_ipcw(train, test[rows], risk[rows], tau=TAU)[0], abs=1e-9)


def test_an_event_at_the_horizon_opens_no_pair_of_uno_and_is_a_case_of_the_auc():
    event, time, risk = np.array([True, True, False]), np.array([2.0, 5.0, 9.0]), np.array([1.0, 3.0, 2.0])
    censoring = Censoring.fit(np.zeros(4, bool), np.array([20.0, 21.0, 22.0, 23.0]))
    ones = np.ones((1, 3))
    assert metrics.concordance(survival_metrics.uno_pairs(event, time, 5.0, censoring), risk, ones)[0] == 0.0
    assert metrics.concordance(survival_metrics.uno_pairs(event, time, 6.0, censoring), risk, ones)[0] == 1 / 3
    assert survival_metrics.dynamic_auc(event, time, risk, (5.0,), censoring, ones)[0, 0] == 0.5


def test_dynamic_auc_and_its_mean_are_those_of_scikit_survival(case):
    train, test = _both(case)
    training, (event, time, risk, _), weights = case
    areas = survival_metrics.dynamic_auc(event, time, risk, AT, Censoring.fit(*training), weights)
    mean = survival_metrics.mean_auc(areas, survival_metrics.kaplan_meier_at(event, time, AT, weights))
    for own, value, rows in zip(areas, mean, _resamples(weights), strict=True):
        expected, expected_mean = cumulative_dynamic_auc(train, test[rows], risk[rows], AT)
        assert own == pytest.approx(expected, abs=1e-9)
        assert value == pytest.approx(expected_mean, abs=1e-9)


def test_brier_scores_are_those_of_scikit_survival(case):
    train, test = _both(case)
    training, (event, time, _, survival), weights = case
    errors = survival_metrics.brier_errors(event, time, survival, np.array(AT), Censoring.fit(*training))
    brier = metrics.weighted_mean(errors, weights)
    integrated = metrics.weighted_mean(survival_metrics.integrated_errors(errors, np.array(AT)), weights)
    for own, value, rows in zip(brier, integrated, _resamples(weights), strict=True):
        assert own == pytest.approx(brier_score(train, test[rows], survival[rows], AT)[1], abs=1e-9)
        assert value == pytest.approx(integrated_brier_score(train, test[rows], survival[rows], AT), abs=1e-9)


def test_kaplan_meier_is_that_of_scikit_survival(case):
    _, (event, time, _, _), weights = case
    found = survival_metrics.kaplan_meier_at(event, time, AT, weights)
    for own, rows in zip(found, _resamples(weights), strict=True):
        times, values = kaplan_meier_estimator(event[rows], time[rows])
        expected = np.append(1.0, values)[np.searchsorted(times, AT, side="right")]
        assert own == pytest.approx(expected, abs=1e-12)


def test_examples_of_the_library_on_its_own_data():
    """The veterans' lung cancer trial that scikit-survival documents its metrics on."""
    from sksurv.datasets import load_veterans_lung_cancer
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    table, outcome = load_veterans_lung_cancer()
    x = table[["Age_in_years", "Karnofsky_score", "Months_from_Diagnosis"]].to_numpy(dtype=float)
    train, test = outcome[:100], outcome[100:]
    model = CoxPHSurvivalAnalysis().fit(x[:100], train)
    risk, at = model.predict(x[100:]), np.arange(20.0, 200.0, 20.0)
    survival = np.stack([curve(at) for curve in model.predict_survival_function(x[100:])])
    event, time, ones = test["Status"], test["Survival_in_days"], np.ones((1, len(test)))
    censoring = Censoring.fit(train["Status"], train["Survival_in_days"])
    areas = survival_metrics.dynamic_auc(event, time, risk, tuple(at), censoring, ones)
    assert areas[0] == pytest.approx(cumulative_dynamic_auc(train, test, risk, at)[0], abs=1e-9)
    errors = survival_metrics.brier_errors(event, time, survival, at, censoring)
    value = metrics.weighted_mean(survival_metrics.integrated_errors(errors, at), ones)[0]
    assert value == pytest.approx(integrated_brier_score(train, test, survival, at), abs=1e-9)


def test_what_the_training_patients_cannot_tell_is_nan():
    """Nobody in training was followed beyond 10, where one in two was censored before."""
    censoring = Censoring.fit(np.array([True, False, True, True]), np.array([1.0, 2.0, 5.0, 10.0]))
    assert censoring.inverse(np.array([0.5, 2.0, 10.0, 10.5])) == pytest.approx([1, 1.5, 1.5, np.nan], nan_ok=True)
    event, time, risk = np.array([True, True, False]), np.array([3.0, 10.5, 20.0]), np.array([2.0, 1.0, 0.0])
    ones = np.ones((1, 3))
    areas = survival_metrics.dynamic_auc(event, time, risk, (4.0, 12.0), censoring, ones)
    assert areas[0] == pytest.approx([1.0, np.nan], nan_ok=True)
    errors = survival_metrics.brier_errors(event, time, np.full((3, 2), 0.5), np.array([4.0, 12.0]), censoring)
    assert np.isfinite(errors[:, 0]).all()
    assert np.isnan(errors[:, 1]).any()
    pairs = survival_metrics.uno_pairs(event, time, 20.0, censoring)
    assert np.isnan(metrics.concordance(pairs, risk, ones)[0])
    assert metrics.concordance(survival_metrics.uno_pairs(event, time, 10.0, censoring), risk, ones)[0] == 1.0


def test_without_cases_or_controls_an_area_is_not_defined():
    censoring = Censoring.fit(np.zeros(3, bool), np.array([9.0, 9.5, 10.0]))
    event, time, risk = np.array([True, True]), np.array([3.0, 4.0]), np.zeros(2)
    areas = survival_metrics.dynamic_auc(event, time, risk, (2.0, 3.5, 5.0), censoring, np.ones((1, 2)))
    assert areas[0] == pytest.approx([np.nan, 0.5, np.nan], nan_ok=True)
    survival = survival_metrics.kaplan_meier_at(event, time, (2.0, 3.5, 5.0), np.ones((1, 2)))
    assert survival[0] == pytest.approx([1.0, 0.5, 0.0])
    assert np.isnan(survival_metrics.mean_auc(areas, survival)[0])
    assert survival_metrics.mean_auc(areas[:, :2], survival[:, :2])[0] == 0.5
