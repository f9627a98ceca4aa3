"""Metrics of censored times under patient weights, censoring being weighted away by the training patients' censoring.

A patient known to have had the event at T counts 1 / G(T), one known to be free of it at t counts 1 / G(t), G being the
probability not to be censored until then: IPCW (Robins & Rotnitzky 1992). G is the Kaplan-Meier estimate of the
training patients of the fold, so it is given and not resampled. Values equal those of `sksurv.metrics`.

Every function takes `weights` [B, N] and returns [B, ...]; a value is NaN where the metric is not defined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histill.evaluation.metrics import TIED_RISK, comparable_pairs, quadratic, ratio


@dataclass(frozen=True)
class Censoring:
    """Probability G(t) not to be censored until t: 1 before the first of `times` [K], then steps to `values` [K]."""

    times: np.ndarray
    values: np.ndarray

    @classmethod
    def fit(cls, event: np.ndarray, time: np.ndarray) -> Censoring:
        """Kaplan-Meier estimate of event indicator and follow-up time [N]; events come before censoring of one time."""
        from sksurv.nonparametric import kaplan_meier_estimator

        if not len(time):
            return cls(np.zeros(0), np.zeros(0))
        return cls(*kaplan_meier_estimator(np.asarray(event, dtype=bool), np.asarray(time, float), reverse=True))

    @property
    def last(self) -> float:
        """The time until which anybody was followed; 0 without patients."""
        return float(self.times[-1]) if len(self.times) else 0.0

    def inverse(self, time: np.ndarray) -> np.ndarray:
        """1 / G of some times; NaN where G is 0, or not known because nobody was followed so long."""
        steps = np.append(1.0, self.values)
        found = steps[np.searchsorted(self.times, time, side="right")]
        known = (found > 0) & (np.asarray(time) <= self.last)
        return np.divide(1.0, found, out=np.full(found.shape, np.nan), where=known)


def uno_pairs(event: np.ndarray, time: np.ndarray, tau: float, censoring: Censoring) -> np.ndarray:
    """Weights [N, N] of the pairs that Uno's concordance index compares.

    With them `histill.evaluation.metrics.concordance` is Uno's: pairs as Harrell's, each counting 1 / G² of the earlier
    event, and none whose earlier event is not before `tau`. Uno et al., Stat Med 30:1105 (2011); as
    `sksurv.metrics.concordance_index_ipcw`.
    """
    own = np.where(time < tau, censoring.inverse(time), 0.0)
    # np.where, since the weight of a censored patient may be unknown.
    return np.where(comparable_pairs(event, time), np.square(own)[:, None], 0.0)


def dynamic_auc(
    event: np.ndarray,
    time: np.ndarray,
    risk: np.ndarray,
    at: tuple[float, ...],
    censoring: Censoring,
    weights: np.ndarray,
) -> np.ndarray:
    """Cumulative/dynamic AUC [B, H] at times `at`: patients with an event until t against those free of it beyond t.

    Notes
    -----
    Uno et al., JASA 102:527 (2007); Hung & Chiang, Can J Stat 38:8 (2010). As `sksurv.metrics.cumulative_dynamic_auc`.
    """
    areas = np.full((len(weights), len(at)), np.nan)
    for column, t in enumerate(at):
        case, control = np.asarray(event, dtype=bool) & (time <= t), time > t
        difference = risk[case][:, None] - risk[control][None, :]
        credit = np.where(np.abs(difference) <= TIED_RISK, 0.5, difference > 0)
        cases, controls = weights[:, case] * censoring.inverse(time[case]), weights[:, control]
        areas[:, column] = ratio(quadratic(cases, credit, controls), cases.sum(1) * controls.sum(1))
    return areas


def mean_auc(areas: np.ndarray, survival: np.ndarray) -> np.ndarray:
    """Mean [B] over horizons of AUC [B, H], each weighted by the share of events since the one before.

    `survival` [B, H] is the Kaplan-Meier estimate of the scored patients at the horizons. A horizon without an event
    since the one before counts nothing, one that cannot be scored makes the mean NaN. As `cumulative_dynamic_auc`.
    """
    drop = -np.diff(survival, axis=1, prepend=1.0)
    return ratio(np.where(drop > 0, areas * drop, 0.0).sum(1), drop.sum(1))


def kaplan_meier_at(
    event: np.ndarray, time: np.ndarray, at: tuple[float, ...], weights: np.ndarray, *, extend: bool = False
) -> np.ndarray:
    """Kaplan-Meier estimate [B, H] at some times.

    Where nobody was followed so long and the estimate is not 0, it is NaN, or its last value with `extend`, for groups
    that are small by nature.
    """
    event = np.asarray(event, dtype=bool)
    steps = np.unique(time[event & (time <= max(at))])
    died = weights @ ((time[:, None] == steps) & event[:, None]).astype(np.float64)
    at_risk = weights @ (time[:, None] >= steps).astype(np.float64)
    share = np.divide(died, at_risk, out=np.zeros_like(died), where=at_risk > 0)
    survival = np.concatenate([np.ones((len(weights), 1)), np.cumprod(1.0 - share, axis=1)], axis=1)
    found = survival[:, np.searchsorted(steps, at, side="right")]
    if extend:
        return found
    followed = weights @ (time[:, None] >= np.asarray(at)).astype(np.float64) > 0
    return np.where(followed | (found == 0), found, np.nan)


def brier_errors(
    event: np.ndarray, time: np.ndarray, survival: np.ndarray, at: np.ndarray, censoring: Censoring
) -> np.ndarray:
    """Each patient's weighted squared error [N, T] of predicted survival [N, T] at some times [T].

    Their mean is the Brier score. NaN in a whole column where the censoring weights are not known.

    Notes
    -----
    Graf et al., Stat Med 18:2529 (1999). As `sksurv.metrics.brier_score`.
    """
    event, at = np.asarray(event, dtype=bool), np.asarray(at, dtype=np.float64)
    case = event[:, None] & (time[:, None] <= at)
    control = time[:, None] > at
    own, horizon = censoring.inverse(time)[:, None], np.broadcast_to(censoring.inverse(at), case.shape)
    # np.where, since a weight that is not needed may be unknown.
    return np.where(case, survival**2 * own, 0.0) + np.where(control, (1.0 - survival) ** 2 * horizon, 0.0)


def integrated_errors(errors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Errors [N, T] integrated over `at` [T] by the trapezoid rule, divided by its span: [N].

    Their mean is the integrated Brier score, as `sksurv.metrics.integrated_brier_score`.
    """
    return np.trapezoid(errors, at, axis=1) / (at[-1] - at[0])
