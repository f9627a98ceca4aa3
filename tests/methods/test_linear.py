from __future__ import annotations

import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored

from histill.cohort.tasks import Task
from histill.data.fold import Labels
from histill.methods.baselines.linear import Block, LinearModel

OPTIONS = {"components": 8, "alphas": [0.01, 0.1, 1.0]}
SURVIVAL = Labels(Task("os", "survival", ("t", "e")), edges=np.array([1.0]))
CLASSES = Labels(Task("dx", "classification", ("dx",)), classes=["a", "b", "c"])


def data(n=150, seed=0):
    generator = np.random.default_rng(seed)
    factor = generator.normal(size=(n, 2))
    slide = factor @ generator.normal(size=(2, 30)) + generator.normal(size=(n, 30))
    rna = factor @ generator.normal(size=(2, 50)) + generator.normal(size=(n, 50))
    time = generator.exponential(np.exp(-factor.sum(axis=1)))
    event = generator.random(n) < 0.7
    return factor, {"slide": slide, "rna": rna}, list(zip(time, event.astype(int), strict=True))


def test_cox_finds_the_risk_and_says_which_way():
    factor, inputs, outcome = data()
    model = LinearModel.fit(inputs, SURVIVAL, outcome, OPTIONS)
    risk = model.predict(inputs)[:, 0]
    time, event = np.array(outcome).T
    assert concordance_index_censored(event == 1, time, risk)[0] > 0.7
    assert np.corrcoef(risk, factor.sum(axis=1))[0, 1] > 0.7


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_gives_probabilities_in_the_order_of_classes(classes):
    factor, inputs, _ = data()
    names = np.array(["a", "b", "c"])[:classes]
    label = names[np.digitize(factor[:, 0], [0] if classes == 2 else [-0.4, 0.4])]
    labels = Labels(CLASSES.task, classes=list(names))
    predicted = LinearModel.fit(inputs, labels, list(label), OPTIONS).predict(inputs)
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert (names[predicted.argmax(axis=1)] == label).mean() > 0.7


def test_a_class_absent_from_training_has_no_probability():
    factor, inputs, _ = data()
    label = np.where(factor[:, 0] > 0, "a", "c")
    predicted = LinearModel.fit(inputs, CLASSES, list(label), OPTIONS).predict(inputs)
    assert predicted[:, 1].max() < 1e-6
    assert (np.array(["a", "b", "c"])[predicted.argmax(axis=1)] == label).mean() > 0.7


def test_round_trip_through_arrays():
    _, inputs, outcome = data()
    model = LinearModel.fit(inputs, SURVIVAL, outcome, OPTIONS)
    again = LinearModel.from_state(model.state())
    assert list(again.blocks) == ["slide", "rna"]
    np.testing.assert_array_equal(model.predict(inputs), again.predict(inputs))


def test_scores_are_scaled_and_never_more_than_the_data_carry():
    x = np.random.default_rng(0).normal(size=(12, 40))
    block = Block.fit(x, 32)
    scores = block.transform(x)
    assert scores.shape[1] <= 11
    deviation = scores.std(axis=0, ddof=1)
    assert deviation[0] == pytest.approx(1, rel=1e-3)
    assert (np.diff(deviation) <= 1e-6).all()
    assert Block.fit(np.ones((12, 4)), 8).transform(np.ones((2, 4))).shape == (2, 1)


def test_few_late_events_do_not_stop_the_choice_of_the_penalty():
    _, inputs, outcome = data()
    few = [(time + 10 * (index < 2), int(index < 2)) for index, (time, _) in enumerate(outcome)]
    assert np.isfinite(LinearModel.fit(inputs, SURVIVAL, few, OPTIONS).predict(inputs)).all()


def test_time_zero_is_a_time():
    _, inputs, outcome = data()
    outcome[0] = (0.0, 1)
    assert np.isfinite(LinearModel.fit(inputs, SURVIVAL, outcome, OPTIONS).predict(inputs)).all()


def test_survival_of_the_cox_model_is_that_of_scikit_survival():
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    _, inputs, outcome = data()
    outcome = [(np.ceil(time * 4) / 4, event) for time, event in outcome]  # with ties
    labels = Labels(SURVIVAL.task, edges=np.array([0.5, 1.0, 2.0]))
    model = LinearModel.fit(inputs, labels, outcome, OPTIONS)
    scores = np.hstack([block.transform(inputs[name]) for name, block in model.blocks.items()])
    time, event = np.array(outcome).T
    theirs = CoxPHSurvivalAnalysis(alpha=model.alpha, ties="efron").fit(scores, Surv.from_arrays(event == 1, time))
    expected = np.stack([curve(labels.edges) for curve in theirs.predict_survival_function(scores)])
    np.testing.assert_allclose(model.survival(inputs), expected, atol=1e-9)
    np.testing.assert_array_equal(LinearModel.from_state(model.state()).survival(inputs), model.survival(inputs))


def test_survival_is_one_without_events_and_stays_a_probability_far_from_the_training_patients():
    _, inputs, outcome = data()
    none = LinearModel.fit(inputs, SURVIVAL, [(time, 0) for time, _ in outcome], OPTIONS)
    assert (none.survival(inputs) == 1).all()
    model = LinearModel.fit(inputs, SURVIVAL, outcome, OPTIONS)
    model.coefficients = model.coefficients * 1e4
    curves = model.survival(inputs)
    assert np.isfinite(curves).all()
    assert ((curves >= 0) & (curves <= 1)).all()
