"""What a prediction is held against: how slides of the cohort look, and how outputs of its patients are distributed.

Everything is fitted on the patients that the members were trained and tested on, and cross-fitted where it judges: a
patient's distance and output are those of models that have not seen the patient. Only aggregates are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from histill.bundle.calibration import ClassCalibration, SurvivalCalibration
from histill.errors import HistillError

GRID = np.linspace(0.01, 0.99, 99)  # of the quantiles that stand for a distribution
LIMIT = 0.99  # share of held-out patients within the threshold
DIRECTIONS = 32  # at most; and one to `PATIENTS_A_DIRECTION` patients
PATIENTS_A_DIRECTION = 4
FEWEST = 3  # patients
_EPSILON = 1e-7
_FLOOR = 1e-3  # of a variance, in shares of the mean one


@dataclass(frozen=True)
class Appearance:
    """Distribution of patients' mean features at one magnification: a normal one, by probabilistic PCA.

    Features are standardised; constant ones count nothing. Of their covariance the leading directions are kept, and one
    variance for all others (Tipping and Bishop, J R Stat Soc B 61:611, 1999), so that it is defined for fewer patients
    than features.

    Attributes
    ----------
    centre, scale
        Mean and standard deviation of each feature [F]; scale 0 at constant features.
    directions
        float32 [K, F], rows of length 1.
    variances
        Along them [K].
    rest
        Along any other direction, [1].
    """

    centre: np.ndarray
    scale: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    rest: np.ndarray

    @classmethod
    def fit(cls, means: np.ndarray) -> Appearance:
        """Fit on patients [P, F]; rows of NaN do not count, and other NaN is taken for the centre."""
        means = means[np.isfinite(means).any(axis=1)]
        known = np.isfinite(means)
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, means, 0.0).sum(axis=0) / count
        away = np.where(known, means - centre, 0.0)
        scale = np.sqrt((away**2).sum(axis=0) / count)
        scale[scale <= 1e-6 * np.maximum(np.abs(centre), _EPSILON)] = 0.0
        z = _standardised(means, centre, scale)
        patients, width = z.shape
        total = max((z**2).sum() / patients, _EPSILON)
        _, singular, directions = np.linalg.svd(z, full_matrices=False)
        kept = min(DIRECTIONS, max(1, patients // PATIENTS_A_DIRECTION), width)
        variances = np.maximum(singular[:kept] ** 2 / patients, _FLOOR * total / width)
        rest = max(total - variances.sum(), 0.0) / max(1, width - kept)
        directions = directions[:kept].astype(np.float32)
        return cls(centre, scale, directions, variances, np.array([max(rest, _FLOOR * total / width)]))

    def distance(self, means: np.ndarray) -> np.ndarray:
        """Mahalanobis distances [P] of mean features [P, F], over the root of F: near 1 for patients fitted on."""
        z = _standardised(means, self.centre, self.scale)
        along = z @ self.directions.T
        beside = np.maximum((z**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        squared = (along**2 / self.variances).sum(axis=1) + beside / self.rest
        return np.sqrt(squared / z.shape[1])


def _standardised(means: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    usable = np.isfinite(means) & (scale > 0)
    return np.where(usable, (means - centre) / np.where(scale > 0, scale, 1.0), 0.0)


@dataclass(frozen=True)
class Reference:
    """The cohort that a prediction is held against.

    Attributes
    ----------
    appearances
        Of each fold, fitted on all patients but those it tests: magnification -> how slides look there. One that was
        fitted on all would find new slides nearer or farther than held-out patients.
    distances
        Quantiles (`GRID`) of the patients' distances, each by the fold that tests the patient.
    outputs
        Quantiles of out-of-fold outputs, [1, Q] of standardised risks or [C, Q] of class probabilities.
    calibrate
        Map of one member's outputs: class probabilities [..., C] to calibrated ones, or standardised risks [...] to
        survival [..., T] at `calibrate.times`.
    """

    appearances: list[dict[str, Appearance]]
    distances: np.ndarray
    outputs: np.ndarray
    calibrate: ClassCalibration | SurvivalCalibration

    @classmethod
    def fit(
        cls,
        means: dict[str, np.ndarray],
        tested: list[np.ndarray],
        outputs: np.ndarray,
        calibrate: ClassCalibration | SurvivalCalibration,
    ) -> Reference:
        """Fit the appearance of every fold, and the distances of the patients it tests.

        Parameters
        ----------
        means
            Magnification -> mean features [P, F] of patients; rows of NaN where there is no tile. A magnification that
            fewer than `FEWEST` training patients of a fold have is left out.
        tested
            Numbers of the patients of each fold.
        outputs
            Out-of-fold outputs [N, 1] or [N, C].

        Raises
        ------
        HistillError
            Where there are too few patients.
        """
        patients = len(next(iter(means.values())))
        training = [np.setdiff1d(np.arange(patients), rows) for rows in tested]
        there = {level: np.isfinite(own).any(axis=1) for level, own in means.items()}
        means = {
            level: own
            for level, own in means.items()
            if all(np.count_nonzero(there[level][others]) >= FEWEST for others in training)
        }
        appearances, held = [], []
        for rows, others in zip(tested, training, strict=True):
            if not means or not len(rows):
                raise HistillError(
                    f"a fold tests {len(rows)} patients, of {patients}; that is too few for a reference",
                    mend="lower folds.n, or add patients",
                )
            appearances.append({level: Appearance.fit(own[others]) for level, own in means.items()})
            held.append(_distance(appearances[-1], {level: own[rows] for level, own in means.items()}))
        distances = np.quantile(np.concatenate(held), GRID)
        return cls(appearances, distances, np.quantile(outputs, GRID, axis=0).T, calibrate)

    @property
    def threshold(self) -> float:
        """Distance within which nearly all held-out patients (`LIMIT`) of the cohort lie."""
        return float(np.interp(LIMIT, GRID, self.distances))

    def out_of_distribution(self, mean_features: dict[str, np.ndarray]) -> dict[str, Any]:
        """How far a slide is from those of the cohort: the mean distance by the folds' appearances.

        Parameters
        ----------
        mean_features
            Magnification -> mean of the tiles' features [F]; a magnification without any tile is left out.

        Returns
        -------
        `score`, the distance (near 1 in the cohort); `percentile` of held-out patients that are nearer; `threshold`;
        `outside`, whether it lies beyond.

        Raises
        ------
        HistillError
            For features of no known magnification, or of another width.
        """
        widths = {level: len(own.centre) for level, own in self.appearances[0].items()}
        known = {level: np.asarray(mean_features[level]) for level in widths if level in mean_features}
        if not known or any(own.shape != (widths[level],) for level, own in known.items()):
            given = ", ".join(f"{level}: {list(np.shape(own))}" for level, own in mean_features.items())
            raise HistillError(
                f"features of {given or 'no magnification'} cannot be held against the bundle's, which are of {widths}",
                mend="give mean features [F] of the bundle's encoder",
            )
        rows = {level: own[None] for level, own in known.items()}
        score = float(np.mean([_distance(appearance, rows)[0] for appearance in self.appearances]))
        return {
            "score": score,
            "percentile": float(_percentile(score, self.distances)),
            "threshold": self.threshold,
            "outside": score > self.threshold,
        }

    def percentile(self, outputs: np.ndarray) -> np.ndarray:
        """Percentile among out-of-fold outputs: of standardised risks [...], or of class probabilities [..., C]."""
        if isinstance(self.calibrate, SurvivalCalibration):
            return _percentile(outputs, self.outputs[0])
        columns = [_percentile(np.asarray(outputs)[..., index], own) for index, own in enumerate(self.outputs)]
        return np.stack(columns, axis=-1)

    def state(self) -> dict[str, np.ndarray]:
        """All of it as arrays by name."""
        arrays = {"distances": self.distances, "outputs": self.outputs}
        kind = "survival" if isinstance(self.calibrate, SurvivalCalibration) else "classes"
        arrays |= {f"{kind}.{item.name}": getattr(self.calibrate, item.name) for item in fields(self.calibrate)}
        for fold, appearance in enumerate(self.appearances):
            for level, own in appearance.items():
                arrays |= {f"appearance.{fold}.{level}.{item.name}": getattr(own, item.name) for item in fields(own)}
        return arrays

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Reference:
        """The reference whose `state` this is."""

        def part(prefix: str) -> dict[str, np.ndarray]:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

        places = {tuple(name.rpartition(".")[0].split(".", 1)) for name in part("appearance.")}
        levels, folds = sorted({level for _, level in places}), len({fold for fold, _ in places})
        appearances = [
            {level: Appearance(**part(f"appearance.{fold}.{level}.")) for level in levels} for fold in range(folds)
        ]
        survival = part("survival.")
        calibrate = SurvivalCalibration(**survival) if survival else ClassCalibration(**part("classes."))
        return cls(appearances, state["distances"], state["outputs"], calibrate)


def _distance(appearance: dict[str, Appearance], means: dict[str, np.ndarray]) -> np.ndarray:
    """Root mean square over the magnifications that a patient has: distances [P]."""
    squared = np.stack([own.distance(means[level]) ** 2 for level, own in appearance.items() if level in means])
    there = np.stack([np.isfinite(means[level]).any(axis=1) for level in appearance if level in means])
    return np.sqrt((squared * there).sum(axis=0) / np.maximum(there.sum(axis=0), 1))


def _percentile(value: np.ndarray | float, quantiles: np.ndarray) -> np.ndarray:
    return np.interp(value, quantiles, 100 * GRID, left=0.0, right=100.0)
