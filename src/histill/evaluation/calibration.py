"""Calibration: slope and intercept of the predicted probabilities, and what was observed in groups of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from histill.evaluation import recalibration
from histill.evaluation.estimates import DEFINED, number
from histill.evaluation.events import Event, complete, events_of
from histill.evaluation.horizons import Horizons
from histill.evaluation.intervals import percentile_interval
from histill.evaluation.predictions import Outcomes, Predictions
from histill.evaluation.sampling import Sample
from histill.evaluation.scoring import pooled
from histill.evaluation.survival_metrics import kaplan_meier_at

GROUPS, GROUP_SIZE = 10, 20  # at most so many groups of so many patients at least
_NOTE = (
    "Probabilities of different folds' models are on one scale, so the test patients of all folds are taken together. "
    "The slope is the coefficient of the predicted log odds in a logistic regression of what happened (Cox 1958): 1 is "
    "perfect, below 1 predictions are too extreme. The intercept is that of the same regression with the slope held at "
    "1: below 0 predictions are too high on average. Both are means over seeds. Curves show patients in groups of "
    "equal size by predicted probability: mean prediction, and share observed with its bootstrap interval."
)
_SURVIVAL = (
    " At a horizon, what happened is the event until then; patients censored before are left out of the regression and "
    "the others weighted by the inverse probability of censoring (IPCW), and the observed share of a group is 1 minus "
    "its Kaplan-Meier estimate, or the last there is where nobody of the group was followed so long. Models whose "
    "intervals end before a horizon are not shown there."
)


def calibrate(
    models: list[Predictions],
    sample: Sample | None,
    outcomes: Outcomes,
    horizons: Horizons,
    seeds: list[int],
    confidence: float,
    unit: str,
) -> dict[str, Any]:
    """`note`, and `models`: name -> a list, for each class or horizon, of `of`, `slope`, `intercept` and `curve`."""
    survival = outcomes.type == "survival"
    found: dict[str, Any] = {"note": _NOTE + (_SURVIVAL if survival else ""), "models": {}}
    if sample is None:
        return found
    for model in models:
        found["models"][model.model.name] = [
            _entry(event, model, sample, outcomes, horizons, seeds, confidence)
            for event in events_of(outcomes, horizons, unit)
            if complete(event, model, sample, seeds)
        ]
    return found


def _entry(
    event: Event,
    model: Predictions,
    sample: Sample,
    outcomes: Outcomes,
    horizons: Horizons,
    seeds: list[int],
    confidence: float,
) -> dict[str, Any]:
    rows = event.rows(model, outcomes, sample, horizons)
    measures = {
        name: pooled(sample, seeds, rows, lambda p, happened, w, fit=fit: fit(recalibration.logit(p), happened, w))
        for name, fit in (("slope", recalibration.slope), ("intercept", recalibration.intercept))
    }
    plain = {name: estimate.plain(confidence) for name, estimate in measures.items()}
    return {
        "of": event.label,
        # Among few patients a slope can be anything, and resamples have none: such a number is no finding.
        **{name: None if value["low"] is None else value for name, value in plain.items()},
        "curve": _curve(event, model, sample, outcomes, seeds, confidence),
    }


def _curve(
    event: Event, model: Predictions, sample: Sample, outcomes: Outcomes, seeds: list[int], confidence: float
) -> dict[str, list]:
    """`predicted`, `observed`, `low`, `high`, and `n` patients of each group; None where nothing can be said."""
    members = [patient for own in sample.patients.values() for patient in own] * len(seeds)
    by_run = [event.predicted(model, fold, seed, own) for seed in seeds for fold, own in sample.patients.items()]
    predicted = np.concatenate(by_run)
    weights = np.tile(np.concatenate(list(sample.weights.values()), axis=1), len(seeds))
    count = int(np.clip(len(set(members)) // GROUP_SIZE, 2, GROUPS))
    edges = np.unique(np.quantile(predicted, np.arange(1, count) / count))
    group = np.searchsorted(edges, predicted, side="right")
    curve: dict[str, list] = {name: [] for name in ("predicted", "observed", "low", "high", "n")}
    for index in np.unique(group):
        own = np.flatnonzero(group == index)
        patients = [members[row] for row in own]
        share = _observed(event, patients, outcomes, weights[:, own])
        drawn = share[1:][np.isfinite(share[1:])]
        sure = len(drawn) >= DEFINED * (len(share) - 1)
        low, high = percentile_interval(drawn, confidence) if sure else (np.nan, np.nan)
        values = (float(predicted[own].mean()), *map(number, (share[0], low, high)), len(set(patients)))
        for name, value in zip(curve, values, strict=True):
            curve[name].append(value)
    return curve


def _observed(event: Event, patients: list[str], outcomes: Outcomes, weights: np.ndarray) -> np.ndarray:
    """Share [B] with the class, or with the event until the horizon."""
    if event.index is not None:
        is_class = np.array([outcomes.values[patient] == event.index for patient in patients], dtype=np.float64)
        total = weights.sum(1)
        return np.divide(weights @ is_class, total, out=np.full(len(total), np.nan), where=total > 0)
    time, died = np.array([outcomes.values[patient] for patient in patients], dtype=np.float64).T
    return 1.0 - kaplan_meier_at(died, time, (event.time,), weights, extend=True)[:, 0]
