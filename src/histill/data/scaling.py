"""Scaling fitted on training patients."""

from __future__ import annotations

import numpy as np


class WinsorizedScaler:
    """Impute, clip to the training range, standardise.

    NaN becomes the training median; values are clipped to the training's 1st and 99th percentile before mean and
    standard deviation are taken, so that one outlier of 7,000 does not flatten a feature; the standardised values are
    clipped to ±`clip`. A feature that is constant in training becomes 0.

    Attributes
    ----------
    median_, low_, high_, mean_, std_
        float64 arrays [F], fitted.
    """

    QUANTILES = (0.01, 0.99)

    def __init__(self, clip: float = 5.0):
        self.clip = clip

    def fit(self, x: np.ndarray) -> WinsorizedScaler:
        """Fit on training rows [N, F]; NaN means not known. A feature without any known value becomes 0."""
        x = np.asarray(x, dtype=np.float64)
        known = np.isfinite(x)
        # A column without a value has no median: any constant serves, as it is 0 after scaling.
        x = np.where(known | known.any(axis=0), x, 0.0)
        x = np.where(np.isfinite(x), x, np.nan)
        self.median_ = np.nanmedian(x, axis=0)
        self.low_, self.high_ = np.nanquantile(x, self.QUANTILES, axis=0)
        clipped = np.clip(x, self.low_, self.high_)
        self.mean_, self.std_ = np.nanmean(clipped, axis=0), np.nanstd(clipped, axis=0)
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Scaled float32 rows [N, F], always finite."""
        # Rounding noise of a constant feature must not be blown up to unit variance.
        constant = self.std_ <= 1e-6 * np.maximum(np.abs(self.mean_), 1e-12)
        scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, self.std_)).astype(np.float32)
        x = np.array(x, dtype=np.float32)
        unknown = ~np.isfinite(x)
        if unknown.any():
            x[unknown] = np.broadcast_to(self.median_.astype(np.float32), x.shape)[unknown]
        np.clip(x, self.low_.astype(np.float32), self.high_.astype(np.float32), out=x)
        x -= self.mean_.astype(np.float32)
        x *= scale
        return np.clip(x, -self.clip, self.clip, out=x)

    def state(self) -> dict[str, np.ndarray]:
        """Fitted arrays, to be stored beside a checkpoint."""
        names = ("median_", "low_", "high_", "mean_", "std_")
        return {**{name: getattr(self, name) for name in names}, "clip": np.array(self.clip)}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> WinsorizedScaler:
        scaler = cls(float(state["clip"]))
        for name, value in state.items():
            if name != "clip":
                setattr(scaler, name, value)
        return scaler
