"""P values: DeLong's test, the bootstrap's, and Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest

from histill.evaluation.comparisons import compare, delong, delong_p, holm
from histill.evaluation.estimates import Estimate
from histill.evaluation.intervals import resample, two_sided_p
from histill.evaluation.metrics import auc
from histill.evaluation.predictions import Model
from histill.evaluation.scoring import score
from tests.evaluation import synthetic


def _scores(rng, size, gain):
    """Labels, and scores [1, N] of two correlated models of which the first is better by `gain`."""
    labels = np.arange(size) % 2 == 0
    shared = rng.standard_normal(size)
    first, second = (shared + 0.7 * rng.standard_normal(size) + own * labels for own in (1 + gain, 1.0))
    return labels, first[None, :], second[None, :]


def test_delong_variance_is_that_of_its_definition():
    """DeLong et al. (1988), equations 2 to 6, summed pair by pair."""
    labels, first, second = _scores(np.random.default_rng(0), 30, 0.3)
    second = np.round(second, 1)  # with ties
    components = {"positive": [], "negative": []}
    for scores in (first[0], second[0]):
        x, y = scores[labels], scores[~labels]
        psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
        components["positive"].append(psi.mean(1))
        components["negative"].append(psi.mean(0))
    s10, s01 = np.cov(components["positive"]), np.cov(components["negative"])
    covariance = s10 / labels.sum() + s01 / (~labels).sum()
    contrast = np.array([1.0, -1.0])
    difference, variance = delong(labels, first, second)
    assert variance == pytest.approx(contrast @ covariance @ contrast, rel=1e-12)
    ones = np.ones((1, 30))
    areas = [auc(labels.astype(int), np.column_stack([-s[0], s[0]]), ones)[0] for s in (first, second)]
    assert difference == pytest.approx(areas[0] - areas[1], abs=1e-12)


def test_delong_and_bootstrap_agree_on_the_variance():
    rng = np.random.default_rng(1)
    labels, first, second = _scores(rng, 200, 0.3)
    counts, _ = resample(200, 4000, rng, lambda weights: np.ones(len(weights), bool))
    drawn = [auc(labels.astype(int), np.column_stack([-s[0], s[0]]), counts) for s in (first, second)]
    assert np.var(drawn[0] - drawn[1]) == pytest.approx(delong(labels, first, second)[1], rel=0.1)


def test_models_that_are_equally_good_differ_in_one_test_of_twenty():
    from scipy.stats import norm

    rng = np.random.default_rng(2)
    found = []
    for _ in range(1000):
        difference, variance = delong(*_scores(rng, 200, 0.0))
        found.append(2 * norm.sf(abs(difference) / np.sqrt(variance)))
    assert 0.035 < np.mean(np.array(found) < 0.05) < 0.065


def test_bootstrap_p_is_where_the_percentile_interval_reaches_zero():
    values = np.random.default_rng(3).standard_normal(9999) + 1.0
    p = two_sided_p(values)
    low, _ = np.quantile(values, [p / 2, 1 - p / 2])
    assert low == pytest.approx(0.0, abs=0.01)
    assert two_sided_p(values + 100) == 2 / 10_000  # never 0
    assert two_sided_p(np.zeros(99)) == 1.0
    assert np.isnan(Estimate({0: 0.1}, {0: 0.1}, None).p_value())


def test_holm():
    """The worked example of most text books: four tests."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_delong_over_folds_pools_their_variances():
    models, outcomes = synthetic.classes({"abmil": 1.0, "wsi-only": 1.0}, folds=2, patients=80)
    rng = np.random.default_rng(5)
    for rows in models[1].test.values():
        for patient in rows:
            p = np.clip(rows[patient][1] + 0.3 * rng.standard_normal(), 0, 1)
            rows[patient] = np.array([1 - p, p])
    parts = []
    for fold, members in outcomes.tested.items():
        labels = np.array([outcomes.values[p] == 1 for p in members])
        parts.append(delong(labels, *(np.array([[m.test[fold, 0][p][1] for p in members]]) for m in models)))
    z = np.mean([d for d, _ in parts]) / np.sqrt(sum(v for _, v in parts) / 4)
    from scipy.stats import norm

    assert delong_p(*models, outcomes.tested, outcomes, [0]) == pytest.approx(2 * norm.sf(abs(z)))
    same = delong_p(models[0], models[0], outcomes.tested, outcomes, [0])
    assert same == 1.0


def _named(models):
    """Models under names that are compared: the second is the WSI-only model."""
    models[0].model = Model("disentangled", "student")
    models[1].model = Model("wsi-only", "train")
    return models


@pytest.mark.parametrize(("repeats", "test"), [(1, "DeLong"), (2, "bootstrap")])
def test_delong_applies_where_each_patient_is_tested_once(repeats, test):
    models, outcomes = synthetic.classes({"abmil": 1.0, "wsi-only": 0.3}, repeats=repeats)
    scores = score(_named(models), set(outcomes.values), outcomes, [0], 200, 1)
    found = compare(scores, models, outcomes, [0], 0.95)
    assert [entry["metric"] for entry in found] == ["auc", "balanced_accuracy", "f1", "average_precision", "brier"]
    assert {entry["test"] for entry in found[1:]} == {"bootstrap"}
    assert found[0]["test"] == test
    assert found[0]["p_holm"] == found[0]["p"]  # one difference of this metric
    assert compare(None, models, outcomes, [0], 0.95) == []


def test_a_fold_with_one_patient_of_a_class_has_no_variance_and_is_tested_by_the_bootstrap():
    models, outcomes = synthetic.classes({"abmil": 1.0, "wsi-only": 0.5})
    fold = outcomes.tested[0]
    for number, patient in enumerate(fold):
        outcomes.values[patient] = int(number == 0)
    scores = score(_named(models), set(outcomes.values), outcomes, [0], 200, 1)
    assert compare(scores, models, outcomes, [0], 0.95)[0]["test"] == "bootstrap"


def test_three_classes_and_survival_are_tested_by_the_bootstrap():
    models, outcomes = synthetic.classes({"abmil": 1.0, "wsi-only": 0.5}, names=("a", "b", "c"))
    scores = score(_named(models), set(outcomes.values), outcomes, [0], 200, 1)
    assert {entry["test"] for entry in compare(scores, models, outcomes, [0], 0.95)} == {"bootstrap"}
    models, outcomes, _ = synthetic.survival({"abmil": 1.0, "wsi-only": 0.0})
    scores = score(_named(models), set(outcomes.values), outcomes, [0], 200, 1)
    found = {entry["metric"]: entry for entry in compare(scores, models, outcomes, [0], 0.95)}
    assert found["c_index"]["p"] < 0.05
    assert (found["ibs"]["value"], found["ibs"]["p"], found["ibs"]["p_holm"]) == (None, None, None)  # no horizons
