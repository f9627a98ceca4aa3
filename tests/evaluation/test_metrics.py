"""Weighted metrics against scikit-survival, scikit-learn and resampling carried out row by row."""

from __future__ import annotations

import numpy as np
import pytest

from histill.evaluation import metrics
from histill.evaluation.intervals import percentile_interval, resample


def _survival(rng, size, ties):
    time = rng.exponential(10, size)
    risk = rng.standard_normal(size)
    if ties:
        time, risk = np.ceil(time / 5), np.round(risk)
    return rng.random(size) < 0.6, time, risk


def _repeat(counts):
    return np.repeat(np.arange(len(counts)), counts.astype(int))


def _one(size):
    return np.ones((1, size))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [5, 23, 84])
def test_concordance_equals_scikit_survival(ties, size):
    from sksurv.metrics import concordance_index_censored

    rng = np.random.default_rng(size)
    for _ in range(10):
        event, time, risk = _survival(rng, size, ties)
        event[time.argmin()] = True
        ours = metrics.concordance(metrics.comparable_pairs(event, time), risk, _one(size))[0]
        assert ours == pytest.approx(concordance_index_censored(event, time, risk)[0], abs=1e-12)


def test_risks_within_the_tolerance_are_tied_as_in_scikit_survival():
    from sksurv.metrics import concordance_index_censored

    event, time = np.array([True, True, True]), np.array([1.0, 2.0, 3.0])
    risk = np.array([1.0, 1.0 + 5e-9, 0.0])
    ours = metrics.concordance(metrics.comparable_pairs(event, time), risk, _one(3))[0]
    assert ours == concordance_index_censored(event, time, risk)[0] == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_concordance_equals_explicit_resampling(ties):
    from sksurv.metrics import concordance_index_censored

    rng = np.random.default_rng(3)
    event, time, risk = _survival(rng, 30, ties)
    counts, _ = resample(30, 50, rng, lambda weights: np.ones(len(weights), bool))
    ours = metrics.concordance(metrics.comparable_pairs(event, time), risk, counts)
    for value, weights in zip(ours, counts, strict=True):
        rows = _repeat(weights)
        assert value == pytest.approx(concordance_index_censored(event[rows], time[rows], risk[rows])[0], abs=1e-12)


def _classified(rng, size, classes):
    labels = rng.integers(classes, size=size)
    probabilities = (
        np.round(rng.dirichlet(np.ones(classes), size) + 0.3 * np.eye(classes)[labels], 1) + 0.01
    )  # with ties
    return labels, probabilities / probabilities.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classification_metrics_equal_scikit_learn_on_resampled_rows(classes):
    from sklearn.metrics import (
        average_precision_score,
        balanced_accuracy_score,
        brier_score_loss,
        f1_score,
        roc_auc_score,
    )

    rng = np.random.default_rng(classes)
    labels, probabilities = _classified(rng, 60, classes)
    counts, _ = resample(60, 20, rng, lambda weights: ((weights @ np.eye(classes)[labels]) > 0).all(1))
    names = ("auc", "balanced_accuracy", "f1", "average_precision", "brier")
    found = {name: getattr(metrics, name)(labels, probabilities, counts) for name in names}
    for index, weights in enumerate(counts):
        rows = _repeat(weights)
        truth, given = labels[rows], probabilities[rows]
        score = given[:, 1] if classes == 2 else given
        assert found["auc"][index] == pytest.approx(roc_auc_score(truth, score, multi_class="ovr"), abs=1e-12)
        assert found["balanced_accuracy"][index] == pytest.approx(balanced_accuracy_score(truth, given.argmax(1)))
        assert found["f1"][index] == pytest.approx(f1_score(truth, given.argmax(1), average="macro"), abs=1e-12)
        one_hot = truth if classes == 2 else np.eye(classes)[truth]
        assert found["average_precision"][index] == pytest.approx(average_precision_score(one_hot, score), abs=1e-12)
        expected = (
            brier_score_loss(truth, score, labels=range(classes))
            if classes == 2
            else np.mean(((given - np.eye(classes)[truth]) ** 2).sum(1))
        )
        assert found["brier"][index] == pytest.approx(expected)


def test_what_is_not_defined_is_nan():
    time, risk = np.array([1.0, 2.0, 3.0]), np.zeros(3)
    no_event = metrics.comparable_pairs(np.zeros(3, bool), time)
    assert np.isnan(metrics.concordance(no_event, risk, _one(3)))[0]
    one_class, probabilities = np.zeros(3, int), np.full((3, 2), 0.5)
    assert np.isnan(metrics.auc(one_class, probabilities, _one(3)))[0]
    assert np.isnan(metrics.balanced_accuracy(one_class, probabilities, _one(3)))[0]
    assert np.isnan(metrics.f1(one_class, probabilities, _one(3)))[0]
    assert np.isnan(metrics.average_precision(one_class, probabilities, _one(3)))[0]
    assert metrics.brier(one_class, probabilities, _one(3))[0] == 0.25
    assert metrics.roc_curve(one_class, probabilities, np.linspace(0, 1, 3)) is None


def test_constant_risks_score_one_half():
    pairs = metrics.comparable_pairs(np.array([True, True, False]), np.array([1.0, 2.0, 3.0]))
    assert metrics.concordance(pairs, np.full(3, 0.7), _one(3))[0] == 0.5


def test_roc_curve_encloses_the_area():
    rng = np.random.default_rng(5)
    labels = rng.integers(2, size=200)
    score = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.2 * rng.standard_normal(200), 0, 1)
    probabilities = np.column_stack([1 - score, score])
    grid = np.linspace(0, 1, 2001)
    area = np.trapezoid(metrics.roc_curve(labels, probabilities, grid), grid)
    assert area == pytest.approx(metrics.auc(labels, probabilities, _one(200))[0], abs=2e-3)


def test_resamples_that_cannot_be_scored_are_drawn_again():
    def defined(counts):
        return counts[:, 0] > 0

    counts, redrawn = resample(6, 500, np.random.default_rng(0), defined)
    assert defined(counts).all()
    assert (counts.sum(1) == 6).all()
    assert redrawn == pytest.approx(500 * 0.335 / 0.665, rel=0.3)  # P(patient 0 not drawn) = (5/6)^6
    with pytest.raises(ValueError, match="cannot"):
        resample(6, 10, np.random.default_rng(0), lambda counts: np.zeros(len(counts), bool))


def test_intervals_cover_the_truth():
    """300 cohorts with a known AUC: about 95 % of the intervals hold it."""
    truth = 0.7602  # Phi(1 / sqrt 2)
    rng = np.random.default_rng(11)
    labels = np.repeat([0, 1], 60)
    covered = 0
    for _ in range(300):
        score = rng.standard_normal(120) + labels
        counts, _ = resample(120, 200, rng, lambda weights: np.ones(len(weights), bool))
        low, high = percentile_interval(metrics.auc(labels, np.column_stack([-score, score]), counts), 0.95)
        covered += low <= truth <= high
    assert 0.90 <= covered / 300 <= 0.985
