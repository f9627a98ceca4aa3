"""Kaplan-Meier curves of predicted risk groups, cut where the training patients say, not the test patients."""

from __future__ import annotations

from typing import Any

import numpy as np

from histill.evaluation.predictions import Outcomes, Predictions

_NOTE = (
    "A test patient is of high risk when the risk lies above the median risk of the training patients of the same "
    "fold's model; with several seeds or repeats the distances from that median, in training standard deviations, are "
    "averaged. Folds are pooled; the p value is of the log-rank test."
)


def curves(
    models: list[Predictions],
    folds: dict[int, list[str]],
    outcomes: Outcomes,
    seeds: list[int],
    confidence: float,
) -> dict[str, Any]:
    """`note`, and `models`: name -> `risk_groups`, each patient of the folds once."""
    order = list(dict.fromkeys(patient for members in folds.values() for patient in members))
    if not order:
        return {"note": _NOTE, "models": {}}
    time, event = np.array([outcomes.values[patient] for patient in order], dtype=np.float64).T
    found = {}
    for predictions in models:
        margins: dict[str, list[float]] = {patient: [] for patient in order}
        for fold, members in folds.items():
            for seed in seeds:
                risk = np.array([predictions.test[fold, seed][patient][0] for patient in members])
                own = risk_margin(risk, predictions.training_risk[fold, seed])
                for patient, margin in zip(members, own, strict=True):
                    margins[patient].append(margin)
        mean = np.array([np.mean(margins[patient]) for patient in order])
        found[predictions.model.name] = risk_groups(event, time, mean, confidence)
    return {"note": _NOTE, "models": found}


def risk_margin(risk: np.ndarray, training_risk: np.ndarray) -> np.ndarray:
    """Distance [N] of test risks from the median training risk of the same model, in its training standard deviations.

    Risks of different fold models have no common scale; margins do, so folds are pooled and seeds averaged by them.
    A model whose training risks are constant separates nobody: every margin is 0.
    """
    spread = training_risk.std()
    return (risk - np.median(training_risk)) / spread if spread > 0 else np.zeros_like(risk)


def kaplan_meier(event: np.ndarray, time: np.ndarray, confidence: float) -> dict[str, Any]:
    """Kaplan-Meier estimate as steps from time 0.

    Parameters
    ----------
    event, time
        [N] event indicator and follow-up time, N at least 1.

    Returns
    -------
    `n`, `events`, and lists of one length: `time`, `survival`, `low`, `high` (log-log band; None where it is not
    defined), `at_risk` (patients under observation just before that time).
    """
    from sksurv.nonparametric import kaplan_meier_estimator

    event, time = np.asarray(event, dtype=bool), np.asarray(time, dtype=np.float64)
    with np.errstate(all="ignore"):  # the band is not defined at survival 0 and 1
        steps, survival, (low, high) = kaplan_meier_estimator(event, time, conf_level=confidence, conf_type="log-log")
    at_risk = (time[None, :] >= steps[:, None]).sum(1)
    return {
        "n": len(time),
        "events": int(event.sum()),
        "time": [0.0, *map(float, steps)],
        "survival": [1.0, *map(float, survival)],
        "low": [1.0, *map(_finite, low)],
        "high": [1.0, *map(_finite, high)],
        "at_risk": [len(time), *map(int, at_risk)],
    }


def log_rank(event: np.ndarray, time: np.ndarray, high: np.ndarray) -> float | None:
    """Log-rank p value of two groups; None where a group is empty or there is no event."""
    from sksurv.compare import compare_survival

    event, high = np.asarray(event, dtype=bool), np.asarray(high, dtype=bool)
    if not event.any() or high.all() or not high.any():
        return None
    outcome = np.array(list(zip(event, time, strict=True)), dtype=[("event", bool), ("time", np.float64)])
    try:
        _, p_value = compare_survival(outcome, high.astype(int))
    except np.linalg.LinAlgError:  # every event falls where only one group is left under observation
        return None
    return _finite(p_value)


def risk_groups(event: np.ndarray, time: np.ndarray, margin: np.ndarray, confidence: float) -> dict[str, Any]:
    """Curves of patients above (`high`) and not above (`low`) the cut-off, and the log-rank p value between them."""
    high = margin > 0
    groups = {
        name: kaplan_meier(event[members], time[members], confidence)
        for name, members in (("low", ~high), ("high", high))
        if members.any()
    }
    return {"log_rank_p": log_rank(event, time, high), "groups": groups}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
