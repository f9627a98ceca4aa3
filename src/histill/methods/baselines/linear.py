"""Ridge Cox and ridge logistic regression on principal components of slide, RNA, or both.

The simplest honest thing: mean-pooled features, PCA and ridge, all fitted on the training patients of the fold, the
ridge penalty chosen by cross-validation among them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from histill.data.fold import Labels
from histill.data.scaling import WinsorizedScaler
from histill.errors import HistillError

INNER_FOLDS = 4


@dataclass
class Block:
    """Scaling and principal components of one modality.

    Scores keep the ratios of their variances, so that ridge shrinks weak directions more; the first has unit variance
    in training, so that the penalty means the same for any number of features.
    """

    scaler: WinsorizedScaler
    components: np.ndarray  # [K, F], divided by the first score's standard deviation
    offset: np.ndarray  # [F], mean of the scaled features

    @classmethod
    def fit(cls, x: np.ndarray, components: int) -> Block:
        scaler = WinsorizedScaler().fit(x)
        scaled = scaler.transform(x).astype(np.float64)
        offset = scaled.mean(axis=0)
        _, singular, directions = np.linalg.svd(scaled - offset, full_matrices=False)
        # One component fewer than patients, and none that only holds rounding noise.
        rank = int((singular > 1e-8 * max(singular[0], 1e-12)).sum())
        count = max(1, min(components, rank, len(x) - 1))
        deviation = max(singular[0], 1e-12) / np.sqrt(max(1, len(x) - 1))
        return cls(scaler, _fix_signs(directions[:count]) / deviation, offset)

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Scores [N, K]."""
        return (self.scaler.transform(x).astype(np.float64) - self.offset) @ self.components.T

    def state(self) -> dict[str, np.ndarray]:
        scaler = {f"scaler.{name}": value for name, value in self.scaler.state().items()}
        return {"components": self.components, "offset": self.offset, **scaler}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Block:
        scaler = {name.removeprefix("scaler."): value for name, value in state.items() if name.startswith("scaler.")}
        return cls(WinsorizedScaler.from_state(scaler), state["components"], state["offset"])


def _fix_signs(directions: np.ndarray) -> np.ndarray:
    """Largest loading positive, so that a fit does not depend on the linear-algebra library."""
    largest = np.abs(directions).argmax(axis=1)
    return directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]


