"""Score several models on the same patients, fold by fold, with the same resamples for all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from histill.evaluation import metrics
from histill.evaluation.intervals import percentile_interval, resample
from histill.evaluation.predictions import Outcomes, Predictions


@dataclass(frozen=True)
class Metric:
    """A metric as the tables name it."""

    key: str
    name: str
    higher_is_better: bool = True


METRICS = {
    "survival": (Metric("c_index", "C-index"),),
    "classification": (
        Metric("auc", "AUC"),
        Metric("balanced_accuracy", "Balanced accuracy"),
        Metric("brier", "Brier score", higher_is_better=False),
    ),
}


class SurvivalFold:
    """Scores risks [N, 1] of the patients of one fold."""

    def __init__(self, outcomes: list[tuple[float, int]]):
        time, event = np.array(outcomes, dtype=np.float64).T
        self.comparable = metrics.comparable_pairs(event, time)

    def defined(self, weights: np.ndarray) -> np.ndarray:
        present = weights > 0
        return ((present @ self.comparable.astype(np.float32)) * present).any(1)

    def score(self, output: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"c_index": metrics.concordance(self.comparable, output[:, 0], weights)}


class ClassificationFold:
    """Scores class probabilities [N, C] of the patients of one fold."""

    def __init__(self, outcomes: list[int]):
        self.labels = np.array(outcomes)

    def defined(self, weights: np.ndarray) -> np.ndarray:
        present = np.unique(self.labels) == self.labels[:, None]
        return ((weights @ present) > 0).sum(1) > 1

    def score(self, output: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "auc": metrics.auc(self.labels, output, weights),
            "balanced_accuracy": metrics.balanced_accuracy(self.labels, output, weights),
            "brier": metrics.brier(self.labels, output, weights),
        }


@dataclass
class Estimate:
    """One metric of one model.

    Attributes
    ----------
    folds
        Fold -> value, mean over seeds; NaN where the fold cannot be scored.
    seeds
        Seed -> value, mean over folds.
    draws
        [B] the value in every resample, mean over folds and seeds.
    """

    folds: dict[int, float] = field(default_factory=dict)
    seeds: dict[int, float] = field(default_factory=dict)
    draws: np.ndarray | None = None

    @property
    def value(self) -> float:
        return _mean(list(self.folds.values()))

    def interval(self, confidence: float) -> tuple[float, float]:
        if self.draws is None or not np.isfinite(self.draws).all():
            return (np.nan, np.nan)
        return percentile_interval(self.draws, confidence)

    def __sub__(self, other: Estimate) -> Estimate:
        """Paired difference: the resamples of both are of the same patients."""
        both = self.draws is not None and other.draws is not None
        return Estimate(
            folds={fold: value - other.folds[fold] for fold, value in self.folds.items()},
            seeds={seed: value - other.seeds[seed] for seed, value in self.seeds.items()},
            draws=self.draws - other.draws if both else None,
        )

    def plain(self, confidence: float) -> dict[str, Any]:
        """As JSON has it; undefined values are None."""
        low, high = self.interval(confidence)
        return {
            "value": _number(self.value),
            "low": _number(low),
            "high": _number(high),
            "folds": [{"fold": fold, "value": _number(value)} for fold, value in self.folds.items()],
            "seeds": [{"seed": seed, "value": _number(value)} for seed, value in self.seeds.items()],
        }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def counts(patients: set[str], outcomes: Outcomes) -> dict[str, Any]:
    """`n` patients, and their `events` or `classes`."""
    values = [outcomes.values[patient] for patient in sorted(patients)]
    if outcomes.type == "survival":
        return {"n": len(values), "events": sum(event for _, event in values)}
    return {"n": len(values), "classes": {name: values.count(index) for index, name in enumerate(outcomes.classes)}}


@dataclass
class Scores:
    """Estimates of several models on one set of patients: model name -> metric key -> Estimate."""

    patients: dict[int, list[str]]
    estimates: dict[str, dict[str, Estimate]]
    redrawn: int


def by_fold(patients: set[str], outcomes: Outcomes) -> dict[int, list[str]]:
    """Fold -> sorted patients; folds without any are left out."""
    folds: dict[int, list[str]] = {}
    for patient in sorted(patients):
        folds.setdefault(outcomes.fold[patient], []).append(patient)
    return dict(sorted(folds.items()))


def score(
    models: list[Predictions], patients: set[str], outcomes: Outcomes, seeds: list[int], draws: int, seed: int
) -> Scores:
    """Score models on patients that all of them predicted.

    A metric is computed per fold and seed, since risks of different models are not comparable, then averaged over
    seeds and folds with equal weights. Resamples are drawn within folds and shared by all models and seeds, so
    differences of `Estimate.draws` are paired.
    """
    folds = by_fold(patients, outcomes)
    keys = [metric.key for metric in METRICS[outcomes.type]]
    names = [predictions.model.name for predictions in models]
    points = {(name, key): np.full((len(folds), len(seeds)), np.nan) for name in names for key in keys}
    totals = {(name, key): np.zeros(draws) for name in names for key in keys}
    scored = dict.fromkeys(totals, 0)
    redrawn = 0
    make = SurvivalFold if outcomes.type == "survival" else ClassificationFold
    for row, (number, members) in enumerate(folds.items()):
        fold = make([outcomes.values[patient] for patient in members])
        ones = np.ones((1, len(members)))
        # A fold that cannot be ranked can still have a Brier score, so it is resampled without a condition.
        needed = fold.defined if fold.defined(ones)[0] else lambda counts: np.ones(len(counts), dtype=bool)
        counts, again = resample(len(members), draws, np.random.default_rng([seed, number]), needed)
        redrawn += again
        weights = np.concatenate([ones, counts])  # row 0 is the plain metric
        for predictions in models:
            outputs = [np.stack([predictions.test[number, s][p] for p in members]) for s in seeds]
            values = [fold.score(output, weights) for output in outputs]
            for key in keys:
                at = (predictions.model.name, key)
                by_seed = np.stack([value[key] for value in values])
                points[at][row] = by_seed[:, 0]
                if np.isfinite(by_seed[:, 0]).all():
                    totals[at] += by_seed[:, 1:].mean(0)
                    scored[at] += 1
    estimates = {
        name: {key: _estimate(points[name, key], totals[name, key], scored[name, key], folds, seeds) for key in keys}
        for name in names
    }
    return Scores(folds, estimates, redrawn)


def _estimate(points: np.ndarray, total: np.ndarray, scored: int, folds: dict, seeds: list[int]) -> Estimate:
    return Estimate(
        folds={number: float(points[row].mean()) for row, number in enumerate(folds)},
        seeds={number: _mean(points[:, column]) for column, number in enumerate(seeds)},
        draws=total / scored if scored else None,
    )


def _mean(values) -> float:
    """Mean of the folds that could be scored; NaN without any."""
    values = np.asarray(values, dtype=np.float64)
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")
