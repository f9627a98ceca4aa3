"""Batch correction of expression, fitted on training patients."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from histill.data.scaling import FittedState
from histill.errors import HistillError

UNSEEN = ("error", "pass")


class ComBat(FittedState, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """ComBat with parametric empirical Bayes (Johnson et al. 2007, doi:10.1093/biostatistics/kxj037).

    neuroCombat estimates; what it finds is one line a batch and gene, `scale · x + shift`, and this is what is kept and
    applied to new patients of the same batches. No covariate is protected: labels are not known in prediction, and a
    correction that keeps them would carry them into the features. Do not correct for batches that hold one class each.

    Parameters
    ----------
    unseen
        What to do with a sample of a batch that has no estimate: refuse it (`error`), or leave it as it is (`pass`).
    min_samples
        Training samples a batch needs for an estimate, at least 2.

    Attributes
    ----------
    scale_, shift_
        float64 [batches, G]; 1 and 0 for genes that are constant in a batch, which ComBat cannot estimate.
    batches_
        Names of the batches with an estimate, sorted.
    """

    PARAMETERS = ("unseen", "min_samples")
    FITTED = ("scale_", "shift_", "batches_")

    def __init__(self, unseen: str = "error", min_samples: int = 3):
        self.unseen = unseen
        self.min_samples = min_samples

    def fit(self, x: np.ndarray, y: None = None, *, batch: Sequence[str | None]) -> ComBat:
        """Fit on log-scale training samples [N, G] and the batch of each; None is a batch that has no estimate.

        Raises
        ------
        HistillError
            When fewer than two batches are large enough, or a batch is too small and `unseen` is `error`.
        """
        x = validate_data(self, x, dtype=np.float64)
        if self.unseen not in UNSEEN:
            raise HistillError(f"no policy '{self.unseen}' for unseen batches", mend=f"give one of {', '.join(UNSEEN)}")
        names, counts = np.unique([name for name in _names(batch) if name], return_counts=True)
        self.batches_ = names[counts >= max(2, self.min_samples)]
        if len(self.batches_) < 2:
            raise HistillError(
                f"{len(self.batches_)} of {len(names)} batches have {self.min_samples} training samples or more; a "
                "batch effect cannot be estimated",
                mend="correct for a coarser batch, or for none",
            )
        code = self._codes(batch)
        rows = code >= 0
        x, code = x[rows], code[rows]
        varies = np.all([np.ptp(x[code == index], axis=0) > 0 for index in range(len(self.batches_))], axis=0)
        self.scale_, self.shift_ = np.ones((len(self.batches_), x.shape[1])), np.zeros((len(self.batches_), x.shape[1]))
        if varies.sum() > 1:
            self.scale_[:, varies], self.shift_[:, varies] = _estimate(x[:, varies], code)
        return self

    def transform(self, x: np.ndarray, *, batch: Sequence[str | None]) -> np.ndarray:
        """Corrected float64 [N, G]; NaN stays NaN."""
        check_is_fitted(self)
        x = validate_data(self, x, reset=False, dtype=np.float64, ensure_all_finite="allow-nan", copy=True)
        code = self._codes(batch)
        known = code >= 0
        x[known] = self.scale_[code[known]] * x[known] + self.shift_[code[known]]
        return x

    def fit_transform(self, x: np.ndarray, y: None = None, *, batch: Sequence[str | None]) -> np.ndarray:
        """Corrected training samples."""
        return self.fit(x, batch=batch).transform(x, batch=batch)

    def _codes(self, batch: Sequence[str | None]) -> np.ndarray:
        """Position of each sample's batch in `batches_` [N], −1 for batches without an estimate."""
        batch = _names(batch)
        code = np.minimum(np.searchsorted(self.batches_, batch), len(self.batches_) - 1)
        known = self.batches_[code] == batch
        if self.unseen == "error" and not known.all():
            unknown = sorted(set(batch[~known]))
            raise HistillError(
                f"{len(unknown)} batches have fewer than {self.min_samples} training samples, such as "
                f"'{unknown[0] or '(none)'}'",
                mend="set transcriptome.transform.batch.unseen to pass, which leaves their samples as they are, or "
                "correct for a coarser batch",
            )
        return np.where(known, code, -1)


def _names(batch: Sequence[str | None]) -> np.ndarray:
    return np.array(["" if name is None else str(name) for name in batch])


def _estimate(x: np.ndarray, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift [batches, G] from samples [N, G] and the positions of their batches [N]."""
    import pandas
    from neuroCombat import neuroCombat

    with contextlib.redirect_stdout(io.StringIO()):  # it prints each of its steps
        found = neuroCombat(x.T, pandas.DataFrame({"batch": code}), "batch")["estimates"]
    mean, deviation = found["stand.mean"][:, 0], np.sqrt(found["var.pooled"][:, 0])
    scale = 1 / np.sqrt(np.asarray(found["delta.star"]))
    return scale, mean - scale * (mean + deviation * np.asarray(found["gamma.star"]))
