"""Logistic recalibration under patient weights: does a predicted 30 % happen in 30 of 100?"""

from __future__ import annotations

import numpy as np

_CLIP = 1e-6  # probabilities closer to 0 and 1 are taken as this: a float32 softmax rounds to both
_STEPS, _TOLERANCE = 40, 1e-8
_SINGULAR = 1e-13  # determinant over trace, of a curvature without an inverse
_BLOCK = 2_000_000  # weights at once


def logit(probability: np.ndarray) -> np.ndarray:
    """Log odds of probabilities."""
    clipped = np.clip(probability, _CLIP, 1.0 - _CLIP)
    return np.log(clipped / (1.0 - clipped))


def slope(log_odds: np.ndarray, happened: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Calibration slope [B]: coefficient of the predicted log odds in a logistic regression of what happened.

    1 is perfect; below 1 predictions are too extreme, above 1 too timid.

    Parameters
    ----------
    log_odds
        [N] of the predicted probabilities.
    happened
        [N] bool.
    weights
        [B, N].

    Returns
    -------
    [B]; NaN where the regression has no finite solution: all or nothing happened, predictions are constant, or they
    separate what happened from what did not.

    Notes
    -----
    Cox, Biometrika 45:562 (1958).
    """
    design = np.column_stack([np.ones_like(log_odds), log_odds])
    return _blockwise(design, np.zeros_like(log_odds), happened, weights)[:, 1]


def intercept(log_odds: np.ndarray, happened: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Calibration in the large [B]: intercept of the same regression with the slope held at 1.

    0 is perfect; below 0 predictions are too high on average. Arguments as of `slope`; Van Calster et al., BMC Med
    17:230 (2019).
    """
    return _blockwise(np.ones((len(log_odds), 1)), log_odds, happened, weights)[:, 0]


def _blockwise(design: np.ndarray, offset: np.ndarray, happened: np.ndarray, weights: np.ndarray) -> np.ndarray:
    rows = max(1, _BLOCK // max(1, len(offset)))
    happened = np.asarray(happened, dtype=np.float64)
    first = _fit(design, offset, happened, weights[:1], np.zeros(design.shape[1]))
    start = np.nan_to_num(first[0])  # resamples are not far from the patients themselves
    later = range(1, len(weights), rows)
    return np.concatenate([first, *(_fit(design, offset, happened, weights[at : at + rows], start) for at in later)])


def _fit(
    design: np.ndarray, offset: np.ndarray, happened: np.ndarray, weights: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Coefficients [B, P] of logistic regressions by Newton's method; NaN where it does not converge."""
    count = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    found = np.full((len(weights), count), np.nan)
    total, positive = weights.sum(1), weights @ happened
    rows = np.flatnonzero((positive > 0) & (positive < total))
    current = np.tile(start, (len(rows), 1))
    for _ in range(_STEPS):
        if not rows.size:
            break
        own = weights[rows]
        p = 1.0 / (1.0 + np.exp(-np.clip(offset + current @ design.T, -500, 500)))
        gradient = (own * (happened - p)) @ design
        curvature = ((own * p * (1.0 - p)) @ products).reshape(-1, count, count)
        trace = np.trace(curvature, axis1=1, axis2=2)
        solvable = np.linalg.det(curvature) > _SINGULAR * trace**count
        rows, current = rows[solvable], current[solvable]
        step = np.linalg.solve(curvature[solvable], gradient[solvable][:, :, None])[:, :, 0]
        # A step of the linear predictor by more than this is where the quadratic approximation ends.
        spread = np.abs(step @ design.T).max(1, initial=0.0)
        current = current + step * np.minimum(1.0, 5.0 / np.maximum(spread, 1e-300))[:, None]
        done = spread < _TOLERANCE
        found[rows[done]] = current[done]
        rows, current = rows[~done], current[~done]
    return found
