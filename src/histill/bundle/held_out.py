"""What models said of patients that they had not seen, and the reference that is fitted on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histill.bundle.bundle import mean_features
from histill.bundle.calibration import ClassCalibration, SurvivalCalibration
from histill.bundle.reference import Reference
from histill.data.fold import Cohort
from histill.evaluation.predictions import Outcomes, Predictions
from histill.evaluation.survival_curves import risk_margin


@dataclass(frozen=True)
class HeldOut:
    """Predictions of patients by models that have not seen them, one row a patient and repeat of the folds.

    Attributes
    ----------
    fold
        [N], int64.
    rows
        Patient of each row [N].
    outputs
        Standardised risks [N, 1] or class probabilities [N, C], mean over seeds.
    """

    fold: np.ndarray
    rows: list[str]
    outputs: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions, outcomes: Outcomes) -> HeldOut:
        whole, found = predictions.patients(), []
        seeds = sorted({seed for _, seed in predictions.test})
        for fold, tested in outcomes.tested.items():
            for patient in (patient for patient in tested if patient in whole):
                said = [_output(predictions, fold, seed, patient) for seed in seeds]
                found.append((fold, patient, np.mean(said, axis=0)))
        folds, rows, outputs = zip(*found, strict=True)
        return cls(np.array(folds), list(rows), np.stack(outputs))

    @property
    def patients(self) -> list[str]:
        return sorted(set(self.rows))

    def partition(self) -> list[np.ndarray]:
        """Numbers among `patients` of those each fold of one repeat tests: every patient once."""
        number = {patient: index for index, patient in enumerate(self.patients)}
        own = np.array([number[patient] for patient in self.rows])
        parts, seen = [], np.zeros(len(number), dtype=bool)
        for fold in np.unique(self.fold):
            rows = own[self.fold == fold]
            if not seen[rows].any():
                seen[rows] = True
                parts.append(rows)
        return parts


def _output(predictions: Predictions, fold: int, seed: int, patient: str) -> np.ndarray:
    value = predictions.test[fold, seed][patient]
    training = predictions.training_risk.get((fold, seed))
    return value if training is None else risk_margin(value, training)


def fit_reference(cohort: Cohort, outcomes: Outcomes, held: HeldOut, times: np.ndarray) -> Reference:
    """The reference of a cohort; survival is told at `times` [T]."""
    bags = cohort.bags
    rows = [mean_features(bags, patient) for patient in held.patients]
    means = {
        level: np.stack([row.get(level, np.full(width, np.nan)) for row in rows])
        for level, width in bags.features.items()
    }
    values = [outcomes.values[patient] for patient in held.rows]
    if outcomes.type == "survival":
        time, event = np.array(values, dtype=np.float64).T
        calibrate = SurvivalCalibration.fit(held.outputs[:, 0], time, event, times)
    else:
        calibrate = ClassCalibration.fit(held.outputs, np.array(values))
    return Reference.fit(means, held.partition(), held.outputs, calibrate)
