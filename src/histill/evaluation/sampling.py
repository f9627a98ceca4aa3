"""Which patients are scored in which fold, and how often each of them is drawn in every resample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from histill.evaluation.intervals import resample
from histill.evaluation.predictions import Outcomes


def by_fold(patients: set[str], outcomes: Outcomes) -> dict[int, list[str]]:
    """Fold -> sorted patients that are tested in it; folds without any are left out."""
    folds = {fold: [patient for patient in tested if patient in patients] for fold, tested in outcomes.tested.items()}
    return {fold: members for fold, members in sorted(folds.items()) if members}


@dataclass(frozen=True)
class Sample:
    """Patients of a set, and resamples of them.

    Attributes
    ----------
    patients
        Fold -> sorted patients.
    weights
        Fold -> [1 + B, N]: ones, then how often each patient of the fold is drawn in each resample. A patient who is
        tested in several folds is drawn equally often in all of them.
    redrawn
        How many resamples were drawn again.
    """

    patients: dict[int, list[str]]
    weights: dict[int, np.ndarray]
    redrawn: int

    @classmethod
    def draw(
        cls,
        patients: dict[int, list[str]],
        defined: dict[int, Callable[[np.ndarray], np.ndarray]],
        draws: int,
        seed: int,
    ) -> Sample:
        """Draw resamples within folds: each patient in the first fold that tests it.

        Parameters
        ----------
        patients
            Of `by_fold`.
        defined
            Fold -> whether weights [B, N] of its patients can be scored [B]; resamples that cannot are drawn again. A
            fold whose patients cannot be scored themselves is resampled without this condition, as are those whose
            patients other folds have drawn.
        draws, seed
            Number of resamples; seed of the random stream of every fold, with the fold's number.
        """
        drawn: dict[str, np.ndarray] = {}
        weights, redrawn = {}, 0
        for fold, members in patients.items():
            own = [patient for patient in members if patient not in drawn]
            if own:
                whole = own == members and defined[fold](np.ones((1, len(own))))[0]
                needed = defined[fold] if whole else lambda counts: np.ones(len(counts), dtype=bool)
                counts, again = resample(len(own), draws, np.random.default_rng([seed, fold]), needed)
                drawn.update(zip(own, counts.T, strict=True))
                redrawn += again
            weights[fold] = np.concatenate([np.ones((1, len(members))), np.stack([drawn[p] for p in members], axis=1)])
        return cls(patients, weights, redrawn)
