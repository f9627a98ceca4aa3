"""One set of patients as the report has it: who they are, and every metric of every model on them."""

from __future__ import annotations

from typing import Any

from histill.evaluation.predictions import Outcomes
from histill.evaluation.scoring import METRICS, Scores, counts


def patients_and_metrics(scores: Scores | None, outcomes: Outcomes, confidence: float) -> dict[str, Any]:
    """`n`, `events` or `classes`, the same by `folds`, `redrawn`, and `models`: name -> metric -> estimate."""
    if scores is None:
        return {**counts(set(), outcomes), "folds": [], "redrawn": 0, "models": {}}
    patients = {patient for members in scores.patients.values() for patient in members}
    keys = [metric.key for metric in METRICS[outcomes.type]]
    return {
        **counts(patients, outcomes),
        "folds": [{"fold": fold, **counts(set(members), outcomes)} for fold, members in scores.patients.items()],
        "redrawn": scores.redrawn,
        "models": {
            name: {key: by_metric[key].plain(confidence) for key in keys}
            for name, by_metric in scores.estimates.items()
        },
    }
