"""Scaling and selection of features: scikit-learn estimators fitted on training patients.

Their fitted state is a dictionary of arrays, so that a checkpoint needs no pickle.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

# Quantiles of training that values are clipped to before moments are taken.
QUANTILES = (0.01, 0.99)


class FittedState:
    """What a fitted estimator is, as arrays: `state` to store it, `from_state` to have it again."""

    PARAMETERS: tuple[str, ...] = ()
    FITTED: tuple[str, ...] = ()

    def state(self) -> dict[str, np.ndarray]:
        """Fitted arrays and parameters by name; text travels as JSON in an array of bytes."""
        check_is_fitted(self)
        # safetensors writes the memory of an array as it lies, whatever its strides.
        arrays = {name: np.asarray(getattr(self, name), order="C") for name in (*self.FITTED, *self.PARAMETERS)}
        return {name: _bytes(value.tolist()) if value.dtype.kind == "U" else value for name, value in arrays.items()}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Any:
        """The estimator whose `state` this is."""
        values = {name: json.loads(bytes(v)) if v.dtype == np.uint8 else v for name, v in state.items()}
        parameters = {name: values[name] for name in cls.PARAMETERS}
        estimator = cls(**{name: v.item() if isinstance(v, np.ndarray) else v for name, v in parameters.items()})
        for name in cls.FITTED:
            setattr(estimator, name, np.asarray(values[name]))
        estimator.n_features_in_ = state[cls.FITTED[0]].shape[-1]
        return estimator


def _bytes(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8).copy()


class WinsorizedScaler(FittedState, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Impute, clip to the training range, standardise.

    NaN becomes the training median; values are clipped to the training's 1st and 99th percentile before mean and
    standard deviation are taken, so that one outlier of 7,000 does not flatten a feature; the standardised values are
    clipped to ±`clip`. A feature that is constant in training becomes 0.

    Attributes
    ----------
    median_, low_, high_, mean_, std_
        float64 arrays [F], fitted.
    """

    PARAMETERS = ("clip",)
    FITTED = ("median_", "low_", "high_", "mean_", "std_")

    def __init__(self, clip: float = 5.0):
        self.clip = clip

    def fit(self, x: np.ndarray, y: None = None) -> WinsorizedScaler:
        """Fit on training rows [N, F]; NaN means not known. A feature without any known value becomes 0."""
        x = validate_data(self, x, dtype=np.float64, ensure_all_finite=False)
        known = np.isfinite(x)
        # A column without a value has no median: any constant serves, as it is 0 after scaling.
        x = np.where(known | known.any(axis=0), x, 0.0)
        x = np.where(np.isfinite(x), x, np.nan)
        self.median_ = np.nanmedian(x, axis=0)
        self.low_, self.high_ = np.nanquantile(x, QUANTILES, axis=0)
        clipped = np.clip(x, self.low_, self.high_)
        self.mean_, self.std_ = np.nanmean(clipped, axis=0), np.nanstd(clipped, axis=0)
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Scaled float32 rows [N, F], always finite."""
        check_is_fitted(self)
        x = validate_data(
            self, x, reset=False, dtype=np.float32, copy=True, ensure_all_finite=False, ensure_min_samples=0
        )
        # Rounding noise of a constant feature must not be blown up to unit variance.
        constant = self._constant()
        scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, self.std_)).astype(np.float32)
        unknown = ~np.isfinite(x)
        if unknown.any():
            x[unknown] = np.broadcast_to(self.median_.astype(np.float32), x.shape)[unknown]
        np.clip(x, self.low_.astype(np.float32), self.high_.astype(np.float32), out=x)
        x -= self.mean_.astype(np.float32)
        x *= scale
        return np.clip(x, -self.clip, self.clip, out=x)

    def outliers(self, x: np.ndarray) -> np.ndarray:
        """Which values [N, F] lie more than `clip` training standard deviations from the mean: bool [N, F]."""
        check_is_fitted(self)
        return np.abs(np.asarray(x) - self.mean_) > np.where(self._constant(), np.inf, self.clip * self.std_)

    def _constant(self) -> np.ndarray:
        return self.std_ <= 1e-6 * np.maximum(np.abs(self.mean_), 1e-12)


class VarianceFilter(FittedState, SelectorMixin, BaseEstimator):
    """Keep the features that vary most among training rows; their order stays.

    Variance is taken of values clipped to the training's 1st and 99th percentile, so that no feature is kept for one
    outlier. The most variable feature is always kept.

    Parameters
    ----------
    top
        Share of the features kept, above 0 up to 1.
    minimum
        Variance below which a feature is left out; 0 keeps constant ones.

    Attributes
    ----------
    variance_
        float64 [F].
    support_
        bool [F], the features kept.
    """

    PARAMETERS = ("top", "minimum")
    FITTED = ("variance_", "support_")

    def __init__(self, top: float = 1.0, minimum: float = 0.0):
        self.top = top
        self.minimum = minimum

    def fit(self, x: np.ndarray, y: None = None) -> VarianceFilter:
        """Fit on training rows [N, F]; NaN means not known."""
        x = validate_data(self, x, dtype=np.float64, ensure_all_finite="allow-nan")
        low, high = np.nanquantile(x, QUANTILES, axis=0)
        self.variance_ = np.nanvar(np.clip(x, low, high), axis=0)
        order = np.argsort(-self.variance_, kind="stable")[: max(1, round(self.top * x.shape[1]))]
        self.support_ = np.zeros(x.shape[1], dtype=bool)
        self.support_[order] = self.variance_[order] >= self.minimum
        self.support_[order[0]] = True
        return self

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return self.support_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
