"""Normalisation of counts across samples, fitted on training patients: TMM and upper quartile.

CPM, TPM and FPKM of a sample need that sample alone. TMM compares it with a reference sample, and the upper quartile
is taken among the genes that are counted in any sample; the factors of both are scaled to a geometric mean of 1 over a
cohort. Computed over all patients, they would carry test patients into training. Here they are fitted on training
samples and kept; a new sample is normalised against them, by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from histill.data.scaling import FittedState
from histill.errors import HistillError

METHODS = ("tmm", "upper_quartile")
_ROWS = 256  # samples at a time: TMM holds some six arrays of this many rows


class CountNormaliser(FittedState, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Counts to log2(CPM + 1), with library sizes scaled by TMM or by upper quartiles.

    The arithmetic is rnanorm's (equal to edgeR's `calcNormFactors`). rnanorm leaves out genes that are zero in the
    batch it is handed, so a sample would depend on its neighbours, and a new batch would not fit the reference; here
    every batch carries one more row in which no gene is zero.

    Parameters
    ----------
    method
        `tmm` (Robinson & Oshlack 2010, doi:10.1186/gb-2010-11-3-r25: trims of 30 % of M and 5 % of A values) or
        `upper_quartile` (Bullard et al. 2010, doi:10.1186/1471-2105-11-94).

    Attributes
    ----------
    anchor_
        Counts of all training samples together, float64 [G]. Genes at 0 there are no part of any factor.
    reference_
        Counts of the training sample whose upper quartile is nearest to the mean, float64 [G]; used by TMM.
    geometric_mean_
        Of the training samples' factors.
    """

    PARAMETERS = ("method",)
    FITTED = ("anchor_", "reference_", "geometric_mean_")

    def __init__(self, method: str = "tmm"):
        self.method = method

    def fit(self, x: np.ndarray, y: None = None) -> CountNormaliser:
        """Fit on counts [N, G] of training samples.

        Raises
        ------
        HistillError
            When values are negative or missing, or a sample holds no reads.
        """
        self.fit_library(x)
        return self

    def fit_library(self, x: np.ndarray) -> np.ndarray:
        """Fit on counts [N, G] of training samples, and their effective library sizes [N]; half the work of both."""
        if self.method not in METHODS:
            raise HistillError(f"no normalisation '{self.method}'", mend=f"give one of {', '.join(METHODS)}")
        x = self._counts(x, reset=True)
        self.anchor_ = x.sum(axis=0)
        total = x.sum(axis=1)
        library = self._library(x, _upper_quartile)
        share = library / total
        self.reference_ = x[np.abs(share / share.mean() - 1).argmin()].copy()
        if self.method == "tmm":
            library = self._library(x, _tmm)
        self.geometric_mean_ = np.exp(np.log(library / total).mean())
        return library / self.geometric_mean_

    def library(self, x: np.ndarray) -> np.ndarray:
        """Effective library sizes [N] of counts [N, G]: reads times factor. A gene that is NaN was not measured."""
        check_is_fitted(self)
        x = self._counts(x, reset=False)
        return self._library(x, _tmm if self.method == "tmm" else _upper_quartile) / self.geometric_mean_

    def fit_transform(self, x: np.ndarray, y: None = None) -> np.ndarray:
        """log2(CPM + 1) of training samples."""
        return log_cpm(x, self.fit_library(x))

    def transform(self, x: np.ndarray) -> np.ndarray:
        """log2(CPM + 1), float64 [N, G], of counts [N, G]; NaN stays NaN."""
        return log_cpm(x, self.library(x))

    def _counts(self, x: np.ndarray, *, reset: bool) -> np.ndarray:
        x = validate_data(self, x, reset=reset, dtype=np.float64, ensure_all_finite=reset or "allow-nan")
        if (x < 0).any():
            raise HistillError(
                f"{int((x < 0).sum())} counts are negative", mend="normalise counts only: set transcriptome.matrix.unit"
            )
        if not reset:
            missing = np.isnan(x)
            if (missing.any(axis=0) != missing.all(axis=0)).any():
                raise HistillError("a gene is counted in some samples only", mend="give its counts in all, or in none")
        if (np.nansum(x, axis=1) == 0).any():
            raise HistillError("a sample holds no reads", mend="remove the sample")
        return x

    def _library(self, x: np.ndarray, method: Callable[..., Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
        """Reads times factor [N], from the genes that training samples have and these samples were counted for."""
        genes = (self.anchor_ > 0) & ~np.isnan(x[0])
        factors = method(self, genes)
        parts = [x[start : start + _ROWS, genes] for start in range(0, len(x), _ROWS)]
        return np.concatenate([part.sum(axis=1) * factors(part) for part in parts])


def log_cpm(x: np.ndarray, library: np.ndarray) -> np.ndarray:
    """log2(CPM + 1), float64 [N, G], of counts and library sizes [N]."""
    return np.log2(np.asarray(x, dtype=np.float64) * (1e6 / library)[:, None] + 1.0)


def _upper_quartile(fitted: CountNormaliser, genes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Function of counts [N, genes] that gives their upper quartiles as shares of their reads [N]."""
    from rnanorm import UQ

    anchor = fitted.anchor_[None, genes]
    model = UQ().fit(anchor)
    model.geometric_mean_ = 1.0
    return lambda counts: model.get_norm_factors(np.vstack([anchor, counts]))[1:]


def _tmm(fitted: CountNormaliser, genes: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Function of counts [N, genes] that gives their TMM factors against the reference sample [N]."""
    from rnanorm import TMM

    anchor, reference = fitted.anchor_[None, genes], fitted.reference_[genes]
    model = TMM().fit(anchor)
    model.ref_, model.geometric_mean_ = reference, 1.0
    # Of a sample without some of the genes, the reference's reads are known: its library is scaled to all genes.
    whole = fitted.reference_.sum() / reference.sum()
    return lambda counts: whole * model.get_norm_factors(np.vstack([anchor, counts]))[1:]
