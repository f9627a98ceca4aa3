"""Maps from what a model says to what was observed, fitted on predictions of patients that it had not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_EPSILON = 1e-7


@dataclass(frozen=True)
class ClassCalibration:
    """Class probabilities as often right as they say: softmax(slope · log p + bias); of two classes Platt's scaling.

    Fitted on out-of-fold predictions by maximum likelihood, with Platt's smoothed targets, so that a model that makes
    no error gets no infinite slope. The slope is not negative: order is never turned round.

    Attributes
    ----------
    slope
        [1].
    bias
        [C]; the last is 0.
    """

    slope: np.ndarray
    bias: np.ndarray

    @classmethod
    def fit(cls, probabilities: np.ndarray, label: np.ndarray) -> ClassCalibration:
        """Fit on probabilities [N, C] and class numbers [N].

        Source: Platt (1999); the same form for more classes is bias-corrected temperature scaling (Alexandari et al.,
        ICML 2020).
        """
        from scipy.optimize import minimize

        count, classes = probabilities.shape
        logits = np.log(np.maximum(probabilities, _EPSILON))
        own = np.bincount(label, minlength=classes)
        sure = (own + 1) / (own + classes)
        target = np.repeat(((1 - sure) / max(1, classes - 1))[label][:, None], classes, axis=1)
        target[np.arange(count), label] = sure[label]

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            said = _softmax(parameters[0] * logits + np.append(parameters[1:], 0.0))
            slopes = (said - target) / count
            value = -(target * np.log(np.maximum(said, 1e-300))).sum() / count
            return value, np.append((slopes * logits).sum(), slopes[:, :-1].sum(axis=0))

        start = np.append(1.0, np.zeros(classes - 1))
        bounds = [(0.0, None), *[(None, None)] * (classes - 1)]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        return cls(found.x[:1], np.append(found.x[1:], 0.0))

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [..., C] of probabilities [..., C]."""
        return _softmax(self.slope * np.log(np.maximum(probabilities, _EPSILON)) + self.bias)


def _softmax(values: np.ndarray) -> np.ndarray:
    exponent = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class SurvivalCalibration:
    """Survival of a patient with a standardised risk: baseline ** exp(slope · risk), a Cox model of the risk alone.

    Fitted on out-of-fold risks, baseline by Breslow. The slope is not negative: a model that ranks no better than
    chance gets 0, and every patient the survival of the cohort.

    Attributes
    ----------
    slope
        [1], log hazard ratio of one training standard deviation.
    times
        [T], in units of the task's time column.
    baseline
        Survival at risk 0 [T].
    """

    slope: np.ndarray
    times: np.ndarray
    baseline: np.ndarray

    @classmethod
    def fit(cls, risk: np.ndarray, time: np.ndarray, event: np.ndarray, times: np.ndarray) -> SurvivalCalibration:
        """Fit on standardised risks, follow-up times and events [N]; `times` [T] are those of the baseline."""
        from sksurv.linear_model import CoxPHSurvivalAnalysis
        from sksurv.util import Surv

        outcome = Surv.from_arrays(event.astype(bool), np.maximum(time, 1e-6))
        constant = np.zeros((len(risk), 1))

        def cox(x: np.ndarray) -> Any:
            # The penalty is that of a hundredth of a patient: it only keeps separable risks finite.
            return CoxPHSurvivalAnalysis(alpha=0.01, ties="efron").fit(x, outcome)

        model = cox(risk[:, None]) if risk.std() > 0 else cox(constant)
        if not np.isfinite(model.coef_).all() or model.coef_[0] < 0:
            model = cox(constant)
        hazard = model.cum_baseline_hazard_
        at = np.searchsorted(hazard.x, times, side="right") - 1
        cumulated = np.where(at >= 0, hazard.y[np.maximum(at, 0)], 0.0)
        return cls(np.asarray(model.coef_, dtype=np.float64), np.asarray(times, dtype=np.float64), np.exp(-cumulated))

    def __call__(self, risk: np.ndarray) -> np.ndarray:
        """Survival [..., T] of standardised risks [...]."""
        return self.baseline ** np.exp(self.slope * np.asarray(risk)[..., None])
