"""Outcomes and predictions in memory, of patients whose true risk is known."""

from __future__ import annotations

import numpy as np

from histill.evaluation.predictions import Curves, Model, Outcomes, Predictions

ENDS = (12.0, 24.0, 36.0)
RATE = 1 / 30  # events a month of a patient whose risk is 0


def assignment(names, folds, repeats, rng):
    """Patient -> fold of each repeat; every repeat has numbers of its own."""
    parts = [rng.permutation(np.arange(len(names)) % folds) + folds * repeat for repeat in range(repeats)]
    return {name: [int(part[row]) for part in parts] for row, name in enumerate(names)}


def survival(signals, *, patients=120, folds=3, repeats=1, seeds=(0,), seed=0):
    """Predictions by (method -> share of the risk that it sees), outcomes, and the true risk by patient.

    A model that sees all of the risk predicts the very hazards that patients have: it is calibrated.
    """
    rng = np.random.default_rng(seed)
    names = [f"P{number:03d}" for number in range(patients)]
    risk = rng.standard_normal(patients)
    time, censored = rng.exponential(np.exp(-risk) / RATE), rng.uniform(5, 100, patients)
    values = zip(np.minimum(time, censored).tolist(), (time <= censored).astype(int).tolist(), strict=True)
    outcomes = Outcomes(
        "survival", dict(zip(names, values, strict=True)), assignment(names, folds, repeats, np.random.default_rng(1))
    )
    models = []
    for method, share in signals.items():
        model = Predictions(Model(method, "train"), repeats=repeats)
        for fold, members in outcomes.tested.items():
            for number in seeds:
                noise = np.random.default_rng([fold, number, len(method)]).standard_normal(patients)
                seen = dict(zip(names, share * risk + np.sqrt(1 - share**2) * noise, strict=True))
                curves = {name: np.exp(-np.exp(seen[name]) * RATE * np.array(ENDS)) for name in members}
                model.test[fold, number] = {name: np.array([seen[name]]) for name in members}
                model.survival[fold, number] = Curves(np.array(ENDS), curves)
                model.training_risk[fold, number] = np.array([seen[name] for name in names if name not in members])
        models.append(model)
    return models, outcomes, dict(zip(names, risk, strict=True))


def classes(extremes, *, patients=120, folds=3, repeats=1, seeds=(0,), seed=0, names=("no", "yes")):
    """Predictions by (method -> how many times too extreme its log odds are), and outcomes."""
    rng = np.random.default_rng(seed)
    patient = [f"P{number:03d}" for number in range(patients)]
    log_odds = 1.2 * rng.standard_normal((patients, len(names))) + np.arange(len(names)) / 2
    truth = np.exp(log_odds) / np.exp(log_odds).sum(1, keepdims=True)
    label = (rng.random((patients, 1)) > truth.cumsum(1)).sum(1)
    outcomes = Outcomes(
        "classification",
        dict(zip(patient, map(int, label), strict=True)),
        assignment(patient, folds, repeats, np.random.default_rng(1)),
        tuple(names),
    )
    models = []
    for method, extreme in extremes.items():
        model = Predictions(Model(method, "train"), repeats=repeats)
        given = np.exp(extreme * log_odds) / np.exp(extreme * log_odds).sum(1, keepdims=True)
        for fold, members in outcomes.tested.items():
            for number in seeds:
                model.test[fold, number] = {name: given[patient.index(name)] for name in members}
        models.append(model)
    return models, outcomes
