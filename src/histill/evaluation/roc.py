"""ROC curves, averaged over folds, seeds and classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from histill.evaluation import metrics
from histill.evaluation.predictions import Outcomes, Predictions

_GRID = np.linspace(0.0, 1.0, 51)


def curves(
    models: list[Predictions], folds: dict[int, list[str]], outcomes: Outcomes, seeds: list[int]
) -> dict[str, Any]:
    """`false_positive_rate` [51], and `true_positive_rate`: model name -> [51], on the patients of some folds."""
    found = {}
    for predictions in models:
        rates = []
        for fold, members in folds.items():
            labels = np.array([outcomes.values[patient] for patient in members])
            for seed in seeds:
                outputs = np.stack([predictions.test[fold, seed][patient] for patient in members])
                rates.append(metrics.roc_curve(labels, outputs, _GRID))
        rates = [rate for rate in rates if rate is not None]
        if rates:
            found[predictions.model.name] = np.mean(rates, axis=0).round(5).tolist()
    return {"false_positive_rate": _GRID.round(5).tolist(), "true_positive_rate": found}