@dataclass
class LinearModel:
    """Blocks by modality (`slide`, `rna`), coefficients [K, C] and intercepts [C].

    `baseline` [E] is the cumulative hazard of a Cox model at the ends of the intervals where the linear predictor is 0.
    """

    blocks: dict[str, Block]
    coefficients: np.ndarray
    intercepts: np.ndarray
    alpha: float
    baseline: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def fit(cls, inputs: dict[str, np.ndarray], labels: Labels, targets: list, options: dict[str, Any]) -> LinearModel:
        """Fit on training patients.

        Parameters
        ----------
        inputs
            Modality -> [N, F].
        targets
            Class names, or (time, event), one a patient.
        options
            `components` and the penalties `alphas` to choose from.
        """
        blocks = {name: Block.fit(x, options["components"]) for name, x in inputs.items()}
        scores = np.hstack([block.transform(inputs[name]) for name, block in blocks.items()])
        solver = _Cox(targets) if labels.task.type == "survival" else _Logistic(targets, labels.classes)
        alpha = solver.choose(scores, options["alphas"])
        coefficients, intercepts = solver.fit(scores, np.arange(len(scores)), alpha)
        if not np.isfinite(coefficients).all():
            raise HistillError(
                f"task '{labels.task.name}': the linear model does not converge with penalty {alpha:g}",
                mend="give larger methods.linear.alphas",
            )
        baseline = np.zeros(0)
        if labels.task.type == "survival":
            time, event = np.array(targets, dtype=np.float64).T
            baseline = breslow(scores @ coefficients[:, 0], event, time, labels.edges)
        return cls(blocks, coefficients, intercepts, alpha, baseline)

    def predict(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Log hazard ratios [N, 1], or class probabilities [N, C]."""
        linear = self._linear(inputs)
        if linear.shape[1] == 1:
            return linear
        exponent = np.exp(linear - linear.max(axis=1, keepdims=True))
        return exponent / exponent.sum(axis=1, keepdims=True)

    def survival(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Survival [N, E] at the ends of the intervals, S = exp(−H0 · exp(x · β))."""
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            return np.exp(-np.exp(self._linear(inputs) + np.log(self.baseline)))

    def _linear(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        scores = np.hstack([block.transform(inputs[name]) for name, block in self.blocks.items()])
        return scores @ self.coefficients + self.intercepts

    def state(self) -> dict[str, np.ndarray]:
        arrays = {"coefficients": self.coefficients, "intercepts": self.intercepts, "alpha": np.array(self.alpha)}
        arrays["baseline"] = self.baseline
        for name, block in self.blocks.items():
            arrays |= {f"{name}.{key}": value for key, value in block.state().items()}
        return arrays

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> LinearModel:
        blocks = {}
        for name in sorted({key.split(".")[0] for key in state if "." in key}, key=("slide", "rna").index):
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            blocks[name] = Block.from_state(own)
        return cls(blocks, state["coefficients"], state["intercepts"], float(state["alpha"]), state["baseline"])


def breslow(linear: np.ndarray, event: np.ndarray, time: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Breslow's cumulative baseline hazard of a Cox model.

    Parameters
    ----------
    linear
        [N] linear predictors of the training patients.
    event, time
        [N] of the same.
    at
        [E] times at which it is wanted.

    Returns
    -------
    [E], H0(t) = Σ over events until t of 1 / Σ over those at risk of exp(linear) (Breslow, Biometrics 30:89, 1974).
    """
    shift = linear.max()  # keeps the sums finite
    at_risk = (time[None, :] >= time[:, None]) @ np.exp(linear - shift)
    steps = np.where(event > 0, np.exp(-shift) / at_risk, 0.0)
    return (time[None, :] <= at[:, None]) @ steps


class _Solver(ABC):
    """Choice of the penalty by cross-validation among training patients."""

    strata: np.ndarray

    @abstractmethod
    def fit(self, x: np.ndarray, rows: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients [K, C] and intercepts [C] of scores x[rows] under a penalty."""

    @abstractmethod
    def score(self, linear: np.ndarray, rows: np.ndarray) -> float:
        """How well linear predictors [len(rows), C] do on rows; higher is better."""

    def choose(self, x: np.ndarray, alphas: list[float]) -> float:
        if len(alphas) == 1:
            return alphas[0]
        order = np.lexsort((np.random.default_rng(0).permutation(len(x)), self.strata))
        part = np.empty(len(x), int)
        part[order] = np.arange(len(x)) % INNER_FOLDS
        totals = []
        for alpha in sorted(alphas):
            scores = []
            for held in range(INNER_FOLDS):
                rows, test = np.flatnonzero(part != held), np.flatnonzero(part == held)
                coefficients, intercepts = self.fit(x, rows, alpha)
                # Too weak a penalty lets Newton's steps run away on separable data.
                whole = np.isfinite(coefficients).all()
                scores.append(self.score(x[test] @ coefficients + intercepts, test) if whole else -np.inf)
            totals.append(np.mean(scores))
        # Ties go to the stronger penalty.
        best = max(totals)
        return max(alpha for alpha, total in zip(sorted(alphas), totals, strict=True) if total >= best - 1e-12)


class _Cox(_Solver):
    def __init__(self, targets: list[tuple[float, int]]):
        from sksurv.util import Surv

        time, event = np.array(targets, dtype=np.float64).T
        # The likelihood needs positive times; a time of 0 (died on the day) is the earliest there is.
        self.outcome = Surv.from_arrays(event.astype(bool), np.maximum(time, 1e-6))
        self.strata = event

    def fit(self, x, rows, alpha):
        from sksurv.linear_model import CoxPHSurvivalAnalysis

        # An inner fold without an event says nothing about hazards.
        if not self.strata[rows].any():
            return np.zeros((x.shape[1], 1)), np.zeros(1)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            model = CoxPHSurvivalAnalysis(alpha=alpha, ties="efron").fit(x[rows], self.outcome[rows])
        return model.coef_[:, None], np.zeros(1)

    def score(self, linear, rows):
        """Harrell's C; 0.5 where no pair can be compared."""
        from sksurv.exceptions import NoComparablePairException
        from sksurv.metrics import concordance_index_censored

        outcome = self.outcome[rows]
        names = outcome.dtype.names
        try:
            return concordance_index_censored(outcome[names[0]], outcome[names[1]], linear[:, 0])[0]
        except (NoComparablePairException, ValueError):
            return 0.5


class _Logistic(_Solver):
    def __init__(self, targets: list[str], classes: list[str]):
        self.labels = np.array([classes.index(target) for target in targets])
        self.classes = len(classes)
        self.strata = self.labels

    def fit(self, x, rows, alpha):
        from sklearn.linear_model import LogisticRegression

        # The same meaning of alpha as in the Cox model: a penalty on the mean loss.
        model = LogisticRegression(C=1 / (alpha * len(rows)), class_weight="balanced", max_iter=2000)
        model.fit(x[rows], self.labels[rows])
        coefficients, intercepts = np.zeros((x.shape[1], self.classes)), np.full(self.classes, -30.0)
        if len(model.classes_) == 2:
            coefficients[:, model.classes_[1]], intercepts[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
        else:
            coefficients[:, model.classes_], intercepts[model.classes_] = model.coef_.T, model.intercept_
        return coefficients, intercepts

    def score(self, linear, rows):
        """Mean log-likelihood."""
        shifted = linear - linear.max(axis=1, keepdims=True)
        log = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return float(log[np.arange(len(rows)), self.labels[rows]].mean())
