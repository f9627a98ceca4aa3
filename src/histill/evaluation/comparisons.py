"""Differences between models on the same patients: intervals, p values, and their correction for many of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from histill.evaluation.estimates import number
from histill.evaluation.predictions import Outcomes, Predictions
from histill.evaluation.scoring import METRICS, Scores

TEACHER, STUDENT = "disentangled teacher", "disentangled student"
# Differences decided on before any number was seen: (a, b, what a - b tells).
COMPARISONS = (
    (STUDENT, "wsi-only", "value of distillation"),
    (TEACHER, "linear-both", "value of the deep multi-modal model"),
    (STUDENT, "abmil", "student against attention pooling"),
    (STUDENT, "transmil", "student against a transformer over tiles"),
    (STUDENT, "linear-slide", "student against the linear model on slides"),
    (TEACHER, "mcat", "teacher against co-attention of genes and tiles"),
    (TEACHER, STUDENT, "what is lost without the transcriptome"),
    ("mirror student", "wsi-only", "pre-training and distillation against labels alone"),
    ("mirror slide", "linear-slide", "value of the pre-trained slide encoder"),
    ("mirror student", "mirror slide", "value of distillation from the fused probe"),
    ("mirror fused", "linear-both", "value of the pre-trained encoders of both"),
    ("msrl student", "msrl slide", "value of borrowed genes"),
    ("msrl student", "wsi-only", "borrowed genes against labels alone"),
    ("msrl both", "msrl student", "what is lost without the transcriptome"),
    ("msrl student", "linear-slide", "student against the linear model on slides"),
)
BOOTSTRAP, DELONG = "bootstrap", "DeLong"


def compare(
    scores: Scores | None, models: list[Predictions], outcomes: Outcomes, seeds: list[int], confidence: float
) -> list[dict[str, Any]]:
    """Differences a - b of all models of `COMPARISONS` that are there, on the patients every model predicted.

    Returns
    -------
    For each difference and metric `a`, `b`, `meaning`, `metric`, what `Estimate.plain` has, and `p`, `test` (what the p
    value is of) and `p_holm`, corrected over all differences of the metric; p values are None where not defined.

    Notes
    -----
    The p value of a difference of two AUCs of two classes is DeLong's where every patient is tested once; that of other
    metrics is the bootstrap's.
    """
    if scores is None:
        return []
    by_name = {predictions.model.name: predictions for predictions in models}
    found = []
    for first, second, meaning in COMPARISONS:
        if first not in scores.estimates or second not in scores.estimates:
            continue
        for metric in METRICS[outcomes.type]:
            if metric.higher_is_better is None:
                continue
            difference = scores.estimates[first][metric.key] - scores.estimates[second][metric.key]
            p, test = difference.p_value(), BOOTSTRAP
            if metric.key == "auc" and len(outcomes.classes) == 2 and outcomes.repeats == 1:
                exact = delong_p(by_name[first], by_name[second], scores.patients, outcomes, seeds)
                p, test = (p, BOOTSTRAP) if exact is None else (exact, DELONG)
            named = {"a": first, "b": second, "meaning": meaning, "metric": metric.key}
            found.append({**named, **difference.plain(confidence), "p": number(p), "test": test})
    for metric in METRICS[outcomes.type]:
        own = [entry for entry in found if entry["metric"] == metric.key]
        for entry, corrected in zip(own, holm([entry["p"] for entry in own]), strict=True):
            entry["p_holm"] = corrected
    return found


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values corrected for their number, which bounds the chance of any false finding; None stays None.

    Notes
    -----
    Holm, Scand J Stat 6:65 (1979).
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, index) in enumerate(known):
        floor = max(floor, min(1.0, p * (len(known) - rank)))
        corrected[index] = floor
    return corrected


def delong(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Difference of two correlated AUCs and its variance.

    Parameters
    ----------
    labels
        [N] bool, two positive and two negative patients at least.
    first, second
        [S, N] scores of the two models, one row a seed; the AUC of a model is the mean over its rows.

    Notes
    -----
    DeLong et al., Biometrics 44:837 (1988). The AUC is a mean over positive and over negative patients of how often
    they are ranked rightly; the mean over seeds is one too.
    """
    difference = [a - b for a, b in zip(_placements(labels, first), _placements(labels, second), strict=True)]
    variance = sum(own.var(ddof=1) / len(own) for own in difference)
    return float(difference[0].mean()), float(variance)


def _placements(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the negatives that each positive is ranked above [P], and of the positives above each negative [M]."""
    credit = np.mean([np.heaviside(row[labels][:, None] - row[~labels][None, :], 0.5) for row in scores], axis=0)
    return credit.mean(1), credit.mean(0)


def delong_p(
    first: Predictions, second: Predictions, folds: dict[int, list[str]], outcomes: Outcomes, seeds: list[int]
) -> float | None:
    """Two-sided p value of the difference of two models' AUCs of two classes, each the mean over folds and seeds.

    Folds have no patient in common, so the variance of the mean is the sum of the folds' variances over their number
    squared. Folds of one class are left out, as in the AUC. None where a fold has a single patient of a class, and so
    no variance.
    """
    from scipy.stats import norm

    parts = []
    for fold, members in folds.items():
        labels = np.array([outcomes.values[patient] == 1 for patient in members])
        sizes = (int(labels.sum()), int((~labels).sum()))
        if min(sizes) == 0:  # left out of the AUC too
            continue
        if min(sizes) == 1:
            return None
        scores = [
            np.array([[model.test[fold, seed][patient][1] for patient in members] for seed in seeds])
            for model in (first, second)
        ]
        parts.append(delong(labels, *scores))
    if not parts:
        return None
    difference, variance = np.sum(parts, axis=0)
    if variance == 0:
        return 1.0 if difference == 0 else None
    return float(2 * norm.sf(abs(difference) / np.sqrt(variance)))
