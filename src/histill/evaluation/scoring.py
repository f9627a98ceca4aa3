"""Score several models on the same patients, fold by fold, with the same resamples for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histill.evaluation import metrics, survival_metrics
from histill.evaluation.estimates import Estimate, mean_defined
from histill.evaluation.horizons import Horizons
from histill.evaluation.predictions import Curves, Outcomes, Predictions
from histill.evaluation.recalibration import logit, slope
from histill.evaluation.sampling import Sample, by_fold

_STEPS = 50  # times between the first and the last horizon that the Brier score is integrated over


@dataclass(frozen=True)
class Metric:
    """A metric as the tables name it. Where neither higher nor lower is better, 1 is best."""

    key: str
    name: str
    higher_is_better: bool | None = True


# The first of each is the one that models are judged by.
METRICS = {
    "survival": (
        Metric("c_index", "C-index"),
        Metric("uno_c", "Uno's C-index"),
        Metric("td_auc", "Time-dependent AUC"),
        Metric("ibs", "Integrated Brier score", higher_is_better=False),
    ),
    "classification": (
        Metric("auc", "AUC"),
        Metric("balanced_accuracy", "Balanced accuracy"),
        Metric("f1", "Macro F1"),
        Metric("average_precision", "Average precision"),
        Metric("brier", "Brier score", higher_is_better=False),
        Metric("calibration_slope", "Calibration slope", higher_is_better=None),
    ),
}


def horizon_key(metric: str, time: float) -> str:
    """Key of the estimate of `auc` or `brier` at a horizon."""
    return f"{metric}@{time!r}"


CLASSIFICATION_KEYS = tuple(m.key for m in METRICS["classification"] if m.key != "calibration_slope")  # by fold


def survival_keys(horizons: Horizons) -> list[str]:
    """Keys of all that is scored of survival by fold."""
    at_horizons = [horizon_key(name, t) for name in ("auc", "brier") for t in horizons.times]
    return [metric.key for metric in METRICS["survival"]] + at_horizons


class SurvivalFold:
    """Scores risks [N, 1] and survival curves of the patients of one fold."""

    def __init__(self, outcomes: list[tuple[float, int]], horizons: Horizons, fold: int):
        self.time, self.event = np.array(outcomes, dtype=np.float64).T
        self.comparable = metrics.comparable_pairs(self.event, self.time)
        self.horizons = horizons.times
        self.censoring = horizons.censoring.get(fold)
        self.keys = survival_keys(horizons)

    def defined(self, weights: np.ndarray) -> np.ndarray:
        present = weights > 0
        return ((present @ self.comparable.astype(np.float32)) * present).any(1)

    def score(self, output: np.ndarray, curves: np.ndarray | None, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metric key -> [B] under weights [B, N]; `curves` [N, H + G] is survival at the horizons and on `grid`."""
        risk = output[:, 0]
        found = dict.fromkeys(self.keys, np.full(len(weights), np.nan))
        found["c_index"] = metrics.concordance(self.comparable, risk, weights)
        if not self.horizons:
            return found
        pairs = survival_metrics.uno_pairs(self.event, self.time, self.horizons[-1], self.censoring)
        areas = survival_metrics.dynamic_auc(self.event, self.time, risk, self.horizons, self.censoring, weights)
        survival = survival_metrics.kaplan_meier_at(self.event, self.time, self.horizons, weights)
        found["uno_c"] = metrics.concordance(pairs, risk, weights)
        found["td_auc"] = survival_metrics.mean_auc(areas, survival)
        found |= {horizon_key("auc", t): areas[:, column] for column, t in enumerate(self.horizons)}
        return found if curves is None else found | self._brier(curves, weights)

    @property
    def grid(self) -> np.ndarray:
        """Times [G] that the Brier score is integrated over; none with a single horizon."""
        return np.linspace(self.horizons[0], self.horizons[-1], _STEPS if len(self.horizons) > 1 else 0)

    def _brier(self, curves: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        at = np.concatenate([self.horizons, self.grid])
        errors = survival_metrics.brier_errors(self.event, self.time, curves, at, self.censoring)
        errors[:, (~(self.time[:, None] > at)).all(0)] = np.nan  # nobody was followed so long
        count = len(self.horizons)
        scores = metrics.weighted_mean(errors[:, :count], weights)
        found = {horizon_key("brier", t): scores[:, column] for column, t in enumerate(self.horizons)}
        if len(self.grid):
            integrated = survival_metrics.integrated_errors(errors[:, count:], self.grid)
            found["ibs"] = metrics.weighted_mean(integrated, weights)
        return found

    def at_horizons(self, curves: Curves | None, members: list[str]) -> np.ndarray | None:
        """What `score` wants of a run's predicted curves."""
        if curves is None or not self.horizons:
            return None
        return survival_at(curves, members, np.concatenate([self.horizons, self.grid]))


class ClassificationFold:
    """Scores class probabilities [N, C] of the patients of one fold."""

    def __init__(self, outcomes: list[int]):
        self.labels = np.array(outcomes)

    def defined(self, weights: np.ndarray) -> np.ndarray:
        present = np.unique(self.labels) == self.labels[:, None]
        return ((weights @ present) > 0).sum(1) > 1

    def score(self, output: np.ndarray, curves: None, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {key: getattr(metrics, key)(self.labels, output, weights) for key in CLASSIFICATION_KEYS}

    def at_horizons(self, curves: None, members: list[str]) -> None:
        return None


def survival_at(curves: Curves, patients: list[str], at: np.ndarray) -> np.ndarray:
    """Survival [N, T] of patients at some times: linear from 1 at time 0 to the interval ends, NaN beyond the last."""
    ends = np.concatenate([[0.0], curves.times])
    found = [np.interp(at, ends, np.concatenate([[1.0], curves.values[patient]]), right=np.nan) for patient in patients]
    return np.array(found).reshape(len(patients), len(at))


def counts(patients: set[str], outcomes: Outcomes) -> dict[str, Any]:
    """`n` patients, and their `events` or `classes`."""
    values = [outcomes.values[patient] for patient in sorted(patients)]
    if outcomes.type == "survival":
        return {"n": len(values), "events": sum(event for _, event in values)}
    return {"n": len(values), "classes": {name: values.count(index) for index, name in enumerate(outcomes.classes)}}


@dataclass
class Scores:
    """Estimates of several models on one set of patients: model name -> metric key -> Estimate."""

    sample: Sample
    estimates: dict[str, dict[str, Estimate]]

    @property
    def patients(self) -> dict[int, list[str]]:
        return self.sample.patients

    @property
    def redrawn(self) -> int:
        return self.sample.redrawn


def score(
    models: list[Predictions],
    patients: set[str],
    outcomes: Outcomes,
    seeds: list[int],
    draws: int,
    seed: int,
    horizons: Horizons | None = None,
) -> Scores:
    """Score models on patients that all of them predicted.

    A metric is computed per fold and seed, since risks of different models are not comparable, then averaged over
    seeds and folds with equal weights; a fold that cannot be scored, or not in a resample, is left out there. The
    calibration slope is of all folds together. Resamples are drawn within folds and shared by all models and seeds, so
    differences of `Estimate.draws` are paired.

    Without `horizons` survival is scored by Harrell's C-index alone, and the other metrics are NaN.
    """
    survival, horizons = outcomes.type == "survival", horizons or Horizons()
    keys = survival_keys(horizons) if survival else CLASSIFICATION_KEYS
    folds = by_fold(patients, outcomes)
    scorers = {}
    for fold, members in folds.items():
        own = [outcomes.values[patient] for patient in members]
        scorers[fold] = SurvivalFold(own, horizons, fold) if survival else ClassificationFold(own)
    sample = Sample.draw(folds, {fold: scorer.defined for fold, scorer in scorers.items()}, draws, seed)
    estimates = {}
    for model in models:
        estimates[model.model.name] = _by_fold_and_seed(model, scorers, sample, seeds, keys)
        if not survival:
            estimates[model.model.name]["calibration_slope"] = _mean_slope(model, outcomes, sample, seeds)
    return Scores(sample, estimates)


def _by_fold_and_seed(
    model: Predictions, scorers: dict, sample: Sample, seeds: list[int], keys: Sequence[str]
) -> dict[str, Estimate]:
    points = {key: np.full((len(scorers), len(seeds)), np.nan) for key in keys}
    totals: dict[str, Any] = dict.fromkeys(keys, 0.0)
    scored: dict[str, Any] = dict.fromkeys(keys, 0)
    for row, (fold, scorer) in enumerate(scorers.items()):
        members = sample.patients[fold]
        values = [
            scorer.score(
                np.stack([model.test[fold, s][patient] for patient in members]),
                scorer.at_horizons(model.survival.get((fold, s)), members),
                sample.weights[fold],
            )
            for s in seeds
        ]
        for key in keys:
            by_seed = np.stack([value[key] for value in values])
            points[key][row] = by_seed[:, 0]
            if np.isfinite(by_seed[:, 0]).all():
                drawn = by_seed[:, 1:].mean(0)
                totals[key] = totals[key] + np.where(np.isfinite(drawn), drawn, 0.0)
                scored[key] = scored[key] + np.isfinite(drawn)
    return {
        key: Estimate(
            folds={fold: float(points[key][row].mean()) for row, fold in enumerate(scorers)},
            seeds={number: mean_defined(points[key][:, column]) for column, number in enumerate(seeds)},
            draws=metrics.ratio(totals[key], scored[key]) if np.ndim(scored[key]) else None,
        )
        for key in keys
    }


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def pooled(
    sample: Sample, seeds: list[int], rows: Callable[[int, int], Rows], measure: Callable[..., np.ndarray]
) -> Estimate:
    """An estimate of all folds together, for what is on one scale in all of them.

    Parameters
    ----------
    rows
        (fold, seed) -> what is predicted [N], what happened [N], and what each patient counts [N].
    measure
        (predicted [N], happened [N], weights [B, N]) -> [B].
    """
    if not sample.patients:
        return Estimate(seeds=dict.fromkeys(seeds, np.nan))
    weights = np.concatenate(list(sample.weights.values()), axis=1)
    by_seed, by_fold_and_seed = [], {fold: [] for fold in sample.patients}
    for number in seeds:
        parts = {fold: rows(fold, number) for fold in sample.patients}
        predicted, happened, own = (np.concatenate(column) for column in zip(*parts.values(), strict=True))
        used = own > 0  # most of what a horizon leaves out
        by_seed.append(measure(predicted[used], happened[used], weights[:, used] * own[used]))
        for fold, (x, y, each) in parts.items():
            by_fold_and_seed[fold].append(float(measure(x, y, each[None, :])[0]))
    values = np.stack(by_seed)
    return Estimate(
        folds={fold: float(np.mean(found)) for fold, found in by_fold_and_seed.items()},
        seeds={number: float(value) for number, value in zip(seeds, values[:, 0], strict=True)},
        draws=values[:, 1:].mean(0),
        pooled=float(values[:, 0].mean()),
    )


def class_rows(model: Predictions, outcomes: Outcomes, sample: Sample, index: int) -> Callable[[int, int], Rows]:
    """Rows for `pooled`: predicted probability of a class, and whether it is the class."""

    def rows(fold: int, seed: int) -> Rows:
        members = sample.patients[fold]
        predicted = np.array([model.test[fold, seed][patient][index] for patient in members])
        return predicted, np.array([outcomes.values[p] == index for p in members]), np.ones(len(members))

    return rows


def _mean_slope(model: Predictions, outcomes: Outcomes, sample: Sample, seeds: list[int]) -> Estimate:
    """Calibration slope; with more than two classes the mean of one against the rest."""

    def measure(predicted: np.ndarray, happened: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return slope(logit(predicted), happened, weights)

    count = len(outcomes.classes)
    own = [
        pooled(sample, seeds, class_rows(model, outcomes, sample, index), measure)
        for index in (range(count) if count > 2 else [1])
    ]
    if len(own) == 1 or not sample.patients:
        return own[0]
    return Estimate(
        folds={fold: float(np.mean([part.folds[fold] for part in own])) for fold in own[0].folds},
        seeds={number: float(np.mean([part.seeds[number] for part in own])) for number in seeds},
        draws=np.mean([part.draws for part in own], axis=0),
        pooled=float(np.mean([part.pooled for part in own])),
    )
