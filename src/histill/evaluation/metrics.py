"""Ranking and classification under patient weights: one call scores every resample of a bootstrap.

A bootstrap resample is a vector of counts, so a rank statistic over pairs (i, j) is a quadratic form in it: the pair
matrix of a fold is built once and each resample costs one product. Weights of one give the plain metric.

Every function takes `weights` [B, N] and returns [B]; a value is NaN where the metric is not defined.
"""

from __future__ import annotations

import numpy as np

TIED_RISK = 1e-8  # risks closer than this count as tied, as in scikit-survival


def comparable_pairs(event: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Pairs that Harrell's C compares.

    Parameters
    ----------
    event, time
        [N] event indicator (1 event, 0 censored) and follow-up time.

    Returns
    -------
    [N, N] bool; (i, j) is set where patient i is known to have had the event before patient j: an earlier time, or
    the same time with j censored. Two events at one time are not compared.

    Notes
    -----
    Harrell et al., JAMA 247:2543 (1982); ties as in `sksurv.metrics.concordance_index_censored`.
    """
    event = np.asarray(event, dtype=bool)
    earlier = time[:, None] < time[None, :]
    outlived = (time[:, None] == time[None, :]) & ~event[None, :]
    return event[:, None] & (earlier | outlived)


def concordance(comparable: np.ndarray, risk: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Harrell's concordance index: share of comparable pairs whose earlier event has the higher risk.

    Parameters
    ----------
    comparable
        [N, N], of `comparable_pairs`.
    risk
        [N], higher means an earlier event. Pairs with tied risk count one half.
    weights
        [B, N] patient weights.
    """
    difference = risk[:, None] - risk[None, :]
    tied = np.abs(difference) <= TIED_RISK
    credit = comparable * np.where(tied, 0.5, difference > 0)
    return ratio(quadratic(weights, credit, weights), quadratic(weights, comparable, weights))


def auc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve; with more than two classes the macro average of one class against the rest.

    Parameters
    ----------
    labels
        [N] class index.
    probabilities
        [N, C]. With two classes the second is the positive one.
    weights
        [B, N] patient weights.

    Notes
    -----
    Averaged over the classes present (with weight) beside at least one other; NaN with a single class.
    """
    areas = []
    for index in scored_classes(probabilities):
        positive = labels == index
        score = probabilities[:, index]
        credit = np.heaviside(score[positive][:, None] - score[~positive][None, :], 0.5)
        inside, outside = weights[:, positive], weights[:, ~positive]
        areas.append(ratio(quadratic(inside, credit, outside), inside.sum(1) * outside.sum(1)))
    return mean_defined(np.stack(areas))


def scored_classes(probabilities: np.ndarray) -> range:
    """Classes that are told from the rest: all of them, or of two classes [N, 2] the second alone."""
    count = probabilities.shape[1]
    return range(count) if count > 2 else range(1, 2)


def average_precision(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision, Σ (R_k − R_k−1) P_k over the thresholds; macro average as in `auc`, NaN with a single class.

    Shapes as in `auc`. Chance is the share of the class. As `sklearn.metrics.average_precision_score`.
    """
    values = []
    for index in scored_classes(probabilities):
        order = np.argsort(-probabilities[:, index], kind="stable")
        score, positive = probabilities[order, index], labels[order] == index
        last = np.append(score[:-1] != score[1:], True)  # of patients with one score
        called = np.cumsum(weights[:, order], axis=1)[:, last]
        found = np.cumsum(weights[:, order] * positive, axis=1)[:, last]
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        area = (np.diff(found, axis=1, prepend=0.0) * precision).sum(1)
        several = (found[:, -1] > 0) & (found[:, -1] < called[:, -1])
        values.append(np.where(several, ratio(area, found[:, -1]), np.nan))
    return mean_defined(np.stack(values))


def f1(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Macro F1: mean over the classes that are present or predicted, the most probable class being the prediction.

    Shapes as in `auc`; NaN with a single class present. As `sklearn.metrics.f1_score(average="macro")`.
    """
    classes = np.arange(probabilities.shape[1])
    predicted, truth = probabilities.argmax(1)[:, None] == classes, labels[:, None] == classes
    sizes = weights @ truth.astype(np.float64)
    value = ratio(2 * (weights @ (predicted & truth)), sizes + weights @ predicted.astype(np.float64))
    return np.where((sizes > 0).sum(1) > 1, mean_defined(value.T), np.nan)


def balanced_accuracy(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean recall of the classes present, the most probable class being the prediction; NaN with a single class.

    Shapes as in `auc`.
    """
    hit = probabilities.argmax(1) == labels
    present = np.arange(probabilities.shape[1]) == labels[:, None]
    recall = ratio(weights @ (hit[:, None] & present), weights @ present)
    several = np.isfinite(recall).sum(1) > 1
    return np.where(several, mean_defined(recall.T), np.nan)


def brier(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Brier score: squared error of the probabilities, summed over classes; for two classes of the positive one alone.

    Shapes as in `auc`. 0 is perfect; the sum for two classes would count the same error twice.
    """
    truth = np.arange(probabilities.shape[1]) == labels[:, None]
    error = ((probabilities - truth) ** 2).sum(1) * (0.5 if probabilities.shape[1] == 2 else 1.0)
    return ratio(weights @ error, weights.sum(1))


def roc_curve(labels: np.ndarray, probabilities: np.ndarray, grid: np.ndarray) -> np.ndarray | None:
    """True-positive rate [G] at the false-positive rates `grid` [G], averaged over classes as in `auc`.

    None where no class can be told from the others, as with a single class.
    """
    curves = []
    for index in scored_classes(probabilities):
        positive = labels == index
        if not positive.any() or positive.all():
            continue
        thresholds = np.unique(probabilities[:, index])[::-1]
        called = probabilities[:, index][None, :] >= thresholds[:, None]
        rate = [np.concatenate([[0.0], called[:, side].mean(1)]) for side in (~positive, positive)]
        curves.append(np.interp(grid, *rate))
    return np.mean(curves, axis=0) if curves else None


def quadratic(left: np.ndarray, matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Σ_ij left_i matrix_ij right_j of each row of weights: [B, N], [N, M], [B, M] -> [B]."""
    return ((left @ matrix.astype(np.float64)) * right).sum(1)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is not above 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of patients' values [N] or [N, T]: [B] or [B, T]."""
    total = weights.sum(1)
    return (weights @ values) / (total if values.ndim == 1 else total[:, None])


def mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN."""
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(0), defined.sum(0))
