"""What has a predicted probability: a class, or the event until a horizon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from histill.evaluation.horizons import Horizons
from histill.evaluation.predictions import Outcomes, Predictions
from histill.evaluation.sampling import Sample
from histill.evaluation.scoring import Rows, class_rows, survival_at


@dataclass(frozen=True)
class Event:
    """A class of a task, or the event until a horizon.

    Attributes
    ----------
    label
        For readers: `class tumour`, `36 months`.
    index
        Number of the class; None for horizons.
    time
        The horizon; None for classes.
    """

    label: str
    index: int | None = None
    time: float | None = None

    def predicted(self, model: Predictions, fold: int, seed: int, members: list[str]) -> np.ndarray | None:
        """Probabilities [N]; None where the model has none."""
        if self.index is not None:
            return np.array([model.test[fold, seed][patient][self.index] for patient in members])
        curves = model.survival.get((fold, seed))
        found = None if curves is None else 1.0 - survival_at(curves, members, np.array([self.time]))[:, 0]
        return None if found is None or np.isnan(found).any() else found

    def rows(
        self, model: Predictions, outcomes: Outcomes, sample: Sample, horizons: Horizons
    ) -> Callable[[int, int], Rows]:
        """Rows for `histill.evaluation.scoring.pooled`: predicted, happened, and the inverse probability of censoring.

        Who was censored before the horizon counts nothing.
        """
        if self.index is not None:
            return class_rows(model, outcomes, sample, self.index)

        def rows(fold: int, seed: int) -> Rows:
            members, censoring = sample.patients[fold], horizons.censoring[fold]
            time, event = np.array([outcomes.values[patient] for patient in members], dtype=np.float64).T
            happened = (event == 1) & (time <= self.time)
            weight = censoring.inverse(np.where(happened, time, self.time))
            known = (happened | (time > self.time)) & np.isfinite(weight)
            return self.predicted(model, fold, seed, members), happened, np.where(known, weight, 0.0)

        return rows


def events_of(outcomes: Outcomes, horizons: Horizons, unit: str) -> list[Event]:
    """The second of two classes, every class of several, or every horizon."""
    if outcomes.type == "survival":
        return [Event(f"{time:g} {unit}", time=time) for time in horizons.times]
    classes = list(enumerate(outcomes.classes))
    return [Event(f"class {name}", index=index) for index, name in (classes if len(classes) > 2 else classes[1:])]


def complete(event: Event, model: Predictions, sample: Sample, seeds: list[int]) -> bool:
    """Whether the models of all folds and seeds have a probability of it."""
    return all(
        event.predicted(model, fold, seed, members) is not None
        for fold, members in sample.patients.items()
        for seed in seeds
    )
