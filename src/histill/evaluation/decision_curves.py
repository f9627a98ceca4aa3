"""Decision curves: what acting on a prediction is worth, against acting on everybody or on nobody."""

from __future__ import annotations

from typing import Any

import numpy as np

from histill.evaluation.events import Event, complete, events_of
from histill.evaluation.horizons import Horizons
from histill.evaluation.predictions import Outcomes, Predictions
from histill.evaluation.sampling import Sample
from histill.evaluation.survival_metrics import kaplan_meier_at

THRESHOLDS = np.arange(1, 100) / 100
_NOTE = (
    "Net benefit (Vickers & Elkin 2006) of treating the patients whose predicted probability is at or above a "
    "threshold: true positives a patient, less false positives a patient weighted by the odds of the threshold, which "
    "is where treating and not treating are worth the same. 'All' treats everybody; treating nobody is worth 0. Test "
    "patients of all folds are taken together; values are means over seeds."
)
_SURVIVAL = (
    " At a horizon true positives are counted by the Kaplan-Meier estimate of the patients at or above the threshold, "
    "or the last there is where none of them was followed so long."
)


def decide(
    models: list[Predictions],
    sample: Sample | None,
    outcomes: Outcomes,
    horizons: Horizons,
    seeds: list[int],
    unit: str,
) -> dict[str, Any]:
    """`note`, and `of`: for each class or horizon `of`, `thresholds`, and the net benefit of `all` and of `models`."""
    found: dict[str, Any] = {"note": _NOTE + (_SURVIVAL if outcomes.type == "survival" else ""), "of": []}
    if sample is None:
        return found
    patients = [patient for own in sample.patients.values() for patient in own]
    for event in events_of(outcomes, horizons, unit):
        curves = {
            model.model.name: _plain(
                np.mean([_benefit(event, model, sample, outcomes, seed) for seed in seeds], axis=0)
            )
            for model in models
            if complete(event, model, sample, seeds)
        }
        everybody = net_benefit(np.ones(len(patients)), *_happened(event, patients, outcomes), time=event.time)
        entry = {"of": event.label, "thresholds": THRESHOLDS.tolist(), "all": _plain(everybody), "models": curves}
        found["of"].append(entry)
    return found


def net_benefit(
    predicted: np.ndarray, happened: np.ndarray, followed: np.ndarray | None = None, *, time: float | None = None
) -> np.ndarray:
    """Net benefit at `THRESHOLDS`.

    Parameters
    ----------
    predicted
        [N] probabilities.
    happened
        [N] whether it happened; of survival whether an event was seen at the time `followed`.
    followed, time
        [N] follow-up times, and the horizon; None for what is known of everybody.

    Returns
    -------
    [T]; 0 where nobody is at or above a threshold.

    Notes
    -----
    Vickers & Elkin, Med Decis Making 26:565 (2006); for censored times Vickers et al., BMC Med Inform Decis Mak 8:53
    (2008).
    """
    called = (predicted[None, :] >= THRESHOLDS[:, None]).astype(np.float64)
    size = called.sum(1)
    if followed is None:
        positive = called @ happened.astype(np.float64)
    else:
        positive = size * (1.0 - kaplan_meier_at(happened, followed, (time,), called, extend=True)[:, 0])
    return (positive - (size - positive) * THRESHOLDS / (1.0 - THRESHOLDS)) / len(predicted)


def _benefit(event: Event, model: Predictions, sample: Sample, outcomes: Outcomes, seed: int) -> np.ndarray:
    by_fold = [event.predicted(model, fold, seed, own) for fold, own in sample.patients.items()]
    patients = [patient for own in sample.patients.values() for patient in own]
    return net_benefit(np.concatenate(by_fold), *_happened(event, patients, outcomes), time=event.time)


def _happened(event: Event, patients: list[str], outcomes: Outcomes) -> tuple[np.ndarray, ...]:
    """Whether it happened [N], and of survival the follow-up time [N]."""
    if event.index is not None:
        return (np.array([outcomes.values[patient] == event.index for patient in patients]),)
    time, died = np.array([outcomes.values[patient] for patient in patients], dtype=np.float64).T
    return died == 1, time


def _plain(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]
