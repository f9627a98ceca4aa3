"""95 % intervals hold the truth in 93 to 97 % of cohorts: mean over folds, as runs are scored."""

from __future__ import annotations

import numpy as np
import pytest

from histill.evaluation import metrics
from histill.evaluation.horizons import Horizons
from histill.evaluation.intervals import percentile_interval
from histill.evaluation.predictions import Outcomes
from histill.evaluation.sampling import Sample, by_fold
from histill.evaluation.scoring import ClassificationFold, SurvivalFold

SIMULATIONS, PATIENTS, FOLDS, DRAWS = 1000, 120, 3, 400


def _draw(kind, rng, size):
    """Outcomes, and predictions [N, 1] or [N, 2] that see half of the risk."""
    risk = rng.standard_normal(size)
    seen = risk + rng.standard_normal(size)
    if kind == "classification":
        p = 1 / (1 + np.exp(-seen))
        return (rng.random(size) < 1 / (1 + np.exp(-1.5 * risk))).astype(int).tolist(), np.column_stack([1 - p, p])
    time, censored = rng.exponential(np.exp(-risk)), rng.uniform(0.2, 3, size)
    event = (time <= censored).astype(int)
    return list(zip(np.minimum(time, censored).tolist(), event.tolist(), strict=True)), seen[:, None]


def _truth(kind, rng):
    """Share of comparable pairs of patients who are ranked rightly, over many pairs of independent patients."""
    right = known = 0.0
    for _ in range(50):
        values, output = _draw(kind, rng, 800)
        if kind == "classification":
            labels = np.array(values)
            comparable = (labels[:, None] == 1) & (labels[None, :] == 0)
        else:
            time, event = np.array(values).T
            comparable = metrics.comparable_pairs(event, time)
        right += (comparable & (output[:, -1][:, None] > output[:, -1][None, :])).sum()
        known += comparable.sum()
    return right / known


@pytest.mark.parametrize(("kind", "key"), [("survival", "c_index"), ("classification", "auc")])
def test_intervals_hold_the_truth_in_95_of_100_cohorts(kind, key):
    rng = np.random.default_rng(17)
    truth = _truth(kind, rng)
    held = []
    for number in range(SIMULATIONS):
        values, output = _draw(kind, rng, PATIENTS)
        names = [f"P{i:03d}" for i in range(PATIENTS)]
        folds = {name: [i % FOLDS] for i, name in enumerate(names)}
        outcomes = Outcomes(kind, dict(zip(names, values, strict=True)), folds, ("no", "yes"))
        tested = by_fold(set(names), outcomes)
        scorers = {}
        for fold, members in tested.items():
            own = [outcomes.values[name] for name in members]
            scorers[fold] = SurvivalFold(own, Horizons(), fold) if kind == "survival" else ClassificationFold(own)
        sample = Sample.draw(tested, {fold: scorer.defined for fold, scorer in scorers.items()}, DRAWS, number)
        drawn = []
        for fold, scorer in scorers.items():
            rows = output[np.arange(PATIENTS) % FOLDS == fold]
            if kind == "survival":
                drawn.append(metrics.concordance(scorer.comparable, rows[:, 0], sample.weights[fold]))
            else:
                drawn.append(metrics.auc(scorer.labels, rows, sample.weights[fold]))
        low, high = percentile_interval(np.mean(drawn, axis=0)[1:], 0.95)
        held.append(low <= truth <= high)
    assert 0.93 <= np.mean(held) <= 0.97
