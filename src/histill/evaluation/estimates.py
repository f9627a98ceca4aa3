"""One number of one model: by fold, by seed, in every resample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from histill.evaluation.intervals import percentile_interval, two_sided_p

DEFINED = 0.95  # share of the resamples in which a metric must be defined for an interval


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
        [B] the value in every resample, mean over folds and seeds; NaN where no fold of a resample can be scored.
    pooled
        Value of all folds together, for a metric that is computed once for all patients; None for the mean over folds.
    """

    folds: dict[int, float] = field(default_factory=dict)
    seeds: dict[int, float] = field(default_factory=dict)
    draws: np.ndarray | None = None
    pooled: float | None = None

    @property
    def value(self) -> float:
        return mean_defined(list(self.folds.values())) if self.pooled is None else self.pooled

    @property
    def defined(self) -> np.ndarray | None:
        """Values of the resamples that have one; None where too few have."""
        if self.draws is None or not math.isfinite(self.value):
            return None
        found = self.draws[np.isfinite(self.draws)]
        return found if len(found) >= DEFINED * len(self.draws) else None

    def interval(self, confidence: float) -> tuple[float, float]:
        found = self.defined
        return (math.nan, math.nan) if found is None else percentile_interval(found, confidence)

    def p_value(self) -> float:
        """Two-sided bootstrap p value of the value being 0."""
        found = self.defined
        return math.nan if found is None else two_sided_p(found)

    def __sub__(self, other: Estimate) -> Estimate:
        """Paired difference: the resamples of both are of the same patients."""
        both = self.draws is not None and other.draws is not None
        return Estimate(
            folds={fold: value - other.folds[fold] for fold, value in self.folds.items()},
            seeds={seed: value - other.seeds[seed] for seed, value in self.seeds.items()},
            draws=self.draws - other.draws if both else None,
            pooled=None if self.pooled is None else self.pooled - other.pooled,
        )

    def plain(self, confidence: float) -> dict[str, Any]:
        """As JSON has it; undefined values are None."""
        low, high = self.interval(confidence)
        return {
            "value": number(self.value),
            "low": number(low),
            "high": number(high),
            "folds": [{"fold": fold, "value": number(value)} for fold, value in self.folds.items()],
            "seeds": [{"seed": seed, "value": number(value)} for seed, value in self.seeds.items()],
        }


def number(value: float) -> float | None:
    """As JSON has it: None for what is not finite."""
    return float(value) if math.isfinite(value) else None


def mean_defined(values) -> float:
    """Mean of the finite values; NaN without any."""
    values = np.asarray(values, dtype=np.float64)
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else math.nan
